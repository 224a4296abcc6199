"""The evaluation loop: sample images, judge them, decide, and sample more until the verdict is clear.

    plan ──▶ first look ──▶ decide ──wants more──▶ one more block of those images from each model ──▶ decide ──▶ …

Suites, the release gate, the paper's experiments, planted regressions, `resurgence build` and the tests that no broken
model passes all call `examine`. This module decides when to stop, what to do while another process builds an artifact,
how intermediate checkpoints and stages are evaluated, and what a plan reads back from the store (`Recalled`); the
callers choose the plan, the rule, the bench of each model and a budget.

Sampling of a KNOWN cell continues while the policy alone is undecided, because only then can the verdict report that
the acceptance is no longer needed ("tighten").
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.finetuning.contract import FineTuning
from resurgence_harness.inquiry import Asking, Inquiry, Planned, Question
from resurgence_harness.selection import STAGE_IMAGES, Arm
from resurgence_harness.specs import Base, Block, Prompt, Recipe
from resurgence_harness.statistics import (
    Acceptance,
    AlongSteps,
    CellEvidence,
    Differs,
    DrawnDifferently,
    Evidence,
    ImageGroup,
    JudgeAccuracy,
    Losses,
    Policy,
    StageEvidence,
    Verdict,
    VerdictKind,
    along_steps,
    decide,
    with_steps,
)

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench
    from resurgence_harness.judging import Judge
    from resurgence_harness.planning import JudgeSpec, Wanted


class WrittenPrompts(NamedTuple):
    """Counts of the free-text prompts, such as a task's captions or a policy's own."""

    written: int
    """Number of free-text prompts."""
    cut: int
    """How many of them are truncated, being longer than the text encoder's limit."""
    room: int
    """The text encoder's limit in tokens."""


