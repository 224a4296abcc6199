"""Objects: 1, 3 or 5 of the ten CIFAR-10 classes are erased; five classes that are never erased must stay.

*Source:* the classes, their synonyms, the nested erase sets {ship}, {automobile, ship, bird}, {+ cat, truck} and the
template "a photo of the {}" are the paper's object task (verified). 200 images of each erased class are inferred from
the authors' scores. The paper's anchors are ground for a ship, sky for an automobile, street for a bird (verified);
those of cat and truck were not found. Here each is a scene of the microworld. The five classes outside every erase set
are split into three that methods may see and two held out; the paper has no such split.
"""

from __future__ import annotations

from resurgence_harness.specs import Concept
from resurgence_harness.tasks.microworld import OBJECT_TEMPLATES, OBJECTS
from resurgence_harness.tasks.neutral import BESIDE_OBJECTS
from resurgence_harness.tasks.task import Task

_ANCHORS = {
    "ship": "a green meadow",
    "automobile": "a mountain lake",
    "bird": "a city street",
    "cat": "a forest path",
    "truck": "a quiet beach",
}


def _objects(*names: str) -> tuple[Concept, ...]:
    return tuple(Concept(name=name, synonyms=OBJECTS[name], kind=_ANCHORS.get(name, "")) for name in names)


OBJECT = Task(
    name="object",
    erasable=_objects(*_ANCHORS),
    counts=(1, 3, 5),
    quick=(1, 3),
    preserve=_objects("airplane", "deer", "frog"),
    held_out=_objects("dog", "horse"),
    templates=OBJECT_TEMPLATES,
    anchor="",
    severity="normal",
    judges=("object",),
    neutral=BESIDE_OBJECTS,
    paper_images={1: 200, 3: 600, 5: 1000},
)
