"""Run-level content of the report, from verdict.json alone: environment, metrics, errors, the matrix.

Everything is plain data in Allure's formats.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from resurgence_harness.reporting.categories import as_configuration
from resurgence_harness.reporting.terminal import accepted

Run = Mapping[str, Any]
"""The object of verdict.json."""

METRIC = "resurgence.after"
"""Key of the metric over all judged cells; followed by "." and a method for those of one method."""


def title(run: Run) -> str:
    """The report's title: whether the candidate is blocked, and by what."""
    several = len({one["task"] for one in [*run["cells"], *run["missing"]]}) > 1

    def names(cells: Iterable[Mapping[str, Any]]) -> list[str]:
        return [f"{cell['task']}/{cell['id']}" if several else cell["id"] for cell in cells]

    kinds = {
        "regression": names(cell for cell in run["cells"] if cell["verdict"] == "VIOLATED"),
        "cell without a verdict": names(run["missing"]),
        "undecided cell": names(cell for cell in run["cells"] if cell["verdict"] == "UNDECIDED"),
    }
    blocking = [f"{_counted(len(found), kind)} ({_few(found)})" for kind, found in kinds.items() if found]
    if blocking:
        also = f"; also {', '.join(blocking[1:])}" if blocking[1:] else ""
        known_too = f"; {accepted(run['cells'])}" if accepted(run["cells"]) else ""
        return f"BLOCKED by {blocking[0]}{also}{known_too}"
    if run["exit_code"] or run["status"] != "complete" or not run["cells"]:
        return f"BLOCKED: the run ended with exit code {run['exit_code']} ({run['status']})"
    total = _counted(len(run["cells"]), "cell")
    return f"NOT BLOCKED: {total} judged; {accepted(run['cells']) or 'every one holds'}"


def environment(run: Run) -> dict[str, str]:
    """Names and values of models, machine and settings, the most wanted first."""
    selection, made_on = run["selection"], {name: str(value) for name, value in run["environment"].items()}
    choices = {"engine": selection["engine"], **selection["choices"]}
    chosen = {name: choices.get(name) for name in ("profile", "engine", "seeds", "runs")}
    changed, data = selection["changed"], choices.get("data")
    given = f"{data.get('images')} given images, digest {data.get('digest')}" if isinstance(data, Mapping) else ""
    first = {name: made_on.pop(name) for name in ("commit", "device", "gpus", "driver") if name in made_on}
    return {
        "base": run["base"]["name"],
        "base digest": run["base"]["digest"],
        "tool": run["tool"],
        "finished": run["finished"],
        **first,
        **{name: str(value) for name, value in chosen.items() if value is not None},
        **({"fine-tuning data": given} if given else {}),
        **({"changed presets": ", ".join(f"{name}={value}" for name, value in changed.items())} if changed else {}),
        **made_on,
    }


def variables(run: Run) -> dict[str, str]:
    """Values at the top of Allure's first page, below the title."""
    planned, judged = len(run["cells"]) + len(run["missing"]), len(run["cells"])
    return {"Judged": f"{judged} of {planned} planned cells", "Exit code": f"{run['exit_code']} ({run['status']})"}


def configuration(run: Run) -> dict[str, Any]:
    """Allure 3's configuration, with the categories and the titles of the metrics."""
    methods = dict.fromkeys(cell["method"] for cell in run["cells"])
    shown = {"unit": "%", "better": "lower", "group": "resurgence"}
    titles = {METRIC: "Erased rate after fine-tuning, all cells"}
    titles |= {f"{METRIC}.{method}": f"Erased rate after fine-tuning, {method}" for method in methods}
    options = {
        "reportLanguage": "en",
        "groupBy": ["epic", "feature", "story"],
        "defaultSortBy": "status,asc",  # failed tests first
    }
    return {
        "name": title(run),
        "output": "./allure-report",
        "variables": variables(run),
        "categories": as_configuration(),
        "hideLabels": list(_HIDDEN),
        "performance": {
            "groups": {"resurgence": {"title": "Concept resurgence"}},
            "metrics": {name: {"title": text, **shown} for name, text in titles.items()},
        },
        "plugins": {"awesome": {"options": options}},
    }


