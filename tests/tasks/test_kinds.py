"""A task tells what is wrong with its own values, and so does a concept."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.specs import Concept, Prompt
from resurgence_harness.tasks import PUBLISHED, TASKS, Task

NIGHT = Task(
    name="night",
    erasable=(Concept(name="night", kind="a sky"),),
    counts=(1,),
    preserve=(Concept(name="noon"),),
    held_out=(Concept(name="dusk"),),
    templates=("a photo of {}", "{}"),
    anchor="a sky",
    severity="normal",
    judges=("darkness",),
)
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"templates": ("a photo",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"templates": ("{} and {}",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"templates": ("a {kind} of {}",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"templates": ("a photo of {",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"templates": ("a {{photo}} of {}",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"templates": ["a photo of {}"]}, 'templates of task "night" is a list.'),
    ({"templates": "a photo of {}"}, 'templates of task "night" is a str.'),
    ({"templates": ()}, 'Task "night" has no templates.'),
    ({"retained_templates": ("noon",)}, 'Task "night" has a template that must hold "{}" once'),
    ({"retained_templates": ["{}"]}, 'retained_templates of task "night" is a list.'),
    ({"judges": "object"}, 'judges of task "night" is a str.'),
    ({"judges": ["object"]}, 'judges of task "night" is a list.'),
    ({"judges": (3,)}, 'judges[0] of task "night" is an int.'),
    ({"judges": ()}, 'Task "night" has no judges.'),
    ({"counts": 1}, 'counts of task "night" is an int.'),
    ({"counts": [1]}, 'counts of task "night" is a list.'),
    ({"counts": ("1",)}, 'counts[0] of task "night" is a str.'),
    ({"counts": (True,)}, 'counts[0] of task "night" is a bool.'),
    ({"counts": (0,)}, 'counts of task "night" is a tuple.'),
    ({"counts": (1, 1)}, 'counts of task "night" is a tuple.'),
    ({"quick": [1]}, 'quick of task "night" is a list.'),
    ({"erasable": Concept(name="night")}, 'erasable of task "night" is a Concept.'),
    ({"erasable": ("night",)}, 'erasable[0] of task "night" is a str.'),
    ({"erasable": [Concept(name="night")]}, 'erasable of task "night" is a list.'),
    ({"preserve": "noon"}, 'preserve of task "night" is a str.'),
    ({"held_out": (None,)}, 'held_out[0] of task "night" is a NoneType.'),
    ({"anchor": None}, 'anchor of task "night" is a NoneType.'),
    ({"severity": "bad"}, "The severity of task \"night\" is 'bad'."),
    ({"name": ""}, "The name of a task is ''."),
    ({"name": 3}, "The name of a task is 3."),
    ({"written": ("a night",)}, 'written[0] of task "night" is a str.'),
    ({"written": [Prompt(text="a night", concept="night")]}, 'written of task "night" is a list.'),
    ({"neutral": ("a chair",)}, 'neutral[0] of task "night" is a str.'),
    ({"erase_sets": {1: Concept(name="night")}}, 'erase_sets[1] of task "night" is a Concept.'),
    ({"erase_sets": (Concept(name="night"),)}, 'erase_sets of task "night" is a tuple.'),
]


@pytest.mark.parametrize(("values", "said"), MISTAKES)
def test_a_value_of_another_kind_is_named(values: dict[str, Any], said: str) -> None:
    """The first line has the field and the task; the last says how it is written."""
    with pytest.raises(SpecError, match=f"^{re.escape(said)}"):
        replace(NIGHT, **values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"synonyms": "car"}, 'The synonyms of the concept "automobile" are not a tuple of strings.'),
        ({"synonyms": ["car"]}, 'The synonyms of the concept "automobile" are not a tuple of strings.'),
        ({"synonyms": ("car", "")}, 'The synonyms of the concept "automobile" are not a tuple of strings.'),
        ({"name": 3}, "The name of a concept is 3, which is not a string."),
        ({"kind": ("a car",)}, "The kind of a concept is ('a car',), which is not a string."),
    ],
)
def test_a_concept_says_what_is_wrong_with_it(values: dict[str, Any], said: str) -> None:
    """A text as synonyms would be asked for letter by letter."""
    with pytest.raises(SpecError, match=f"^{re.escape(said)}"):
        Concept(**{"name": "automobile", **values})


@pytest.mark.parametrize("task", [*TASKS.values(), *PUBLISHED.values()], ids=lambda task: f"{task.name}")
def test_the_packages_tasks_are_made_again(task: Task) -> None:
    """None of them is refused."""
    assert replace(task) == task
