"""Writes verdicts to Allure: labels, parameters, numbers and images of a test; run-level files from the controller.

Without allure-pytest the functions for tests do nothing. Results are written in Allure's own formats
(https://allurereport.org/docs/how-it-works/), so that Allure 2 and 3 read them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resurgence_harness.reporting import acceptance_page, cell_page, pages, run_page
from resurgence_harness.reporting.arms import ARMS
from resurgence_harness.reporting.categories import as_configuration
from resurgence_harness.reporting.file_set import write_set
from resurgence_harness.reporting.heat_map import heat_map
from resurgence_harness.specs import Cell
from resurgence_harness.statistics import CellEvidence

Record = Mapping[str, Any]
"""A cell's object in verdict.json."""

_PREFIX = "resurgence-run"


def label(cell: Cell, *, severity: str, base: str, trained: Mapping[str, object]) -> None:
    """Set labels and parameters of a cell's running test; called before anything is built, so failed tests have them.

    Allure identifies a test's history by its parameters; those in `trained` are shown but do not count for that.
    """
    allure = _allure()
    if allure is None:
        return
    allure.dynamic.epic(cell.task)
    allure.dynamic.feature(cell.method)
    allure.dynamic.story(_story(cell.count))
    allure.dynamic.severity(severity)
    stable = {
        "task": cell.task,
        "base": base,
        "method": cell.method,
        "count": cell.count,
        "fine-tuning": cell.finetuning,
        **({"run": cell.run} if cell.run else {}),
    }
    for name, value in stable.items():
        allure.dynamic.parameter(name, Word(value))
    for name, value in trained.items():
        allure.dynamic.parameter(name, Word(value), excluded=True)


class Word:
    """A parameter value that allure-pytest shows without quotation marks."""

    def __init__(self, value: object) -> None:
        """Any value."""
        self._text = str(value)

    def __repr__(self) -> str:
        return self._text


def attach(
    record: Record,
    evidence: CellEvidence,
    details: cell_page.Details,
    *,
    strip: cell_page.Strip | None,
    sheets: Sequence[tuple[str, bytes]],
    covered: bool,
) -> None:
    """Write the cell's page: verdict, worst images and tables as description; sheets, maps and data as attachments.

    `covered` sheets are blurred until the reader clicks on them.
    """
    allure = _allure()
    if allure is None:
        return
    kind = allure.attachment_type
    allure.dynamic.description_html(cell_page.description(record, evidence, details, strip=strip))
    for name, picture in sheets:
        if covered:
            page = pages.page(pages.picture(picture, about=name, covered=True))
            allure.attach(page, f"{name} (covered)", kind.HTML)
        else:
            allure.attach(picture, name, "image/jpeg", "jpg")
    allure.attach(heat_map(record, evidence), "prompted × drawn", kind.HTML)
    allure.attach(cell_page.provenance(details), "provenance, and how to reproduce it", kind.HTML)
    if details.quoted is not None:
        allure.attach(acceptance_page.page(details.quoted), details.quoted.label, kind.HTML)
    allure.attach(cell_page.concepts_csv(cell_page.per_concept(evidence, record["alpha"])), "per concept", kind.CSV)
    allure.attach(numbers(record), "numbers", kind.CSV)


def numbers(record: Record) -> str:
    """The arms of a cell as CSV."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["arm", "rate", "low", "high", "hits", "judged", "abstained"])
    for arm in ARMS:
        rate = record.get(arm)
        if rate is not None:
            shown = [f"{rate[name]:.4f}" for name in ("rate", "low", "high")]
            rows.writerow([arm.replace("_", " "), *shown, rate["hits"], rate["judged"], rate["abstained"]])
    return out.getvalue()


def note_known(config: Any, message: str) -> None:
    """Write a message into the running test's passed result, for the patterns of Allure's categories."""
    listener = config.pluginmanager.get_plugin("allure_listener")
    if listener is None:
        return
    from allure_commons.model2 import StatusDetails

    result = listener.allure_logger.get_test(None)
    if result is not None and result.status == "passed":
        result.statusDetails = StatusDetails(message=message)


def write_run(directory: Path, run: Mapping[str, Any], *, severities: Mapping[str, str]) -> None:
    """Write environment, executor, categories, metrics, and a broken result for every cell without one.

    Called by the controller. What no single test can report (a dead worker, a planned cell that was never judged) is
    written as an error of the whole run as well. HarnessError if a file cannot be written.
    """
    lines = (f"{name.replace(' ', '.')}={_escaped(value)}" for name, value in run_page.environment(run).items())
    _write(directory / "environment.properties", "\n".join(lines) + "\n")
    outcome = f"{run['status']}, exit code {run['exit_code']}"
    executor = {"name": "resurgence-harness", "type": "pytest", "buildName": outcome}
    _write(directory / "executor.json", json.dumps(executor, indent=2))
    _write(directory / "categories.json", json.dumps(as_configuration(), indent=2))
    _write(directory.parent / "allurerc.yml", json.dumps(run_page.configuration(run), indent=2))  # JSON is YAML
    _write(directory / f"{_PREFIX}-perf.json", json.dumps(run_page.metrics(run)))
    _write(directory / f"{_PREFIX}-check.json", json.dumps(run_page.check(run)))
    _write(directory / f"{_PREFIX}-globals.json", json.dumps({"errors": run_page.errors(run), "attachments": []}))
    for entry in run["missing"]:
        if entry["kind"] != "harness error":  # that test ran, and its own result has the error
            severity = severities.get(entry["task"], "critical")
            _write_unrun(directory, entry, severity=severity, moment=run_page.moment_of(run["finished"]))


def _write_unrun(directory: Path, entry: Mapping[str, Any], *, severity: str, moment: int) -> None:
    method, count, finetuning = run_page.parts(entry["id"])
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
        "start": moment,
        "stop": moment,
        "labels": [{"name": name, "value": value} for name, value in labels.items()],
        "parameters": [{"name": name, "value": value} for name, value in parameters.items()],
    }
    _write(directory / f"{result['uuid']}-result.json", json.dumps(result, indent=2))


def _story(concepts: int) -> str:
    return "1 concept" if concepts == 1 else f"{concepts} concepts"


def _escaped(value: object) -> str:
    """Escaped for a Java properties file."""
    return str(value).encode("unicode_escape").decode()


def _write(path: Path, text: str) -> None:
    write_set(path.parent, {path.name: text})


def _allure() -> Any:
    """allure-pytest's module, or None if it is not installed."""
    try:
        import allure
    except ImportError:
        return None
    return allure