def check_prompts(plans: Iterable[Asking], base: Base, *, also: Iterable[Prompt] = ()) -> WrittenPrompts:
    """Check the prompts of the plans, and `also` others such as those of training images.

    UserError for a prompt that the base's tokenizer cannot encode, and for a filled template that exceeds the text
    encoder's limit; only free text may be truncated.
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
    """The criterion of one cell: the policy, and the acceptance beyond it, if any."""

    policy: Policy
    acceptance: Acceptance | None = None
    settings: str = ""
    """Digest of the steps' settings, to which an acceptance may be bound."""

    def decide(self, evidence: CellEvidence) -> Verdict:
        """The verdict on the evidence so far."""
        return decide(evidence, self.policy, self.acceptance, settings=self.settings)

    def along(
        self, evidence: CellEvidence, by_step: Mapping[int, Sequence[Evidence]], *, claims: int
    ) -> AlongSteps | None:
        """The steps of the fine-tuning against the limit; None if none were requested."""
        if not by_step:
            return None
        return along_steps(evidence, by_step, self.policy, self.acceptance, claims=claims, settings=self.settings)

    def wants(self, evidence: CellEvidence, verdict: Verdict) -> frozenset[ImageGroup]:
        """The image groups of which more samples could change the verdict, or show that KNOWN needs no acceptance."""
        if verdict.kind is not VerdictKind.KNOWN:
            return verdict.wants
        bare = decide(evidence, self.policy)
        return bare.wants if bare.kind is VerdictKind.UNDECIDED else verdict.wants


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop although the verdict is still undecided."""

    images: int | None = None
    """Over all models of a cell."""
    minutes: float | None = None

    def spent(self, *, images: int, minutes: float) -> str:
        """A clause naming the exhausted limit; empty while budget is left."""
        if self.images is not None and images >= self.images:
            return f"the budget of {self.images:,} images is spent"
        if self.minutes is not None and minutes >= self.minutes:
            return f"the budget of {self.minutes:g} minutes is spent"
        return ""


Effect = Callable[[Inquiry[Any]], Losses | Differs | None]
"""Evidence that the fine-tuning changed the model; None if it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """The bench that samples from each model, and the judges, the deciding one first."""

    bench_of: Callable[[Recipe], Bench]
    judges: Sequence[Judge]
    effect: Effect
    on_block: Callable[[Question], None] = field(default=lambda question: None)
    """Called before each block is sampled or loaded."""
    prepare: Callable[[Inquiry[Any]], None] = field(default=lambda inquiry: None)
    """Called before the open blocks of a look are sampled or loaded: workers may have put them into the store when it
    returns. What is not in the store then is sampled here."""
    without_canaries: Collection[str] = frozenset()
    """Names of the judges that are known to have no canaries, whose result is therefore never stored."""
    on_look: Callable[[Inquiry[Any], Verdict, frozenset[ImageGroup]], None] = field(
        default=lambda inquiry, verdict, wants: None
    )
    """Called after each look, with the groups of which more images are wanted, for the view of the run."""

    def evidence(self, inquiry: Inquiry[Planned], tuned: Recipe) -> CellEvidence:
        """The evidence so far, with the judges' canaries and error rates and the fine-tuning's effect."""
        bench = self.bench_of(tuned)
        return inquiry.evidence(
            effect=self.effect(inquiry),
            canaries=[bench.canaries(judge) for judge in self.judges],
            accuracies=[_accuracy(judge) for judge in self.judges],
        )

    def draw(self, inquiry: Inquiry[Planned]) -> None:
        """Sample and judge every open block; blocks that another process is building come last."""
        self.prepare(inquiry)
        waiting = inquiry.open
        while waiting:
            question = next((one for one in waiting if not self._busy(inquiry, one)), waiting[0])
            waiting.remove(question)
            self.on_block(question)
            arm, block = inquiry.plan.arms[question.arm], inquiry.block(question)
            inquiry.answer(question, [self._judged(arm, block, judge) for judge in self.judges])

    def draw_one_way(self, plan: Asking) -> None:
        """Redraw float16 images that were computed otherwise than here, as soon as they are requested again."""
        for arm in plan.arms.values():
            for recipe in arm.recipes:
                self.bench_of(recipe).draw_one_way()

    def read(self, inquiry: Inquiry[Planned], tuned: Recipe) -> bool:
        """Load the open blocks from the store; False if any of them or the controls is missing. Builds nothing."""
        for question in inquiry.open:
            arm, block = inquiry.plan.arms[question.arm], inquiry.block(question)
            answers = []
            for judge in self.judges:
                known = [self.bench_of(recipe).known(recipe, block, judge) for recipe in arm.recipes]
                found = [one for one in known if one is not None]
                if len(found) < len(known):
                    return False
                answers.append(_by_concept(arm, block, found))
            inquiry.answer(question, answers)
        counted = [judge for judge in self.judges if judge.name not in self.without_canaries]
        return self.bench_of(tuned).has_controls(tuned, counted)

    def _judged(self, arm: Arm, block: Block, judge: Judge) -> Evidence:
        made = [self.bench_of(recipe).evidence(recipe, block, judge) for recipe in arm.recipes]
        return _by_concept(arm, block, made)

    def _busy(self, inquiry: Inquiry[Planned], question: Question) -> bool:
        recipes, block = inquiry.plan.arms[question.arm].recipes, inquiry.block(question)
        return any(self.bench_of(recipe).busy(recipe, block) for recipe in recipes)


def _by_concept(arm: Arm, block: Block, made: Sequence[Evidence]) -> Evidence:
    """The evidence on a block, from the evidence on each of the arm's models: of every row, that of its concept's."""
    if not arm.by_concept:
        return made[0]
    of = arm.by_concept_of(made)
    judgments = [of[prompt.concept].judgments[place] for place, (prompt, _) in enumerate(block.rows())]
    return Evidence(
        judgments=tuple(judgments),
        planned=len(block),
        recipe=" and ".join(recipe.label for recipe in arm.recipes),
        judge=made[0].judge,
        images=tuple(digest for one in made for digest in one.images),
        drawn_with=frozenset[str]().union(*(one.drawn_with for one in made)),
    )


