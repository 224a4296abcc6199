"""Which cells owe a verdict, which have one, and why the others have none.

A suite's cells are planned by collection: what was found and not deselected. A gate's groups are planned by its policy
alone, so that no option, plugin, hook or dead worker makes one vanish. A cell may have several tests (pytest-repeat,
`--dist each`): it is one cell all the same, its worst verdict stands, and each of its tests owes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from resurgence_harness.pytest_plugin.properties import CELL_PROPERTY, HARNESS_PROPERTY, MISTAKE_PROPERTY

WORST = ("VIOLATED", "UNDECIDED", "KNOWN", "HOLDS")
"""Verdicts, the one that stands for several first."""
UNCOLLECTED = "no test of it was collected"


@dataclass(kw_only=True)
class Planned:
    """A cell that owes a verdict."""

    entry: Mapping[str, Any]
    """id, task, nodeid, method, concepts, folder and, of a gate's group, gate."""
    nodeids: dict[str, None] = field(default_factory=dict)
    """Its tests; none where nothing was collected for it."""
    gone: str = ""
    """Why it has no test that will run."""


class Ledger:
    """What the controller hears of cells: plans from collection and policy, records from reports."""

    def __init__(self) -> None:
        """Nothing is planned, nothing heard."""
        self._planned: dict[str, Planned] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._why: dict[str, tuple[str, str]] = {}
        self._failed: dict[str, None] = {}
        self.found = 0
        """How many cells of suites collection found, before anything was deselected."""
        self.mistakes: list[str] = []
        """What the person who started the run has to change, each in a sentence."""
        self.lost_worker = False
        """Whether a process that ran tests died."""

    def plan(self, entries: Iterable[Mapping[str, Any]], *, found: int = 0) -> None:
        """These cells owe a verdict; entries with one key are one cell."""
        self.found = max(self.found, found)
        for entry in entries:
            cell = self._planned.setdefault(entry["key"], Planned(entry=entry))
            if entry.get("gone"):
                cell.gone = str(entry["gone"])
            elif entry["folder"]:
                cell.entry, cell.gone = (cell.entry if cell.nodeids else entry), ""
                cell.nodeids[entry["nodeid"]] = None

    @property
    def planned(self) -> list[Mapping[str, Any]]:
        """Every cell that owes a verdict."""
        return [cell.entry for cell in self._planned.values()]

    @property
    def finished(self) -> set[str]:
        """task/cell of those with a verdict."""
        return {f"{record['task']}/{record['id']}" for record in list(self._records.values())}

    @property
    def violated(self) -> bool:
        """Whether a cell is VIOLATED, whatever else happened."""
        return any(record["verdict"] == "VIOLATED" for record in self._records.values())

    def reported(self, report: pytest.TestReport) -> None:
        """A test report, from this process or a worker."""
        nodeid = report.nodeid
        for name, value in getattr(report, "user_properties", ()):
            if name == CELL_PROPERTY:
                self._recorded(nodeid, json.loads(str(value)))
            elif name == HARNESS_PROPERTY:
                self._why.setdefault(nodeid, ("harness error", str(value)))
            elif name == MISTAKE_PROPERTY and value not in self.mistakes:
                self.mistakes.append(str(value))
        if not report.failed:
            return
        if report.when not in ("setup", "call", "teardown"):  # xdist and pytest-forked tell of a dead process so
            self.lost_worker = True
            self._why.setdefault(nodeid, ("worker died", str(report.longrepr)))
        elif nodeid not in self._why:
            record = self._records.get(nodeid)
            if record is None:
                self._why[nodeid] = ("unrun", "its test failed before it had a verdict")
            if record is None or record["verdict"] in ("HOLDS", "KNOWN"):
                self._failed[nodeid] = None

    def _recorded(self, nodeid: str, record: dict[str, Any]) -> None:
        known = self._records.get(nodeid)
        if known is None or _rank(record) < _rank(known):
            self._records[nodeid] = record

    def records(self) -> list[dict[str, Any]]:
        """One record for every cell that has a verdict, in the order of the plan; then those that nobody planned."""
        lacking, told, seen = set(self._lacking()), [], set[str]()
        for key, cell in self._planned.items():
            seen |= set(cell.nodeids)
            mine = [self._records[nodeid] for nodeid in cell.nodeids if nodeid in self._records]
            if mine and key not in lacking:
                told.append(min(mine, key=_rank))
        return told + [record for nodeid, record in self._records.items() if nodeid not in seen]

    def missing(self, otherwise: str) -> list[dict[str, Any]]:
        """Planned cells without a verdict, each with what is known of why; `otherwise` where nothing is."""
        return [
            {
                "id": cell.entry["id"],
                "nodeid": nodeid,
                "task": cell.entry["task"],
                "kind": kind,
                "why": why,
            }
            for key, (nodeid, kind, why) in self._lacking(otherwise).items()
            for cell in [self._planned[key]]
        ]

    def failures(self) -> list[str]:
        """Tests that failed and are no cells, or failed though their cell holds."""
        cells = {nodeid for key in self._lacking() for nodeid in self._planned[key].nodeids}
        return [nodeid for nodeid in self._failed if nodeid not in cells]

    def _lacking(self, otherwise: str = "") -> dict[str, tuple[str, str, str]]:
        """Key of every planned cell without a verdict: the test that owes it, the kind of reason, and the reason."""
        found: dict[str, tuple[str, str, str]] = {}
        for key, cell in self._planned.items():
            if any(_rank(self._records[nodeid]) == 0 for nodeid in cell.nodeids if nodeid in self._records):
                continue  # what broke afterwards takes no regression back
            if not cell.nodeids:
                found[key] = (cell.entry["nodeid"], "unrun", cell.gone or UNCOLLECTED)
            for nodeid in cell.nodeids:
                kind, why = self._why.get(nodeid, ("unrun", otherwise))
                if nodeid not in self._records or kind == "harness error":
                    found.setdefault(key, (nodeid, kind, why))
        return found


def _rank(record: Mapping[str, Any]) -> int:
    return WORST.index(record["verdict"])
