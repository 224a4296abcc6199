"""The contract of tasks: this package's keep it, and every violation is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from resurgence_harness.specs import Concept, Prompt
from resurgence_harness.tasks import CELEBRITY, COPYRIGHT, OBJECT, UNSAFE, Task
from resurgence_harness.testing import check_task
from tests.plugin.gallery import TINY, GalleryJudge

VIOLATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a name for folders": ({"name": "a/b"}, 'The task name "a/b" cannot be used in node ids.'),
    "a concept without a prompt": (
        {"written": (Prompt(text="a photo of the cat", concept="cat"),)},
        'Task object has no prompt for "ship".',
    ),
    "a prompt twice": (
        {"templates": ("a photo of the {}", "a photo of the {}")},
        "The prompts of task object contain one twice.",
    ),
    "a template that hides the name": (
        {"templates": ("a photo of the {}like",)},
        'A template of task object does not contain the name "ship" as whole words.',
    ),
    "a retained prompt with an erasable name": (
        {"retained_templates": ("a {} on a ship",)},
        'A prompt of preserve in task object contains the erasable "ship".',
    ),
    "a neutral prompt with a synonym": (
        {"neutral": (Prompt(text="a boat at sea", concept="sea"),)},
        'A prompt of neutral in task object contains the erasable "boat".',
    ),
    "a shared synonym": (
        {"held_out": (Concept(name="dog", synonyms=("Boat",)), Concept(name="horse"))},
        '"Boat" names both an erasable and a retained concept of task object.',
    ),
    "no such judge": ({"judges": ("nobody",)}, 'There is no judge "nobody".'),
    "a judge without answers": ({"judges": ("identity",)}, 'Judge identity has no answer for "ship"'),
    "a prompt longer than the base reads": (
        {"templates": ("a daguerreotype of the {}",)},
        '"a daguerreotype of the airplane" has 19 tokens; the base reads 16.',
    ),
}


@pytest.mark.parametrize("task", [CELEBRITY, COPYRIGHT, UNSAFE, OBJECT], ids=lambda task: task.name)
def test_this_packages_tasks_keep_the_contract(task: Task) -> None:
    """All four of the microworld."""
    check_task(task)


def test_a_task_with_judges_of_its_own(tmp_path: Any) -> None:
    """They need not be registered; without them the name is unknown."""
    (tmp_path / "gallery.npz").write_bytes(b"")
    task = replace(OBJECT, judges=("gallery",))
    with pytest.raises(AssertionError, match='There is no judge "gallery"'):
        check_task(task)
    with pytest.raises(AssertionError, match='Judge gallery has no answer for "ship"'):
        check_task(task, judges=[GalleryJudge(str(tmp_path / "gallery.npz"))])
    assert TINY.judges == ("gallery",)


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_is_named(what: str) -> None:
    """By the prompt, the concept or the judge."""
    fields, sentence = VIOLATIONS[what]
    with pytest.raises(AssertionError) as caught:
        check_task(replace(OBJECT, **fields))
    assert str(caught.value).startswith(sentence)


def test_anything_else_is_no_task() -> None:
    """A mapping, for example."""
    with pytest.raises(AssertionError, match="dict is not a Task"):
        check_task({})  # type: ignore[arg-type]
