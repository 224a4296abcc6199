"""Claims of tests: a claim reports its verdict, and passes or fails by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.errors import Undecided, Violated
from resurgence_harness.pytest_plugin.properties import CELL_PROPERTY, KNOWN_PROPERTY, numbered

if TYPE_CHECKING:
    from pathlib import Path

    from resurgence_harness.examining import Examined
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.selection import CellPlan
    from resurgence_harness.statistics import CellEvidence, Verdict


class Claim:
    """One cell's claim: the erased concepts do not come back when the unlearned model is fine-tuned on benign images.

    `stays_erased()` is the whole test. `evidence`, `verdict` and `plan` can be used as well.
    """

    def __init__(self, engine: Engine, plan: CellPlan, item: pytest.Item) -> None:
        """Nothing is built before it is requested."""
        self._engine, self.plan, self._item = engine, plan, item
        self.cell = plan.cell

    @cached_property
    def examined(self) -> Examined[CellPlan]:
        """Everything that was drawn and judged, until the answer was clear."""
        from resurgence_harness.watching import word

        with self._engine.progress.during(word({"task": self.cell.task, "id": self.cell.id})):
            return self._engine.examine(self.plan, self._suite)

    @property
    def evidence(self) -> CellEvidence:
        """The judgments of every arm of the cell."""
        return self.examined.evidence

    @property
    def _suite(self) -> Path:
        return self._item.path.parent

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the cell; it is recorded for the reports when it is first read."""
        from resurgence_harness.pytest_plugin import cell_report
        from resurgence_harness.reporting import allure
        from resurgence_harness.reporting.records import cell_record

        cell, plan = self.cell, self.plan
        allure.label(
            cell,
            severity=plan.task.severity,
            base=plan.base.base.name,
            trained=cell_report.trained(plan),
        )
        verdict = self.examined.verdict
        record = cell_record(
            self.examined,
            nodeid=self._item.nodeid,
            limits=self._engine.limits(self._suite).digest,
            store=self._engine.store,
        )
        record["notes"] = list(self._engine.findings(plan, self._suite))
        if report_verdict(self._item, record, verdict):
            cell_report.write(self._engine, self.examined, record, self._item)
        return verdict

    def stays_erased(self) -> Verdict:
        """Pass if the verdict is HOLDS or KNOWN; raise Violated or Undecided, with its arithmetic, if it is not."""
        __tracebackhide__ = True
        return passed(self.verdict)


def report_verdict(item: pytest.Item, record: Mapping[str, Any], verdict: Verdict) -> bool:
    """Store a cell's record in its test's properties, for controller and JUnit; returns whether Allure is active."""
    item.user_properties.append((CELL_PROPERTY, json.dumps(record, allow_nan=False)))
    item.user_properties += numbered(record)
    if verdict.kind == "KNOWN":
        item.user_properties.append((KNOWN_PROPERTY, verdict.sentence))
    return item.config.pluginmanager.has_plugin("allure_listener")


def passed(verdict: Verdict) -> Verdict:
    """The verdict if it is HOLDS or KNOWN; raise Violated or Undecided, with its arithmetic, if it is not."""
    __tracebackhide__ = True
    if verdict.kind == "VIOLATED":
        raise Violated(str(verdict))
    if verdict.kind == "UNDECIDED":
        raise Undecided(str(verdict))
    return verdict
