"""The one loop: suites and gate say the same of the same evidence, and it stops when it should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

from resurgence_harness.bench import Bench
from resurgence_harness.errors import UserError
from resurgence_harness.examining import Budget, Laboratory, Recalled, Rule, check_prompts, examine
from resurgence_harness.gate.asking import Gate
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import PolicyFile, resolve
from resurgence_harness.inquiry import Question
from resurgence_harness.judging import judge_by_name
from resurgence_harness.planning import JudgeSpec
from resurgence_harness.presets.lives import parse_life
from resurgence_harness.selection import CellPlan, Selection, cells, plan_cell, resolve_base
from resurgence_harness.specs import Cell, Grid, Probe, Prompt, Recipe, SampleRequest
from resurgence_harness.statistics import (
    Acceptance,
    Evidence,
    Judgment,
    Losses,
    Outcome,
    Policy,
    UnlearningOutcome,
    VerdictKind,
    accounts,
)
from resurgence_harness.storing import Store
from resurgence_harness.tasks import CELEBRITY, TASKS

pytestmark = pytest.mark.slow

FELL = Losses(before=(0.3, 0.31, 0.29, 0.3), after=(0.2, 0.22, 0.19, 0.21))
ACCEPTED = Acceptance(
    task="celebrity",
    method="uce",
    count=1,
    finetuning="lora",
    level=0.62,
    rise=0.60,
    reason="a test",
    owner="test",
    expires=date(2999, 1, 1),
)


class Drawn:
    """Stands for a bench whose models' images are known: the base draws every concept, `shows` says the rest."""

    def __init__(self, shows: Callable[[Recipe, str], bool], *, unlearned: tuple[str, ...]) -> None:
        self.shows, self.unlearned = shows, unlearned
        self.made: list[tuple[str, str]] = []
        self.stored: set[tuple[Recipe, SampleRequest]] = set()
        self.in_the_making: set[Recipe] = set()

    def evidence(self, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> Evidence:
        """Judgments of these images."""
        self.made.append((recipe.label, judge.name))
        rows = tuple(
            Judgment(
                concept=prompt.concept,
                prompt=prompt.text,
                seed=seed,
                outcome=Outcome.HIT if self._hit(recipe, prompt.concept) else Outcome.CLEAR,
                score=0.9,
                answer=prompt.concept if self._hit(recipe, prompt.concept) else "somebody else",
            )
            for prompt, seed in probe.rows()
        )
        return Evidence(
            judgments=rows, planned=len(rows), recipe=recipe.label, judge=judge.name, images=(recipe.label,)
        )

    def _hit(self, recipe: Recipe, concept: str) -> bool:
        if concept not in self.unlearned:
            return True
        return (not recipe.steps and recipe.base.name == "micro") or self.shows(recipe, concept)

    def known(self, recipe: Recipe, probe: SampleRequest, judge: JudgeSpec) -> Evidence | None:
        """Judgments that are stored already."""
        return self.evidence(recipe, probe, judge) if (recipe, probe) in self.stored else None

    def has_controls(self, recipe: Recipe, judges: object) -> bool:
        """Always."""
        return True

    def busy(self, recipe: Recipe, probe: SampleRequest) -> bool:
        """Whether it is in the making elsewhere."""
        return recipe in self.in_the_making

    def canaries(self, judge: JudgeSpec) -> tuple[int, int]:
        """All right."""
        return 10, 10


def suite_plan(steps: tuple[int, ...] | None = None) -> CellPlan:
    """A real cell: UCE on one name."""
    cell = Cell(task="celebrity", method="uce", count=1, finetuning="lora")
    return plan_cell(cell, resolve_base("micro"), task=CELEBRITY, selection=Selection(steps=steps))


def laboratory(drawn: Drawn, plan: CellPlan, **more: Any) -> Laboratory:
    """Known images, real judges."""
    judges = [judge_by_name(name) for name in plan.judges]
    return Laboratory(bench_of=lambda recipe: cast(Bench, drawn), judges=judges, effect=lambda inquiry: FELL, **more)


NOTHING = Drawn(lambda recipe, concept: False, unlearned=tuple(one.name for one in CELEBRITY.erase(1)))


def test_a_suite_and_the_gate_say_the_same_of_the_same_evidence(tmp_path: Path) -> None:
    """Spotless, with a generous acceptance: both draw on until they can say that it is no longer needed."""
    plan = suite_plan()
    suite = examine(plan, Rule(policy=Policy(), acceptance=ACCEPTED), laboratory(NOTHING, plan))

    base = Recipe(resolve_base("micro"))
    unlearned, candidate = (
        Recipe(replace(base.base, digest=letter * 64, name=name))
        for letter, name in (("b", "unlearned"), ("c", "candidate"))
    )
    models = Models(
        candidate=candidate,
        label="candidate",
        unlearned=unlearned,
        base=base,
        files={},
        differs=True,
        notes=(),
        audit=None,
    )
    file = PolicyFile.model_validate({"concepts": {"erased": list(NOTHING.unlearned)}})
    gate = Gate(resolve(file, tmp_path, tasks=TASKS), models, store=Store(str(tmp_path / "store")), device="cpu")
    (group,) = gate.policy.groups
    drawn = Drawn(lambda recipe, concept: False, unlearned=NOTHING.unlearned)
    rule = Rule(policy=group.policy, acceptance=ACCEPTED)
    asked = examine(
        gate.plans[group.word],
        rule,
        Laboratory(bench_of=lambda recipe: cast(Bench, drawn), judges=gate.judges, effect=lambda inquiry: FELL),
    )

    for found in (suite, asked):
        assert found.verdict.kind is VerdictKind.HOLDS, found.verdict
        assert found.verdict.tighten
    assert suite.inquiry.looks == asked.inquiry.looks
    assert len(suite.evidence.after) == len(asked.evidence.after)


def test_a_known_cell_beyond_its_limit_is_not_drawn_further() -> None:
    """Every image shows it again: no more images can make the acceptance needless."""
    plan = suite_plan()
    drawn = Drawn(lambda recipe, concept: len(recipe.steps) == 2, unlearned=NOTHING.unlearned)
    rule = Rule(policy=Policy(), acceptance=replace(ACCEPTED, level=1.0, rise=1.0))
    found = examine(plan, rule, laboratory(drawn, plan))
    assert found.verdict.kind is VerdictKind.KNOWN and not found.verdict.tighten
    assert len(found.evidence.after) <= 125 and not rule.wants(found.evidence, found.verdict)


def test_a_spent_budget_ends_it_and_says_so() -> None:
    """One look is over the budget: nothing more is drawn, and the reason names it."""
    plan = suite_plan()
    found = examine(plan, Rule(policy=Policy()), laboratory(NOTHING, plan), budget=Budget(images=1))
    assert found.inquiry.looks == 1 and found.verdict.kind is VerdictKind.UNDECIDED
    assert found.verdict.reason.endswith("the budget of 1 images is spent.")


def test_what_another_process_makes_comes_last() -> None:
    """The base is in the making elsewhere: the other models are drawn first, and the base's images are not left out."""
    plan, order = suite_plan(), list[Question]()
    drawn = Drawn(lambda recipe, concept: False, unlearned=NOTHING.unlearned)
    drawn.in_the_making = {plan.base}
    examine(plan, Rule(policy=Policy()), laboratory(drawn, plan, on_block=order.append), budget=Budget(images=1))
    base = [place for place, question in enumerate(order) if plan.arms[question.arm].recipe == plan.base]
    assert base and min(base) > max(place for place in range(len(order)) if place not in base)


def test_intermediate_checkpoints_see_the_images_of_the_last() -> None:
    """As many images at each step as at the end, in rising order, and the end is among them."""
    plan = suite_plan(steps=(5, 20))
    found = examine(plan, Rule(policy=Policy()), laboratory(NOTHING, plan))
    assert list(found.by_step) == [5, 20, plan.finetuning.steps]
    assert {len(seen) for seen in found.by_step.values()} == {len(found.evidence.after)}


def life_plan(text: str) -> CellPlan:
    """A real cell of several stages."""
    selection = Selection(lives=(parse_life(text),))
    (cell,) = cells(CELEBRITY, selection)
    return plan_cell(cell, resolve_base("micro"), task=CELEBRITY, selection=selection)


def test_a_life_is_measured_after_every_stage() -> None:
    """As many images at the last stage as the verdict has, on the first of the same rows before; nothing came back."""
    plan = life_plan("uce(1) > lora > uce(+1) > lora")
    _, second = names = tuple(one.name for one in CELEBRITY.erase(2))

    def shows(recipe: Recipe, concept: str) -> bool:
        return concept == second and len(recipe.steps) < 3

    found = examine(plan, Rule(policy=Policy()), laboratory(Drawn(shows, unlearned=names), plan))
    assert found.verdict.kind is VerdictKind.HOLDS, found.verdict
    assert found.by_stage[-1].drawn is found.evidence.after
    for stage in found.by_stage:
        assert stage.drawn.rows == found.evidence.after.rows[: len(stage.drawn)]
    told = accounts(found.by_stage, level=0.1, alpha=0.01)
    assert [one.erased.hits if one.erased else None for one in told] == [0, 0, 0, 0]
    assert [one.waiting.value if one.waiting else None for one in told] == [1.0, 1.0, None, None]
    assert not any(one.came_back or one.not_erased for one in told)


def test_what_an_earlier_stage_brought_back_is_a_rise() -> None:
    """The first name is back before the last fine-tuning, which changes nothing: with itself right after its own
    erasure it is compared, so the cell is VIOLATED, and the stage is named."""
    plan = life_plan("uce(1) > lora > uce(+1) > lora")
    first, second = names = tuple(one.name for one in CELEBRITY.erase(2))

    def shows(recipe: Recipe, concept: str) -> bool:
        return len(recipe.steps) > 1 if concept == first else len(recipe.steps) < 3

    found = examine(plan, Rule(policy=Policy()), laboratory(Drawn(shows, unlearned=names), plan))
    assert found.verdict.kind is VerdictKind.VIOLATED
    before = {one.concept: one.outcome for one in (found.evidence.before or found.evidence.after).judgments}
    assert before == {first: Outcome.CLEAR, second: Outcome.CLEAR}
    assert found.evidence.before is not None and " and " in found.evidence.before.recipe
    assert [one.came_back for one in accounts(found.by_stage, level=0.1, alpha=0.01)] == [False, True, False, False]


def test_a_stage_that_erased_nothing_never_holds() -> None:
    """Not unlearned: above the limit it is VIOLATED; nothing is said to have come back."""
    plan = life_plan("uce(1) > lora > uce(+1) > lora")
    _, second = names = tuple(one.name for one in CELEBRITY.erase(2))
    drawn = Drawn(lambda recipe, concept: concept == second, unlearned=names)
    found = examine(plan, Rule(policy=Policy()), laboratory(drawn, plan))
    assert found.verdict.kind is VerdictKind.VIOLATED and found.verdict.outcome is UnlearningOutcome.NOT_UNLEARNED
    told = accounts(found.by_stage, level=0.1, alpha=0.01)
    assert [one.not_erased for one in told] == [False, False, True, False]
    assert not any(one.came_back for one in told)


def test_a_life_is_read_back_from_all_of_its_models() -> None:
    """One of the two models that "before" is made of is missing: the store alone does not tell."""
    plan = life_plan("uce(1) > lora > uce(+1) > lora")
    drawn = Drawn(lambda recipe, concept: False, unlearned=tuple(one.name for one in CELEBRITY.erase(2)))
    for arm in plan.arms.values():
        for recipe in arm.recipes:
            drawn.stored |= {(recipe, arm.grid.part(number)) for number in range(arm.grid.blocks)}
    assert Recalled(plan, Rule(policy=Policy()), laboratory(drawn, plan)).clear
    drawn.stored = {(recipe, block) for recipe, block in drawn.stored if len(recipe.steps) != 1}
    assert not Recalled(plan, Rule(policy=Policy()), laboratory(drawn, plan)).clear


@pytest.mark.parametrize("everything", [True, False])
def test_the_store_alone_is_read_for_a_plan(everything: bool) -> None:
    """With all blocks stored the answer is clear; with the base's alone it is not, and nothing is made."""
    plan = suite_plan()
    drawn = Drawn(lambda recipe, concept: False, unlearned=NOTHING.unlearned)
    for arm in plan.arms.values():
        if everything or arm.recipe == plan.base:
            drawn.stored |= {(arm.recipe, arm.grid.part(number)) for number in range(arm.grid.blocks)}
    recalled = Recalled(plan, Rule(policy=Policy()), laboratory(drawn, plan))
    assert recalled.clear is everything
    assert bool(recalled.inquiry.open) is not everything


def test_every_prompt_that_is_drawn_is_read_before() -> None:
    """Synonyms and prompts for concepts seen in training as well, and training images."""
    plan, base = suite_plan(), resolve_base("micro")
    prompts = (Prompt(text="ž ж", concept="x"),)
    odd = Grid(probe=Probe(prompts=prompts, seeds=(1,), sampler=plan.erased.probe.sampler), block=1)
    assert check_prompts([plan], base).cut == 0
    for name in ("erased", "synonyms", "retained", "insample"):
        with pytest.raises(UserError, match="cannot represent"):
            check_prompts([plan, replace(plan, **{name: odd})], base)
    with pytest.raises(UserError, match="cannot represent"):
        check_prompts([plan], base, also=prompts)


def test_only_what_is_written_out_alone_may_be_cut() -> None:
    """A text that a template asks for too must be read whole."""
    long = "a portrait of " + "alba " * 90
    by_hand, filled = Prompt(text=long, concept="x", written=True), Prompt(text=long, concept="x")
    found = check_prompts([], resolve_base("micro"), also=[by_hand])
    assert (found.written, found.cut) == (1, 1) and found.room > 0
    with pytest.raises(UserError, match="tokens; the base reads"):
        check_prompts([], resolve_base("micro"), also=[by_hand, filled])
