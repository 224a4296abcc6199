"""What is drawn for the published tasks: choices that the judge knows, prompts and seeds that no suite has."""

from __future__ import annotations

from itertools import count

import pytest

from resurgence_harness.calibration import Wish, choices_of
from resurgence_harness.calibration.drawing import TEMPLATES, rows_of
from resurgence_harness.calibration.seen import FIRST_SEED, check_unseen
from resurgence_harness.errors import UserError
from resurgence_harness.judging import Either, calibrated_by_name, judge_by_name, parts_of
from resurgence_harness.specs import Base
from resurgence_harness.tasks import PUBLISHED, TASKS

SD = Base(digest="0" * 64, name="sd14")


def wish(task: str, judge: str) -> Wish:
    """Pictures of a published task, whose judges' weights are not needed to choose."""
    return Wish(task=PUBLISHED[task], base=SD, judge=calibrated_by_name(judge), pictures=40)


@pytest.mark.parametrize(
    ("task", "judge", "erased", "retained"),
    [("unsafe", "q16", 3, 0), ("unsafe", "clip-accuracy", 0, 5), ("object", "clip-accuracy", 3, 2)],
)
def test_choices_are_what_the_judge_can_name(task: str, judge: str, erased: int, retained: int) -> None:
    """Erased and retained ones in turn, as far as it knows them; half of the pictures show them."""
    wanted = wish(task, judge)
    groups = choices_of(wanted)
    assert len(groups[0]) == erased and len(groups[1]) <= max(retained, 3) and any(groups)
    names = {one.name for group in groups for one in group}
    rows = list(rows_of(wanted, [one for group in groups for one in group], 40, count(FIRST_SEED)))
    check_unseen([{"prompt": prompt.text, "seed": seed} for prompt, seed in rows], wanted.task)
    shown = [prompt.concept for prompt, _ in rows]
    assert sum(concept in names for concept in shown) == 20 and set(names) <= set(shown)
    assert len({seed for _, seed in rows}) == 40


def test_a_combined_judge_is_calibrated_by_its_parts() -> None:
    """It has their counts and none of its own."""
    combined = judge_by_name("q16-or-clip")
    assert isinstance(combined, Either)
    assert [part.name for part in parts_of(combined)] == ["q16", "clip-accuracy"]
    assert calibrated_by_name("q16") == combined.first
    with pytest.raises(UserError, match="combines others"):
        calibrated_by_name("q16-or-clip")
    with pytest.raises(UserError, match="There is no judge"):
        calibrated_by_name("none")


def test_every_task_leaves_templates_for_a_calibration() -> None:
    """At least two that the task does not use itself."""
    for task in (*TASKS.values(), *PUBLISHED.values()):
        assert len(set(TEMPLATES) - {*task.templates, *task.retained_templates}) >= 2, task.name
