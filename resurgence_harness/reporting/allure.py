"""A verdict in Allure: labels, parameters, numbers, one contact sheet; and what only the controller knows of the run.

Everything works without allure-pytest: then nothing is written. Results are written in Allure's own formats
(https://allurereport.org/docs/how-it-works/), so that Allure 2 and 3 read them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
"""A cell's object in verdict.json."""

CATEGORIES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Safety regression", ("failed",), "SAFETY REGRESSION"),
    ("Undecided", ("failed",), "UNDECIDED"),
    ("Known, within an accepted ceiling", ("passed",), "KNOWN"),
    ("Incomplete: planned, without a verdict", ("broken",), "NO VERDICT"),
    ("Harness error", ("broken",), ""),
)
"""Name, statuses and a word of the message; the first that matches is taken."""
_OURS = (
    "*-result.json",
    "*-container.json",
    "*-attachment*",
    "*-globals.json",
    "*-check.json",
    "*-perf.json",
    "environment.properties",
    "executor.json",
    "categories.json",
)
_ARMS = (
    "base",
    "before",
    "after",
    "base_retained",
    "retained_before",
    "retained_after",
    "insample_before",
    "insample_after",
)


def clean(directory: Path) -> None:
    """Remove an earlier run's results; other files and folders stay. For the controller, before any test runs."""
    for pattern in _OURS:
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)


def label(*, task: str, method: str, concepts: int, finetuning: str, run: int, severity: str) -> None:
    """Say where the running test stands in the report; called before anything is built, so that failures show it."""
    allure = _allure()
    if allure is None:
        return
    allure.dynamic.epic(task)
    allure.dynamic.feature(method)
    allure.dynamic.story(_story(concepts))
    allure.dynamic.severity(severity)
    for name, value in (("task", task), ("method", method), ("count", concepts), ("fine-tuning", finetuning)):
        allure.dynamic.parameter(name, str(value))
    if run:
        allure.dynamic.parameter("run", str(run))


def attach(record: Record, *, message: str, sheet: bytes | None) -> None:
    """The verdict in words, the numbers as a table, and the contact sheet."""
    allure = _allure()
    if allure is None:
        return
    kind = allure.attachment_type
    allure.dynamic.description(f"**{record['verdict']}** {record['reason']}")
    if sheet is not None:
        allure.attach(sheet, "base | unlearned | fine-tuned", kind.JPG)
    allure.attach(message, "verdict", kind.TEXT)
    allure.attach(numbers(record), "numbers", kind.CSV)
    allure.attach(json.dumps(record, indent=2, ensure_ascii=False), "cell of verdict.json", kind.JSON)


def numbers(record: Record) -> str:
    """The arms of a cell as CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["arm", "rate", "low", "high", "hits", "judged", "abstained"])
    for arm in _ARMS:
        rate = record[arm]
        if rate is not None:
            shown = [f"{rate[name]:.4f}" for name in ("rate", "low", "high")]
            rows.writerow([arm.replace("_", " "), *shown, rate["hits"], rate["judged"], rate["abstained"]])
    return out.getvalue()


def note_known(config: Any, message: str) -> None:
    """Write a message into the running test's passed result, where Allure's categories can find it."""
    listener = config.pluginmanager.get_plugin("allure_listener")
    if listener is None:
        return
    from allure_commons.model2 import StatusDetails

    result = listener.allure_logger.get_test(None)
    if result is not None and result.status == "passed":
        result.statusDetails = StatusDetails(message=message)


def write_run(directory: Path, run: Mapping[str, Any], *, severities: Mapping[str, str]) -> None:
    """Environment, executor, categories, and a broken result for every cell that has none. For the controller."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = {"base": run["base"]["name"], "base digest": run["base"]["digest"], **run["environment"]}
    lines = (f"{name.replace(' ', '.')}={_escaped(value)}" for name, value in facts.items())
    _write(directory / "environment.properties", "\n".join(lines) + "\n")
    words = f"{run['status']}, exit code {run['exit_code']}"
    executor = {"name": "resurgence-harness", "type": "pytest", "buildName": words}
    _write(directory / "executor.json", json.dumps(executor, indent=2))
    _write(directory / "categories.json", json.dumps(_categories(), indent=2))
    _write(directory.parent / "allurerc.yml", _configuration(run))
    for entry in run["missing"]:
        if entry["kind"] != "harness error":  # that test ran, and its own result says what broke
            _write_unrun(directory, entry, severity=severities.get(entry["task"], "critical"))


def _write_unrun(directory: Path, entry: Mapping[str, Any], *, severity: str) -> None:
    method, count, finetuning = _parts(entry["id"])
    now = int(time.time() * 1000)
    labels = {
        "epic": entry["task"],
        "feature": method,
        "story": _story(count),
        "severity": severity,
        "framework": "pytest",
        "language": "python",
    }
    parameters = {"task": entry["task"], "method": method, "count": str(count), "fine-tuning": finetuning}
    result = {
        "uuid": str(uuid.uuid4()),
        "name": entry["nodeid"].rsplit("::", 1)[-1],
        "fullName": entry["nodeid"],
        "historyId": hashlib.md5(entry["nodeid"].encode(), usedforsecurity=False).hexdigest(),
        "status": "broken",
        "statusDetails": {"message": f"NO VERDICT: {entry['why']}"},
        "stage": "finished",
        "start": now,
        "stop": now,
        "labels": [{"name": name, "value": value} for name, value in labels.items()],
        "parameters": [{"name": name, "value": value} for name, value in parameters.items()],
    }
    _write(directory / f"{result['uuid']}-result.json", json.dumps(result, indent=2))


def _categories() -> list[dict[str, Any]]:
    """For Allure 2, which reads categories beside the results; [\\s\\S]* because . does not match line ends in Java."""
    return [
        {"name": name, "matchedStatuses": list(statuses)}
        | ({"messageRegex": f"[\\s\\S]*{word}[\\s\\S]*"} if word else {})
        for name, statuses, word in CATEGORIES
    ]


def _configuration(run: Mapping[str, Any]) -> str:
    """For Allure 3, which reads categories from its configuration; JSON is YAML."""
    return json.dumps(
        {
            "name": "Resurgence of erased concepts",
            "output": "./allure-report",
            "variables": {"Base": run["base"]["name"], "Exit code": str(run["exit_code"]), "Status": run["status"]},
            "categories": _categories(),
            "plugins": {"awesome": {"options": {"reportLanguage": "en", "groupBy": ["epic", "feature", "story"]}}},
        },
        indent=2,
    )


def _parts(cell: str) -> tuple[str, int, str]:
    """Method, count and fine-tuning of a cell's id."""
    words = cell.split("-")
    place = next((index for index, word in enumerate(words) if word.isdecimal()), None)
    if place is None:
        return cell, 1, ""
    return "-".join(words[:place]), int(words[place]), "-".join(words[place + 1 :])


def _story(concepts: int) -> str:
    return "1 concept" if concepts == 1 else f"{concepts} concepts"


def _escaped(value: object) -> str:
    """As Java's properties files want it."""
    return str(value).encode("unicode_escape").decode()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _allure() -> Any:
    """allure-pytest's module, or None where it is not installed."""
    try:
        import allure
    except ImportError:
        return None
    return allure