def metrics(run: Run) -> list[dict[str, Any]]:
    """The mean erased rate after fine-tuning in per cent, over all judged cells and per method."""
    moment = moment_of(run["finished"])
    rates: dict[str, list[float]] = {}
    for cell in run["cells"]:
        for key in (METRIC, f"{METRIC}.{cell['method']}"):
            rates.setdefault(key, []).append(100 * cell["after"]["rate"])
    return [
        {"id": key, "key": key, "value": sum(values) / len(values), "start": moment, "stop": moment}
        for key, values in rates.items()
    ]


def check(run: Run) -> dict[str, Any]:
    """The check that every planned cell was judged."""
    missing = [entry["id"] for entry in run["missing"]]
    planned = len(run["cells"]) + len(missing)
    message = f"{len(run['cells'])} of {planned} planned cells judged"
    return {
        "id": "planned-cells",
        "name": "Every planned cell has a verdict",
        "status": "failed" if missing else "passed",
        "details": {"command": "pytest", "message": message + (f"; missing: {', '.join(missing)}" if missing else "")},
    }


def errors(run: Run) -> list[dict[str, Any]]:
    """An error for every planned cell without a verdict."""
    moment = moment_of(run["finished"])
    return [
        {
            "message": f"{entry['task']}/{entry['id']}: no verdict ({entry['kind']}): {entry['why']}",
            "trace": entry["nodeid"],
            "timestamp": moment,
        }
        for entry in run["missing"]
    ]


def matrix_csv(run: Run) -> str:
    """Every planned cell as CSV, fractions of all images; those without a verdict have no numbers."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(_HEADER)
    for cell in run["cells"]:
        after = cell["after"]
        base, before, kept = (
            cell[arm]["rate"] if cell[arm] is not None else None for arm in ("base", "before", "retained_before")
        )
        numbers = [base, before, after["rate"], after["low"], after["high"], kept, cell["retained_after"]["rate"]]
        rows.writerow(
            [cell["task"], cell["method"], cell["concepts"], cell["finetuning"], cell["run"]]
            + ["" if number is None else f"{number:.4f}" for number in numbers]
            + [after["judged"] + after["abstained"], after["abstained"], cell["verdict"]]
            + [str(cell["reason"]).splitlines()[0]]
        )
    for entry in run["missing"]:
        rows.writerow([entry["task"], *parts(entry["id"]), *[""] * 10, "NO VERDICT", str(entry["why"]).splitlines()[0]])
    return out.getvalue()


def parts(cell: str) -> tuple[str, int, str]:
    """Method, count and fine-tuning of a cell's id."""
    fields = cell.split("-")
    place = next((index for index, word in enumerate(fields) if word.isdecimal()), None)
    if place is None:
        return cell, 1, ""
    return "-".join(fields[:place]), int(fields[place]), "-".join(fields[place + 1 :])


def moment_of(text: str) -> int:
    """A time of verdict.json in milliseconds since the epoch, as Allure has it."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


_HEADER = (
    *("task", "method", "concepts", "finetuning", "run", "base", "before", "after", "low", "high"),
    *("retained_before", "retained_after", "images", "abstained", "verdict", "reason"),
)
_HIDDEN = ("suite", "parentSuite", "subSuite", "host", "thread", "framework", "language", "package", "tag")
"""Labels that do not describe a cell; Allure hides them."""


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _counted(number: int, noun: str) -> str:
    if noun == "cell without a verdict" and number != 1:
        return f"{number} cells without a verdict"
    return f"{number} {noun}" + ("" if number == 1 else "s")
