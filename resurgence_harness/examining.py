"""The one loop: request images, judge them, decide, and request more until the answer is clear.

    plan ──▶ first look ──▶ decide ──wants more──▶ one more block of those images from each model ──▶ decide ──▶ …

Suites, the release gate, the paper's experiments, planted regressions, `resurgence build` and the tests that no broken
model passes all call `examine`. When to stop, what to do while another process makes an artifact, the intermediate
checkpoints and what a plan can read back from the store (`recall`) are decided here; the callers choose the plan, the
rule, the bench of each model and a budget.

A cell that is KNOWN is drawn further while the policy alone is undecided: only then can it say that the acceptance is
no longer needed ("tighten").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.finetuning.contract import FineTuning
from resurgence_harness.inquiry import Asking, Inquiry, Planned, Question
from resurgence_harness.specs import Base, Prompt, Recipe
from resurgence_harness.statistics import (
    Acceptance,
    CellEvidence,
    Differs,
    Evidence,
    ImageGroup,
    JudgeAccuracy,
    Losses,
    Policy,
    Verdict,
    VerdictKind,
    decide,
)

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench
    from resurgence_harness.judging import Judge


class WrittenPrompts(NamedTuple):
    """What is known of the prompts that a person wrote out, as a task's captions or a policy's own."""

    written: int
    cut: int
    """How many of them are longer than the base reads."""
    room: int
    """Tokens that the base reads."""


def check_prompts(plans: Iterable[Asking], base: Base, *, also: Iterable[Prompt] = ()) -> WrittenPrompts:
    """UserError for a prompt that a base cannot read: any of these plans, and `also` others, as for training images.

    A prompt that was filled from a template must be read whole; one that is written out may be cut.
    """
    may_be_cut: dict[str, bool] = {}
    arms = (arm for plan in plans for arm in plan.arms.values())
    for prompt in (*also, *(prompt for arm in arms for prompt in arm.grid.probe.prompts)):
        may_be_cut[prompt.text] = prompt.written and may_be_cut.get(prompt.text, True)
    written = {text for text, may in may_be_cut.items() if may}
    cut, room = check_texts(Path(base.location), sorted(may_be_cut), may_be_cut=written)
    return WrittenPrompts(len(written), cut, room)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What would be enough for one cell: the policy, and what was accepted beyond it."""

    policy: Policy
    acceptance: Acceptance | None = None
    settings: str = ""
    """Digest of the steps' values, to which an acceptance may be bound."""

    def decide(self, evidence: CellEvidence) -> Verdict:
        """The verdict on what was seen so far."""
        return decide(evidence, self.policy, self.acceptance, settings=self.settings)

    def wants(self, evidence: CellEvidence, verdict: Verdict) -> frozenset[ImageGroup]:
        """The images of which more could change the verdict, or show that a KNOWN cell needs no acceptance."""
        if verdict.kind is not VerdictKind.KNOWN:
            return verdict.wants
        bare = decide(evidence, self.policy)
        return bare.wants if bare.kind is VerdictKind.UNDECIDED else verdict.wants


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop although the answer is not clear."""

    images: int | None = None
    """Of all models of a cell together."""
    minutes: float | None = None

    def spent(self, *, images: int, minutes: float) -> str:
        """The sentence that says what is spent; empty while something is left."""
        if self.images is not None and images >= self.images:
            return f"the budget of {self.images:,} images is spent"
        if self.minutes is not None and minutes >= self.minutes:
            return f"the budget of {self.minutes:g} minutes is spent"
        return ""


Effect = Callable[[Inquiry[Any]], Losses | Differs | None]
"""How it is known that the fine-tuning changed something; None where nothing can be said."""


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Who draws and who judges: the bench of every model, and the judges, the deciding one first."""

    bench_of: Callable[[Recipe], Bench]
    judges: Sequence[Judge]
    effect: Effect
    on_block: Callable[[Question], None] = field(default=lambda question: None)
    """Called before each block is drawn or read, for progress."""

    def evidence(self, inquiry: Inquiry[Planned], tuned: Recipe) -> CellEvidence:
        """What was seen so far, with the judges' canaries and errors and the fine-tuning's effect."""
        bench = self.bench_of(tuned)
        return inquiry.evidence(
            effect=self.effect(inquiry),
            canaries=[bench.canaries(judge) for judge in self.judges],
            accuracies=[_accuracy(judge) for judge in self.judges],
        )

    def draw(self, inquiry: Inquiry[Planned]) -> None:
        """Answer every open question; what another process is making is left for last."""
        waiting = inquiry.open
        while waiting:
            question = next((one for one in waiting if not self._busy(inquiry, one)), waiting[0])
            waiting.remove(question)
            self.on_block(question)
            recipe, block = inquiry.plan.arms[question.arm].recipe, inquiry.block(question)
            bench = self.bench_of(recipe)
            inquiry.answer(question, [bench.evidence(recipe, block, judge) for judge in self.judges])

    def read(self, inquiry: Inquiry[Planned], tuned: Recipe) -> bool:
        """Answer the open questions from the store alone; whether all was there, controls included. Makes nothing."""
        for question in inquiry.open:
            recipe, block = inquiry.plan.arms[question.arm].recipe, inquiry.block(question)
            known = [self.bench_of(recipe).known(recipe, block, judge) for judge in self.judges]
            found = [one for one in known if one is not None]
            if len(found) < len(known):
                return False
            inquiry.answer(question, found)
        return self.bench_of(tuned).has_controls(tuned, self.judges)

    def _busy(self, inquiry: Inquiry[Planned], question: Question) -> bool:
        recipe = inquiry.plan.arms[question.arm].recipe
        return self.bench_of(recipe).busy(recipe, inquiry.block(question))


