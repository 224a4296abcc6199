"""What is asked next: one look, then more of what would change the answer, until the grids end."""

from __future__ import annotations

import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.inquiry import Inquiry, Question
from resurgence_harness.selection import CONTROL_IMAGES, Selection, plan_cell
from resurgence_harness.specs import Base, Cell, Grid, Probe, Prompt
from resurgence_harness.statistics import Evidence, ImageGroup, Judgment, Outcome
from resurgence_harness.tasks import CELEBRITY

BASE = Base(digest="0" * 64, name="micro")


def inquiry(engine: str = "sequential", count: int = 10) -> Inquiry:
    """A cell of the default suite, before anything was asked."""
    cell = Cell(task="celebrity", method="esd", count=count, finetuning="lora")
    return Inquiry(plan_cell(cell, BASE, task=CELEBRITY, selection=Selection(engine=engine)))


def answered(asked: Inquiry) -> Inquiry:
    """Whatever is open, answered by two judges who see nothing."""
    for question in asked.open:
        block, arm = asked.block(question), asked.plan.arms[question.arm]
        rows = tuple(
            Judgment(concept=p.concept, prompt=p.text, seed=s, outcome=Outcome.CLEAR, score=0.5, answer="somebody")
            for p, s in block.rows()
        )
        words = arm.recipe.label
        asked.answer(
            question,
            [Evidence(judgments=rows, planned=len(rows), recipe=words, judge=name) for name in asked.plan.judges],
        )
    return asked


def test_the_first_look_is_small_but_for_the_control() -> None:
    """One block of every compared arm; as many images of the base as the positive control needs."""
    open_ = inquiry().open
    assert [question for question in open_ if question.arm == "before"] == [Question("before", 0)]
    assert sum(question.arm == "base" for question in open_) * 25 == CONTROL_IMAGES
    assert open_[0].arm == "base"


def test_wanted_images_are_asked_of_every_model_alike() -> None:
    """More erased images: before and after, not the base; more retained ones: all three models."""
    asked = answered(inquiry())
    assert asked.open == []
    assert asked.widen({ImageGroup.ERASED})
    assert asked.open == [Question("before", 1), Question("after", 1)]
    answered(asked)
    assert asked.widen({ImageGroup.RETAINED})
    assert {question.arm for question in asked.open} == {"base_retained", "retained_before", "retained_after"}
    assert asked.looks == 3


def test_a_grid_ends() -> None:
    """When every row is drawn there is nothing more to ask."""
    asked = answered(inquiry())
    rounds = 0
    while asked.widen({ImageGroup.ERASED}):
        answered(asked)
        rounds += 1
    assert (rounds + 1) * 25 == 500
    evidence = asked.evidence(effect=None, canaries=[(1, 1)] * 2, accuracies=[None] * 2)  # type: ignore[list-item]
    assert len(evidence.after) == 500 and evidence.second is not None
    assert sorted(evidence.after.rows) == sorted((p.text, s) for p, s in asked.plan.erased.probe.rows())


def test_a_fixed_number_is_asked_at_once_and_never_widened() -> None:
    """The fixed engine looks once."""
    asked = answered(inquiry("fixed"))
    assert not asked.widen({ImageGroup.ERASED, ImageGroup.RETAINED})
    assert asked.looks == 1


def test_a_plan_counts_on_a_usual_number_until_the_answer_is_clear() -> None:
    """Before: as many as usual; once it is clear: what was asked and no more."""
    asked = answered(inquiry())
    assert sum(question.arm == "after" for question in asked.expected(clear=False)) * 25 == 125
    assert sum(question.arm == "after" for question in asked.expected(clear=True)) == 1


@pytest.mark.parametrize("count", [1, 10])
def test_concepts_are_never_asked_one_after_another(count: int) -> None:
    """The order is a hash of prompt and seed: each block mixes concepts and prompts, and is the same everywhere."""
    grid = inquiry(count=count).plan.erased
    assert sorted(grid.rows, key=repr) == sorted(grid.probe.rows(), key=repr)
    first = grid.part(0)
    assert len({prompt.concept for prompt in first.prompts}) >= min(count, 6)
    assert len({prompt.text for prompt in first.prompts}) >= 5
    assert grid.rows != Grid(probe=grid.probe, order=1).rows
    small = Grid(probe=Probe(prompts=(Prompt(text="a", concept="a"), Prompt(text="b", concept="b")), seeds=(1, 2, 3)))
    assert [(prompt.text, seed) for prompt, seed in small.rows] == [
        (prompt.text, seed) for prompt, seed in Grid(probe=small.probe).rows
    ]


def test_a_block_beyond_the_grid_is_refused() -> None:
    """Counted from 0."""
    grid = inquiry().plan.erased
    with pytest.raises(SpecError, match="has no block"):
        grid.part(grid.blocks)
    with pytest.raises(SpecError, match="is empty"):
        Grid(probe=grid.probe, block=0)
