"""A list of erased concepts in place of a task's own sets, and the cells that it gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from resurgence_harness.erase_list import erasing
from resurgence_harness.errors import UserError
from resurgence_harness.gate.release_policy import read_concepts
from resurgence_harness.selection import Selection, cells, narrowed, plan_cell, resolve_base
from resurgence_harness.specs import Concept
from resurgence_harness.tasks import TASKS
from resurgence_harness.unlearning import Given, GivenModel

CELEBRITY = TASKS["celebrity"]
MINE = GivenModel(digest="0" * 64, name="mine")


def listed(tmp_path: Path, text: str) -> tuple[Concept, ...]:
    """The concepts of a file."""
    (tmp_path / "erased.txt").write_text(text, encoding="utf-8")
    return read_concepts(tmp_path / "erased.txt")


def test_a_list_may_name_any_concept_of_the_task(tmp_path: Path) -> None:
    """However it is written; what is erased is no longer retained, and comments are left out."""
    kept, seen = CELEBRITY.held_out[0].name, CELEBRITY.preserve[3].name
    task = erasing(CELEBRITY, listed(tmp_path, f"# ours\n{kept.upper()}\n{seen} | The Other  # a synonym\n"))
    assert [one.name for one in task.erase(2)] == [kept, seen] and task.counts == (2,)
    assert task.erase(2)[1].synonyms == ("The Other",) and task.erase(2)[0].kind == "a celebrity"
    names = {one.name for one in (*task.preserve, *task.held_out)}
    assert not names & {kept, seen} and len(names) == len(CELEBRITY.preserve) + len(CELEBRITY.held_out) - 2
    assert erasing(task, task.erase(2)) == task


def test_what_the_task_does_not_know_is_refused(tmp_path: Path) -> None:
    """And a list after which nothing is left to retain."""
    with pytest.raises(UserError, match='Task celebrity has no concept "Nobody Known"'):
        erasing(CELEBRITY, listed(tmp_path, "Nobody Known\n"))
    everything = "\n".join(one.name for one in CELEBRITY.preserve)
    with pytest.raises(UserError, match="Nothing would be left to retain"):
        erasing(CELEBRITY, listed(tmp_path, everything))


def test_a_given_model_is_a_method_of_a_cell() -> None:
    """Instead of the profile's methods, or beside chosen ones; all erase the same concepts."""
    concepts = (CELEBRITY.erasable[4], CELEBRITY.erasable[2])
    other = GivenModel(digest="1" * 64, name="other")
    alone = Selection(unlearned=(MINE, other), concepts=concepts)
    assert [cell.id for cell in cells(CELEBRITY, alone)] == ["mine-2-lora", "other-2-lora"]
    beside = replace(alone, methods=("uce",))
    found = cells(CELEBRITY, beside)
    assert [cell.id for cell in found] == ["mine-2-lora", "other-2-lora", "uce-2-lora"]
    base = resolve_base("micro")
    plans = [plan_cell(cell, base, task=CELEBRITY, selection=beside) for cell in found]
    assert {plan.erased.probe.concepts for plan in plans} == {tuple(one.name for one in concepts)}
    step = plans[0].unlearned.steps[-1]
    assert isinstance(step, Given) and step.concepts == concepts and step.model == MINE
    assert "mine" in plans[0].notes[0] and "000000000000" in plans[0].notes[0]
    only = narrowed(beside, methods=("uce", "esd"))
    assert only is not None and [cell.id for cell in cells(CELEBRITY, only)] == ["uce-2-lora"]
    assert narrowed(alone, methods=("uce",)) is None


def test_alpha_is_shared_among_all_steps_of_all_cells() -> None:
    """Two models, two fine-tunings, three steps each, the last included."""
    concepts = CELEBRITY.erase(1)
    steps = Selection(
        unlearned=(MINE, GivenModel(digest="1" * 64, name="other")),
        concepts=concepts,
        finetunings=("lora", "full"),
        steps=(10, 30, 100),
    )
    base = resolve_base("micro")
    for cell in cells(CELEBRITY, steps):
        plan = plan_cell(cell, base, task=CELEBRITY, selection=steps)
        assert plan.finetuning.steps == 100 and plan.steps == (10, 30) and plan.claims == 4 * 3


def test_contradictions_are_refused() -> None:
    """A model without its concepts, and numbers beside a list."""
    with pytest.raises(UserError, match='Which concepts were erased from "mine" is not known'):
        Selection(unlearned=(MINE,))
    with pytest.raises(UserError, match="Both a list of erased concepts and numbers of them"):
        Selection(unlearned=(MINE,), concepts=CELEBRITY.erase(1), counts=(1,))