@dataclass(frozen=True, kw_only=True)
class Examined(Generic[Planned]):
    """One cell, examined."""

    rule: Rule
    inquiry: Inquiry[Planned]
    """Every block that was drawn."""
    evidence: CellEvidence
    verdict: Verdict
    by_step: Mapping[int, Evidence]
    """What the deciding judge sees at intermediate checkpoints, by the fine-tuning's step, rising to its last; empty
    where none were requested. Nothing is decided on it; its bounds hold whenever one looks, as those of the end do."""
    seconds: float


def examine(
    plan: Planned,
    rule: Rule,
    laboratory: Laboratory,
    *,
    budget: Budget = Budget(),
) -> Examined[Planned]:
    """Draw, judge and decide one cell until its answer is clear, its grids are used up, or the budget is spent."""
    began, inquiry = time.monotonic(), Inquiry(plan)
    tuned = plan.arms["after"].recipe
    while True:
        laboratory.draw(inquiry)
        evidence = laboratory.evidence(inquiry, tuned)
        verdict = rule.decide(evidence)
        wants = rule.wants(evidence, verdict)
        over = budget.spent(images=inquiry.images, minutes=(time.monotonic() - began) / 60)
        if wants and over and verdict.kind is VerdictKind.UNDECIDED:
            verdict = replace(verdict, reason=f"{verdict.reason.removesuffix('.')}; {over}.")
        if over or not inquiry.widen(wants, templates=verdict.open_templates):
            break
    by_step = _by_step(inquiry, laboratory, evidence)
    seconds = round(time.monotonic() - began, 3)
    return Examined(rule=rule, inquiry=inquiry, evidence=evidence, verdict=verdict, by_step=by_step, seconds=seconds)


class Recalled(Generic[Planned]):
    """What the store alone says of a cell: for a plan of what is still to be made."""

    def __init__(self, plan: Planned, rule: Rule, laboratory: Laboratory) -> None:
        """Read look after look until the answer is clear or something is missing. Nothing is made."""
        self.inquiry, self.clear = Inquiry(plan), False
        tuned = plan.arms["after"].recipe
        while not self.clear and laboratory.read(self.inquiry, tuned):
            evidence = laboratory.evidence(self.inquiry, tuned)
            verdict = rule.decide(evidence)
            wants = rule.wants(evidence, verdict)
            self.clear = not self.inquiry.widen(wants, templates=verdict.open_templates)


def _by_step(inquiry: Inquiry[Planned], laboratory: Laboratory, evidence: CellEvidence) -> dict[int, Evidence]:
    """The final checkpoint's images, requested of each intermediate one as well."""
    checkpoints = inquiry.plan.checkpoints
    judge, after = laboratory.judges[0], inquiry.plan.arms["after"]
    found: dict[int, Evidence] = {}
    for step, recipe in checkpoints.items():
        parts = []
        for question in inquiry.asked("after"):
            laboratory.on_block(question)
            parts.append(laboratory.bench_of(recipe).evidence(recipe, inquiry.block(question), judge))
        found[step] = Evidence.joined(parts, after.design)
    if found:
        last = after.recipe.steps[-1]
        assert isinstance(last, FineTuning)
        found[last.steps] = evidence.after
    return dict(sorted(found.items()))


def _accuracy(judge: Judge) -> JudgeAccuracy:
    from resurgence_harness.judging import accuracy_of

    return accuracy_of(judge)
