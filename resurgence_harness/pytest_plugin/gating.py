"""The release gate under pytest: the policy's groups as cells, spread over the workers.

The controller compares the weights once, before any worker starts, and sends its findings to the workers.
"""

from __future__ import annotations

import shlex
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.diffusion.devices import resolved_device
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.pytest_plugin.claims import passed, report_verdict

if TYPE_CHECKING:
    from resurgence_harness.gate.asking import Gate, GroupResult
    from resurgence_harness.gate.inputs import GateInputs
    from resurgence_harness.gate.models import Models
    from resurgence_harness.gate.release_policy import ConceptGroup, ReleasePolicy
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.statistics import Verdict
    from resurgence_harness.storing import Seal
    from resurgence_harness.watching import Recorder


class Gating:
    """The gate of one pytest process."""

    def __init__(self, options: Options, *, found: dict[str, Any] | None = None, progress: Recorder) -> None:
        """`found`: the controller's findings about the models; without them the models are examined here."""
        self._options, self._found, self._progress = options, found, progress

    @cached_property
    def policy(self) -> ReleasePolicy:
        """The policy of --resurgence-policy."""
        from resurgence_harness.gate.inputs import read_policy

        return read_policy(self._inputs)

    @cached_property
    def _inputs(self) -> GateInputs:
        from resurgence_harness.gate.inputs import read_inputs

        if self._options.policy is None:
            raise UserError(
                sentence(
                    "The release gate has no policy.",
                    do="Give --resurgence-policy policy.yaml; `resurgence policy init` writes one.",
                )
            )
        return read_inputs(self._options.policy)

    @cached_property
    def models(self) -> Models:
        """The policy's models."""
        from resurgence_harness.gate.inputs import read_models
        from resurgence_harness.gate.models import Models

        if self._found is not None:
            return Models.read(self._found)
        return read_models(self._inputs, store=self._options.store, run=self._options.run)

    @cached_property
    def gate(self) -> Gate:
        """The gate with its benches."""
        from resurgence_harness.gate.asking import Gate
        from resurgence_harness.storing import Store

        device = resolved_device(self._options.device)
        store = Store(self._options.store, run=self._options.run)
        return Gate(self.policy, self.models, store=store, device=device, progress=self._progress)

    def check(self) -> None:
        """Find mistakes before a worker starts: UserError for what cannot be judged."""
        from resurgence_harness.gate.running import check_summary, make

        check_summary(self._options.out)
        _ = self.gate
        make(self._options.out, option="--resurgence-out")

    def sent(self) -> dict[str, Any]:
        """The findings about the models, for a worker."""
        return self.models.plain()

    def answer(self, word: str, nodeid: str) -> GroupResult:
        """Sample, judge and decide one group."""
        return self.gate.ask(self.group(word), nodeid=nodeid)

    def keep(self, word: str, answer: GroupResult) -> None:
        """Write the group's contact sheet."""
        from resurgence_harness.gate.running import sheet_name

        self._options.out.mkdir(parents=True, exist_ok=True)
        (self._options.out / sheet_name(self.group(word))).write_bytes(answer.sheet)

    def group(self, word: str) -> ConceptGroup:
        """A group by its name."""
        return next(group for group in self.policy.groups if group.word == word)

    @property
    def ignored(self) -> dict[str, Seal]:
        """Store entries that were treated as absent so far."""
        return self.gate.store.ignored if "gate" in self.__dict__ else {}

    def release(self) -> None:
        """Free the loaded models."""
        if "gate" in self.__dict__:
            self.gate.release()


class GateClaim:
    """One group's claim: the candidate does not draw these erased concepts and still draws retained ones."""

    def __init__(self, gating: Gating, word: str, item: pytest.Item) -> None:
        """Nothing is drawn before `verdict` is read."""
        self._gating, self._word, self._item = gating, word, item

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the group; it is recorded for the reports when it is first read."""
        from resurgence_harness.reporting import allure

        policy, group = self._gating.policy, self._gating.group(self._word)
        cell, base = policy.cell(group), self._gating.models.base
        allure.label(
            cell,
            severity=policy.task.severity,
            base=base.base.name if base is not None else "none given",
            trained={},
        )
        answer = self._gating.answer(self._word, self._item.nodeid)
        wanted = report_verdict(self._item, answer.record, answer.examined.verdict)
        self._gating.keep(self._word, answer)  # after the verdict is recorded: a full disk must not lose it
        if wanted:
            self._attach(answer)
        return answer.examined.verdict

    def _attach(self, answer: GroupResult) -> None:
        """The group's page in the report."""
        from resurgence_harness.limits.quoting import quoted
        from resurgence_harness.reporting import allure, cell_page

        record, policy = answer.record, self._gating.policy
        models = record["models"]
        facts = [("candidate", self._gating.models.label), ("policy digest", policy.digest)]
        facts += [(f"{name} digest", model["digest"]) for name, model in models.items()]
        facts += [("differs from its parent", one) for one in self._gating.models.differences]
        accepted = self._gating.gate.acceptance(self._gating.group(self._word))
        details = cell_page.Details(
            sentence=answer.examined.verdict.sentence,
            arithmetic=answer.examined.verdict.arithmetic,
            facts=tuple(facts),
            reproduce=f"resurgence gate --policy {shlex.quote(policy.path)}",
            limits=policy.accepted.path if accepted is not None else policy.path,
            quoted=quoted(policy.accepted, accepted),
        )
        covered = policy.task.covered
        sheets = [("base | unlearned | candidate", answer.sheet)]
        allure.attach(record, answer.examined.evidence, details, strip=None, sheets=sheets, covered=covered)

    def stays_erased(self) -> Verdict:
        """Pass if the verdict is HOLDS or KNOWN; raise Violated or Undecided, with its arithmetic, if it is not."""
        __tracebackhide__ = True
        return passed(self.verdict)