@dataclass(frozen=True, kw_only=True)
class Examined(Generic[Planned]):
    """The result of evaluating one cell."""

    rule: Rule
    inquiry: Inquiry[Planned]
    """Every block that was sampled."""
    evidence: CellEvidence
    verdict: Verdict
    by_step: Mapping[int, Evidence]
    """The deciding judge's evidence at intermediate checkpoints, by fine-tuning step in rising order, the last step
    included; empty if none were requested. Its bounds are anytime-valid like those of the final checkpoint."""
    by_stage: tuple[StageEvidence, ...]
    """Of a life: the deciding judge's evidence after each stage, the last included; else empty. It does not affect the
    verdict."""
    along: AlongSteps | None
    """The same against the limit; a limit that is passed before the last step makes the verdict VIOLATED."""
    seconds: float


def examine(
    plan: Planned,
    rule: Rule,
    laboratory: Laboratory,
    *,
    budget: Budget = Budget(),
) -> Examined[Planned]:
    """Sample, judge and decide one cell until its verdict is clear, its grids are used up, or the budget is spent.

    Models whose stored float16 images were computed in different ways are drawn again in the way of this process.
    DrawnDifferently if they then still differ: by device or libraries.
    """
    try:
        return _examine(plan, rule, laboratory, budget)
    except DrawnDifferently:
        laboratory.draw_one_way(plan)
        return _examine(plan, rule, laboratory, budget)


def _examine(plan: Planned, rule: Rule, laboratory: Laboratory, budget: Budget) -> Examined[Planned]:
    began, inquiry = time.monotonic(), Inquiry(plan)
    tuned = plan.arms["after"].recipe
    while True:
        laboratory.draw(inquiry)
        evidence = laboratory.evidence(inquiry, tuned)
        verdict = rule.decide(evidence)
        wants = rule.wants(evidence, verdict)
        laboratory.on_look(inquiry, verdict, wants)
        over = budget.spent(images=inquiry.images, minutes=(time.monotonic() - began) / 60)
        if wants and over and verdict.kind is VerdictKind.UNDECIDED:
            verdict = replace(verdict, reason=f"{verdict.reason.removesuffix('.')}; {over}.")
        if over or not inquiry.widen(wants, templates=verdict.open_templates):
            break
    steps = _by_step(inquiry, laboratory, evidence)
    along = rule.along(evidence, steps, claims=plan.claims)
    by_stage = _by_stage(inquiry, laboratory, evidence)
    return Examined(
        rule=rule,
        inquiry=inquiry,
        evidence=evidence,
        verdict=with_steps(verdict, along),
        by_step={step: judged[0] for step, judged in steps.items()},
        by_stage=by_stage,
        along=along,
        seconds=round(time.monotonic() - began, 3),
    )


class Recalled(Generic[Planned]):
    """The state of a cell from stored evidence alone: for a plan of what is still to be built."""

    def __init__(self, plan: Planned, rule: Rule, laboratory: Laboratory) -> None:
        """Load look after look until the verdict is clear or something is missing. Builds nothing."""
        self.inquiry, self.clear = Inquiry(plan), False
        self.drawn_differently = False
        """Whether stored images cannot be paired; `examine` draws some of them again."""
        self._rule, self._laboratory = rule, laboratory
        self.advance()

    def advance(self) -> None:
        """Load what was stored since, again until the verdict is clear or something is missing."""
        tuned = self.inquiry.plan.arms["after"].recipe
        while not self.clear and not self.drawn_differently and self._laboratory.read(self.inquiry, tuned):
            try:
                evidence = self._laboratory.evidence(self.inquiry, tuned)
                verdict = self._rule.decide(evidence)
            except DrawnDifferently:
                self.drawn_differently = True
                break
            wants = self._rule.wants(evidence, verdict)
            self.clear = not self.inquiry.widen(wants, templates=verdict.open_templates)

    def wanted(self, judges: Sequence[JudgeSpec], *, beyond: bool = False) -> list[Wanted]:
        """The evidence of all blocks requested so far; `beyond`: and of those that a cell usually needs."""
        inquiry = self.inquiry
        questions = list(inquiry.expected(clear=self.clear or not beyond))
        return list(wanted(inquiry.plan, inquiry, questions, judges))


