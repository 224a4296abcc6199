"""What a cell's DreamBooth trains on: a drawn subject and its kind, or given images whose class the user names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resurgence_harness.errors import SpecError, UserError
from resurgence_harness.finetuning import DreamBooth, GivenSet, ImageFolder
from resurgence_harness.finetuning.dreambooth import FIRST_SEED
from resurgence_harness.finetuning.image_folder import Row
from resurgence_harness.planning import parent_probes_of, probes_of
from resurgence_harness.selection import SUBJECT, CellPlan, Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.tasks import TASKS, Task

BASE = Base(digest="0" * 64, name="micro")
ROWS = tuple(Row(f"row {n}", f"{n}.png", f"{n:064x}", "my dog on the sofa") for n in range(10))
FOLDER = ImageFolder(digest="1" * 64, rows=ROWS, path="nowhere")


def planned(task: Task, selection: Selection, finetuning: str = "dreambooth") -> CellPlan:
    """The plan of a cell that erases the task's first count."""
    cell = Cell(task=task.name, method="uce", count=task.counts[0], finetuning=finetuning)
    return plan_cell(cell, BASE, task=task, selection=selection)


@pytest.mark.parametrize("name", TASKS)
def test_a_drawn_subject_is_a_retained_concept_and_its_class_the_concepts_kind(name: str) -> None:
    """Five images of it, by the base; class images by the model before, with the run's sampler and seeds of their own.
    The other fine-tunings keep their images."""
    task, selection = TASKS[name], Selection(changed=(("sampler.steps", 7),))
    plan, usual = planned(task, selection), planned(task, selection, "lora")
    step = plan.finetuning
    assert isinstance(step, DreamBooth) and plan.benign is not None and usual.benign is not None
    subject = task.preserve[0]
    assert len(step.data) == len(plan.benign) == SUBJECT and plan.benign.concepts == (subject.name,)
    assert len(usual.benign) > SUBJECT
    assert step.instance_prompt == "" and step.class_prompt == f"a photo of {subject.kind or subject.name}"
    (prior,) = parent_probes_of(step)
    assert prior not in probes_of(step) and prior.sampler.steps == 7 and min(prior.seeds) == FIRST_SEED
    assert parent_probes_of(usual.finetuning) == parent_probes_of(replace(step, prior_weight=0.0)) == ()


def test_given_images_need_the_name_of_their_class() -> None:
    """One sentence without it; with it both prompts are taken as they are given."""
    task = TASKS["celebrity"]
    with pytest.raises(UserError, match="DreamBooth on given images needs the class") as raised:
        planned(task, Selection(data=FOLDER))
    assert "dreambooth.class_prompt=a photo of a dog" in str(raised.value)
    words = (("dreambooth.class_prompt", "a photo of a dog"), ("dreambooth.instance_prompt", "a photo of sks dog"))
    plan = planned(task, Selection(data=FOLDER, changed=words))
    step = plan.finetuning
    assert isinstance(step, DreamBooth) and isinstance(step.data, GivenSet) and plan.benign is None
    assert (step.class_prompt, step.instance_prompt) == ("a photo of a dog", "a photo of sks dog")
    erased = task.erase(task.counts[0])[0].name
    with pytest.raises(SpecError, match="instance prompt has the erased name"):
        planned(task, Selection(data=FOLDER, changed=(*words[:1], ("dreambooth.instance_prompt", f"sks {erased}"))))
    with pytest.raises(UserError, match=r'There is no setting "dreambooth\.sampler"'):
        Selection(changed=(("dreambooth.sampler", 5),))
