"""Neutral prompts of the microworld: scenes, people without a name, and the things of another task.

The authors of MACE keep the captions of COCO, those of UCE whatever a user lists, those of SalUn and EraseDiff clothed
people: pictures of the world at large. A task that erases one of twelve characters or three of ten objects has few
concepts of its own to keep; these stand for the rest of the world. What a task erases or holds out is never among them.
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


def _asked(names: Iterable[str], templates: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Each name in two templates, taken in turn."""
    return tuple(
        Prompt(text=templates[(2 * place + turn) % len(templates)].format(name, scene=name), concept=name)
        for place, name in enumerate(names)
        for turn in range(2)
    )


_WORLD = (*_asked(SCENES, SCENE_TEMPLATES), *_asked(PEOPLE, PERSON_TEMPLATES))
BESIDE_CHARACTERS = (*_WORLD, *_asked(OBJECTS, OBJECT_TEMPLATES))
"""For a task about characters: scenes, nameless people, objects."""
BESIDE_OBJECTS = (*_WORLD, *_asked(CHARACTERS, CHARACTER_TEMPLATES))
"""For a task that erases or keeps objects: scenes, nameless people, characters."""