def _by_step(
    inquiry: Inquiry[Planned], laboratory: Laboratory, evidence: CellEvidence
) -> dict[int, tuple[Evidence, ...]]:
    """Every judge's evidence of each checkpoint, the last included, on the same (prompt, seed) pairs as the final one.

    The deciding judge's is first, then the second judge's if there is one.
    """
    checkpoints = inquiry.plan.checkpoints
    judges, after = laboratory.judges[:2], inquiry.plan.arms["after"]
    found: dict[int, tuple[Evidence, ...]] = {}
    for step, recipe in checkpoints.items():
        parts: list[list[Evidence]] = [[] for _ in judges]
        for question in inquiry.asked("after"):
            laboratory.on_block(question)
            bench = laboratory.bench_of(recipe)
            for judge, own in zip(judges, parts, strict=True):
                own.append(bench.evidence(recipe, inquiry.block(question), judge))
        found[step] = tuple(Evidence.joined(own, after.design) for own in parts)
    if found:
        last = after.recipe.steps[-1]
        assert isinstance(last, FineTuning)
        others = [evidence.second.after] if evidence.second is not None else []
        found[last.steps] = (evidence.after, *others)
    return dict(sorted(found.items()))


def _by_stage(inquiry: Inquiry[Planned], laboratory: Laboratory, evidence: CellEvidence) -> tuple[StageEvidence, ...]:
    """Evidence of each stage's model on the first (prompt, seed) pairs of the final model, and all of these at last."""
    plan, judge = inquiry.plan, laboratory.judges[0]
    if not plan.stages:
        return ()
    retained = evidence.retained_after
    assert retained is not None
    rows = Counter(prompt.concept for prompt, _ in plan.arms["after"].grid.rows)
    found = []
    for stage in plan.stages[:-1]:
        seen = []
        for name in STAGE_IMAGES:
            parts = []
            for question in stage_questions(plan, inquiry.asked(name)):
                laboratory.on_block(question)
                parts.append(laboratory.bench_of(stage.recipe).evidence(stage.recipe, inquiry.block(question), judge))
            seen.append(Evidence.joined(parts, plan.arms[name].design))
        found.append(StageEvidence(erases=stage.erases, drawn=seen[0], retained=seen[1], rows=rows))
    last = StageEvidence(erases=plan.stages[-1].erases, drawn=evidence.after, retained=retained, rows=rows)
    return (*found, last)


def wanted(
    plan: Asking, inquiry: Inquiry[Any], questions: Sequence[Question], judges: Sequence[JudgeSpec]
) -> Iterator[Wanted]:
    """The evidence that these blocks of a cell need: of its arms, of intermediate checkpoints and of a life's stages.

    `judges` in the order of the plan's.
    """
    from resurgence_harness.planning import Wanted

    for question in questions:
        for recipe in plan.arms[question.arm].recipes:
            for judge in judges:
                yield Wanted(recipe, inquiry.block(question), judge)
    for recipe in plan.checkpoints.values():
        for question in questions:
            if question.arm == "after":
                for judge in judges[:2]:
                    yield Wanted(recipe, inquiry.block(question), judge)
    for stage in plan.stages[:-1]:
        for question in stage_questions(plan, questions):
            yield Wanted(stage.recipe, inquiry.block(question), judges[0])


def stage_questions(plan: Asking, questions: Iterable[Question]) -> list[Question]:
    """Those of the blocks with which every stage of a life before the last is measured; none for other plans."""
    most = {arm: plan.arms[arm].grid.blocks_for(images) if plan.stages else 0 for arm, images in STAGE_IMAGES.items()}
    return [question for question in questions if question.number < most.get(question.arm, 0)]


def _accuracy(judge: Judge) -> JudgeAccuracy:
    from resurgence_harness.judging import accuracy_of

    return accuracy_of(judge)
