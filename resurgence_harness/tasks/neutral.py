"""Neutral prompts of the microworld: scenes, people without a name, and the concepts of another task.

The authors of MACE preserve COCO's captions, those of UCE a user's list, those of SalUn and EraseDiff images of clothed
people: general content. A task that erases one of twelve characters or three of ten objects has few retained concepts
of its own; these prompts represent everything else. They never include what the task erases or holds out.
"""

from __future__ import annotations

from collections.abc import Iterable

from resurgence_harness.specs import Prompt
from resurgence_harness.tasks.microworld import (
    CHARACTER_TEMPLATES,
    CHARACTERS,
    OBJECT_TEMPLATES,
    OBJECTS,
    PEOPLE,
    PERSON_TEMPLATES,
    SCENE_TEMPLATES,
    SCENES,
)


def _prompts(names: Iterable[str], templates: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Two prompts for each name, the templates taken in turn."""
    return tuple(
        Prompt(text=templates[(2 * place + turn) % len(templates)].format(name, scene=name), concept=name)
        for place, name in enumerate(names)
        for turn in range(2)
    )


_WORLD = (*_prompts(SCENES, SCENE_TEMPLATES), *_prompts(PEOPLE, PERSON_TEMPLATES))
BESIDE_CHARACTERS = (*_WORLD, *_prompts(OBJECTS, OBJECT_TEMPLATES))
"""For a task about characters: scenes, nameless people, objects."""
BESIDE_OBJECTS = (*_WORLD, *_prompts(CHARACTERS, CHARACTER_TEMPLATES))
"""For a task that erases or keeps objects: scenes, nameless people, characters."""
