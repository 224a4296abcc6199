"""What the controller knows of a whole run: planned cells, their verdicts, what is missing, the exit code, the reports.

Workers send each cell's record with its test report; which cells are planned they write into the run's folder when they
have collected. A planned cell without a record is missing: its worker died, -x stopped the run, or the harness failed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import resurgence_harness
from resurgence_harness.presets import plain
from resurgence_harness.pytest_plugin import progress
from resurgence_harness.pytest_plugin.gating import Gating
from resurgence_harness.pytest_plugin.options import Options
from resurgence_harness.pytest_plugin.progress import ProgressLine
from resurgence_harness.pytest_plugin.properties import CELL_PROPERTY
from resurgence_harness.reporting.records import libraries
from resurgence_harness.specs import Base

HARNESS_PROPERTY, MISTAKE_PROPERTY = "resurgence_harness_error", "resurgence_user_error"
"""Names of the user properties that say why a cell has no verdict."""
VERDICT_FILE = "verdict.json"
ALLURE_FOLDER = "allure-results"
_MARKUP = {
    "": {},
    "dim": {"light": True},
    "good": {"green": True},
    "warn": {"yellow": True},
    "bad": {"red": True, "bold": True},
}


class Session:
    """One run, seen from the controller (or from the only process there is)."""

    def __init__(self, config: pytest.Config, options: Options, *, device: str, base: Base | None) -> None:
        """A run with these choices, on this base if it is already known."""
        self._config, self.options, self.device, self.base = config, options, device, base
        self.gating: Gating | None = None
        """The release gate, where one was asked for."""
        self.own_allure = False
        """Whether results go to our default folder, which is ours to clean."""
        self.notes: tuple[str, ...] = ()
        """What the reader of the results must know of the prompts."""
        self._planned: dict[str, dict[str, Any]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._why: dict[str, tuple[str, str]] = {}
        self._failed_otherwise = False
        self._mistakes: list[str] = []
        self._by_hand = self._bad_collection = False
        self._started = datetime.now(UTC)
        self._progress: ProgressLine | None = None
        self._run: dict[str, Any] | None = None

    @cached_property
    def folder(self) -> Path:
        """Where workers tell this process what they collected and what they do."""
        return Path(tempfile.mkdtemp(prefix="resurgence-run-"))

    def close(self) -> None:
        """The run is over, however it ended."""
        if self._progress is not None:
            self._progress.stop()
        if "folder" in self.__dict__:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Before the tests

    @property
    def planned(self) -> bool:
        """Whether this run has cells."""
        return bool(self._planned)

    def forget_old(self) -> None:
        """Remove what an earlier run left, so that nobody takes it for this one's."""
        (self.options.out / VERDICT_FILE).unlink(missing_ok=True)
        results = self._config.getoption("allure_report_dir", None)
        if self.own_allure and results:
            from resurgence_harness.reporting import allure

            allure.clean(Path(results))

    def begin(self, planned: Iterable[Mapping[str, Any]]) -> None:
        """Collection is over; these cells owe a verdict."""
        if self._planned:
            return
        self._planned = {entry["nodeid"]: dict(entry) for entry in planned}
        if not self._planned or self._config.getoption("collectonly"):
            self._planned = {}
            return
        self.forget_old()
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        self._progress = ProgressLine(
            self.folder,
            terminal,
            costs=progress.costs(self._planned.values()),
            finished=lambda: {progress.word(record) for record in list(self._records.values())},
            quiet=self._config.getoption("verbose") < 0,
        )
        self._progress.start()

    # While tests run

    def erase_progress(self) -> None:
        """Somebody is about to write to the terminal."""
        if self._progress is not None:
            self._progress.erase()

    def collected(self, report: pytest.CollectReport) -> None:
        """A collection report."""
        self._bad_collection |= report.failed

    def stopped_by_hand(self) -> None:
        """Ctrl-C, or pytest.exit()."""
        self._by_hand = True

    def reported(self, report: pytest.TestReport) -> None:
        """A test report, from this process or a worker."""
        nodeid = report.nodeid
        for name, value in report.user_properties:
            if name == CELL_PROPERTY:
                self._records.setdefault(nodeid, json.loads(str(value)))
            elif name == HARNESS_PROPERTY:
                self._why.setdefault(nodeid, ("harness error", str(value)))
            elif name == MISTAKE_PROPERTY and value not in self._mistakes:
                self._mistakes.append(str(value))
        if report.when not in ("setup", "call", "teardown"):
            self._why.setdefault(nodeid, ("worker died", str(report.longrepr)))
        if not report.failed or nodeid in self._why:
            return
        record = self._records.get(nodeid)
        if record is None or record["verdict"] in ("HOLDS", "KNOWN"):
            self._failed_otherwise = True
            self._why.setdefault(nodeid, ("unrun", "its test failed before it had a verdict"))

    # After the tests

    def finish(self, status: int) -> int:
        """Settle the exit code and write what is written; gives the exit code."""
        if self._progress is not None:
            self._progress.stop()
        if self._mistakes:
            return int(pytest.ExitCode.USAGE_ERROR)
        if not self._planned:
            return status
        missing = self._missing()
        code = self._exit_code(status, missing)
        self._run = self._results(code, missing)
        from resurgence_harness.reporting import verdict_json

        if self._run.get("gate") and self.gating is not None:
            from resurgence_harness.gate import running

            running.write(self._run, self.options.out, self.gating.models)
        verdict_json.write(self.options.out / VERDICT_FILE, self._run)
        self._write_allure(self._run)
        return code

    def summarize(self, terminal: Any) -> None:
        """Print the table, the reasons, and what the exit code says."""
        for mistake in self._mistakes:
            terminal.section("resurgence", sep="=")
            terminal.write_line(f"ERROR: {mistake}", red=True)
        run = self._run
        if run is None:
            return
        from resurgence_harness.reporting import terminal as telling
        from resurgence_harness.reporting.together import over_recipes, sentence_of

        terminal.section("resurgence", sep="=")
        lines: list[telling.Line] = []
        if run["cells"]:
            lines += [[telling.Segment(telling.headline(run))], [], *telling.table(run["cells"]), []]
        told = [*telling.reasons(run["cells"]), *telling.missing(run["missing"])]
        lines += [*told, []] if told else []
        changed = run["selection"]["changed"]
        if changed:
            words = ", ".join(f"{name}={value}" for name, value in changed.items())
            lines.append([telling.Segment(f"Changed from the preset: {words}", "warn")])
        lines += [[telling.Segment(note, "warn")] for note in self.notes]
        lines += [[telling.Segment(note, "warn")] for note in run["selection"].get("notes", ())]
        if run["cells"]:
            lines += [[telling.Segment(words, "dim")] for words in over_recipes(run["cells"])]
            lines.append([telling.Segment(sentence_of(run["family"]), "dim")])
        if run.get("gate"):
            from resurgence_harness.reporting.job_summary import tell_ci

            notes = run["gate"]["notes"] + ([run["gate"]["audit"]["words"]] if run["gate"]["audit"] else [])
            lines += [[telling.Segment(note, "dim")] for note in notes]
            for command in tell_ci(run):
                terminal.write_line(command)
        lines += [telling.closing(run), [telling.Segment(self._shown(self.options.out / VERDICT_FILE), "dim")]]
        for line in lines:
            for segment in line:
                terminal.write(segment.text, **_MARKUP[segment.style])
            terminal.write("\n")

    def _missing(self) -> list[dict[str, Any]]:
        """Planned cells without a record, each with what is known of why."""
        found = []
        for nodeid, entry in self._planned.items():
            if nodeid in self._records and self._why.get(nodeid, ("", ""))[0] != "harness error":
                continue
            stopped = "the run was stopped by hand" if self._by_hand else "it was not run, or skipped"
            kind, why = self._why.get(nodeid, ("unrun", stopped))
            found.append({"id": entry["id"], "nodeid": nodeid, "task": entry["task"], "kind": kind, "why": why})
        return found

    def _exit_code(self, status: int, missing: list[dict[str, Any]]) -> int:
        """1 for a regression or a failed test, then 12, 11, 10; pytest's 2, 3 and 4 keep their meaning."""
        from resurgence_harness.statistics import VerdictKind, exit_code

        if status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
            return int(status)
        if status == pytest.ExitCode.INTERRUPTED and (self._by_hand or self._bad_collection):
            return int(status)
        broken = sum(entry["kind"] == "harness error" for entry in missing)
        lost = {entry["nodeid"] for entry in missing}
        kinds = [VerdictKind(record["verdict"]) for nodeid, record in self._records.items() if nodeid not in lost]
        code = exit_code(kinds, unrun=len(missing) - broken, harness_errors=broken)
        if self._failed_otherwise:
            return 1
        return code or (int(status) if status not in (0, 1, 2) else 0)

    def _results(self, code: int, missing: list[dict[str, Any]]) -> dict[str, Any]:
        """The content of verdict.json."""
        lost = {entry["nodeid"] for entry in missing}
        order = {nodeid: place for place, nodeid in enumerate(self._planned)}
        notes = dict.fromkeys(note for record in self._records.values() for note in record.get("notes", ()))
        records = sorted(
            (_without_notes(record) for nodeid, record in self._records.items() if nodeid not in lost),
            key=lambda record: order.get(record["nodeid"], len(order)),
        )
        by_hand = code == pytest.ExitCode.INTERRUPTED
        selection = asdict(replace(self.options.selection, changed=()))
        changed = {name: plain(value) for name, value in self.options.selection.changed}
        base = self.base
        return {
            "schema_version": 1,
            "tool": f"resurgence-harness {resurgence_harness.__version__}",
            "started": _moment(self._started),
            "finished": _moment(datetime.now(UTC)),
            "status": "interrupted" if by_hand else "incomplete" if missing else "complete",
            "exit_code": code,
            "base": {"name": base.name if base else self.options.base, "digest": base.digest if base else ""},
            "selection": {**selection, "changed": changed, "prompts": list(self.notes), "notes": list(notes)},
            "environment": self._environment(),
            "family": self._family(records),
            **self._gate(),
            "cells": records,
            "missing": missing,
        }

    def _family(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """What all cells together say, over everything that the profile declares for the tasks of this run."""
        from resurgence_harness.reporting.together import together
        from resurgence_harness.selection import Selection, cells

        tasks = self.options.tasks
        declared = [f"{entry['task']}/{entry['id']}" for entry in self._planned.values()]
        profile = Selection(profile=self.options.selection.profile)
        for name in dict.fromkeys(entry["task"] for entry in self._planned.values() if not entry.get("gate")):
            declared += [f"{name}/{cell.id}" for cell in (cells(tasks[name], profile) if name in tasks else ())]
        return together(records, list(dict.fromkeys(declared)))

    def _gate(self) -> dict[str, Any]:
        """The object `gate` of verdict.json, where the run was one."""
        if self.gating is None or not any(entry.get("gate") for entry in self._planned.values()):
            return {}
        from resurgence_harness.gate import running

        return {"gate": running.about(self.gating.policy, self.gating.models)}

    def _environment(self) -> dict[str, str]:
        from resurgence_harness.reporting.surroundings import surroundings

        found = {"python": platform.python_version(), "platform": platform.platform(), "device": self.device}
        workers = self._config.getoption("numprocesses", None)
        found["workers"] = str(workers or 0)
        return {**found, **libraries(), **surroundings(self._config.invocation_params.dir)}

    def _write_allure(self, run: dict[str, Any]) -> None:
        results = self._config.getoption("allure_report_dir", None)
        if results:
            from resurgence_harness.reporting import allure

            severities = {name: task.severity for name, task in self.options.tasks.items()}
            allure.write_run(Path(results), run, severities=severities)

    def _shown(self, path: Path) -> str:
        try:
            return os.path.relpath(path, self._config.invocation_params.dir)
        except ValueError:
            return str(path)


def write_planned(folder: Path, worker: str, planned: list[dict[str, Any]]) -> None:
    """A worker tells which cells it has collected."""
    draft = folder / f"planned-{worker}.draft"
    draft.write_text(json.dumps(planned), encoding="utf-8")
    draft.replace(folder / f"planned-{worker}.json")


def read_planned(folder: Path, worker: str) -> list[dict[str, Any]]:
    """What a worker has collected."""
    try:
        found = json.loads((folder / f"planned-{worker}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return list(found)


def write_mistake(folder: Path, mistake: str) -> None:
    """A worker tells what is wrong with markers or options."""
    draft = folder / f"mistake-{os.getpid()}.draft"
    draft.write_text(mistake, encoding="utf-8")
    draft.replace(folder / "mistake.txt")


def read_mistake(folder: Path) -> str | None:
    """What a worker found wrong."""
    path = folder / "mistake.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _without_notes(record: dict[str, Any]) -> dict[str, Any]:
    """A cell's object of verdict.json; what was known before it was drawn stands once, with the selection."""
    return {name: value for name, value in record.items() if name != "notes"}


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
