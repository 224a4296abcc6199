"""Which cells need a verdict, which have one, and why the others have none.

A suite's cells are planned by collection: those that were found and not deselected. A gate's groups are planned by its
policy alone, so that no option, plugin, hook or dead worker can drop one. A cell may have several tests (pytest-repeat,
`--dist each`): its worst verdict counts, and each of its tests must report one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from resurgence_harness.pytest_plugin.properties import (
    CELL_PROPERTY,
    HARNESS_PROPERTY,
    MISTAKE_PROPERTY,
    UNBUILT_PROPERTY,
)

WORST = ("VIOLATED", "UNDECIDED", "KNOWN", "HOLDS")
"""Verdicts, worst first."""
UNCOLLECTED = "no test of it was collected"


@dataclass(kw_only=True)
class Planned:
    """A cell that needs a verdict."""

    entry: Mapping[str, Any]
    """id, task, nodeid, method, concepts, folder and, of a gate's group, gate."""
    nodeids: dict[str, None] = field(default_factory=dict)
    """Its tests; empty if none was collected for it."""
    gone: str = ""
    """Why it has no test that will run."""


class Ledger:
    """The controller's record of cells: planned by collection and policy, decided in test reports."""

    def __init__(self) -> None:
        """Start empty."""
        self._planned: dict[str, Planned] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._why: dict[str, tuple[str, str]] = {}
        self._failed: dict[str, None] = {}
        self.found = 0
        """Number of suites' cells before anything was deselected."""
        self.mistakes: list[str] = []
        """User mistakes, one message each."""
        self.lost_worker = False
        """Whether a process that ran tests died."""

    def plan(self, entries: Iterable[Mapping[str, Any]], *, found: int = 0) -> None:
        """Add cells that need a verdict; entries with the same key are one cell."""
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
        """Every cell that needs a verdict."""
        return [cell.entry for cell in self._planned.values()]

    @property
    def finished(self) -> set[str]:
        """task/cell of the cells with a verdict."""
        return {f"{record['task']}/{record['id']}" for record in list(self._records.values())}

    @property
    def violated(self) -> bool:
        """Whether any cell is VIOLATED."""
        return any(record["verdict"] == "VIOLATED" for record in self._records.values())

    def reported(self, report: pytest.TestReport) -> None:
        """Process a test report of this process or of a worker."""
        nodeid = report.nodeid
        for name, value in getattr(report, "user_properties", ()):
            if name == CELL_PROPERTY:
                self._recorded(nodeid, json.loads(str(value)))
            elif name == HARNESS_PROPERTY:
                self._why.setdefault(nodeid, ("harness error", str(value)))
            elif name == UNBUILT_PROPERTY:
                self._why.setdefault(nodeid, ("unrun", str(value)))
            elif name == MISTAKE_PROPERTY and value not in self.mistakes:
                self.mistakes.append(str(value))
        if not report.failed:
            return
        if report.when not in ("setup", "call", "teardown"):  # xdist and pytest-forked report a dead process this way
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
        """One record per cell with a verdict, in the order of the plan; then records of unplanned cells."""
        missing, chosen, seen = set(self._without_verdict()), [], set[str]()
        for key, cell in self._planned.items():
            seen |= set(cell.nodeids)
            mine = [self._records[nodeid] for nodeid in cell.nodeids if nodeid in self._records]
            if mine and key not in missing:
                chosen.append(min(mine, key=_rank))
        return chosen + [record for nodeid, record in self._records.items() if nodeid not in seen]

    def missing(self, otherwise: str) -> list[dict[str, Any]]:
        """Planned cells without a verdict, each with the reason; `otherwise` if no reason is known."""
        return [
            {
                "id": cell.entry["id"],
                "nodeid": nodeid,
                "task": cell.entry["task"],
                "kind": kind,
                "why": why,
            }
            for key, (nodeid, kind, why) in self._without_verdict(otherwise).items()
            for cell in [self._planned[key]]
        ]

    def failures(self) -> list[str]:
        """Failed tests that are not cells, or whose cell holds."""
        cells = {nodeid for key in self._without_verdict() for nodeid in self._planned[key].nodeids}
        return [nodeid for nodeid in self._failed if nodeid not in cells]

    def _without_verdict(self, otherwise: str = "") -> dict[str, tuple[str, str, str]]:
        """Key of every planned cell without a verdict → its test, the kind of reason, and the reason."""
        found: dict[str, tuple[str, str, str]] = {}
        for key, cell in self._planned.items():
            if any(_rank(self._records[nodeid]) == 0 for nodeid in cell.nodeids if nodeid in self._records):
                continue  # a later error does not undo a regression
            if not cell.nodeids:
                found[key] = (cell.entry["nodeid"], "unrun", cell.gone or UNCOLLECTED)
            for nodeid in cell.nodeids:
                kind, why = self._why.get(nodeid, ("unrun", otherwise))
                if nodeid not in self._records or kind == "harness error":
                    found.setdefault(key, (nodeid, kind, why))
        return found


def _rank(record: Mapping[str, Any]) -> int:
    return WORST.index(record["verdict"])
