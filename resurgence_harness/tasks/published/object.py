"""Objects: 1, 3 or 5 of the ten CIFAR-10 classes are erased; five classes that are never erased must stay.

*Source:* the classes, their synonyms, the erase sets {ship}, {automobile, ship, bird}, {+ cat, truck} and the template
are the paper's (verified), and so is CLIP accuracy over the ten labels as the measure. 200 images of each erased class
are inferred from the authors' scores; that synonyms use the same template is inferred from their folders' names.
Anchors: ground for a ship, sky for an automobile, street for a bird (verified, in MACE's configurations); those of cat
and truck were not found and are ours.
*Ours:* the paper retains all classes that are not erased, nine, seven or five; here it is the five outside every erase
set, so that counts can be compared, split into three that methods may see and two held out.
"""

from __future__ import annotations

from resurgence_harness.specs import Concept
from resurgence_harness.tasks.microworld import OBJECTS
from resurgence_harness.tasks.published.neutral import NEUTRAL
from resurgence_harness.tasks.task import Task

ANCHORS = {"ship": "ground", "automobile": "sky", "bird": "street", "cat": "garden", "truck": "field"}
"""Erased class → its anchor, in the order in which they are erased; the last two are ours."""


def _objects(*names: str) -> tuple[Concept, ...]:
    return tuple(Concept(name=name, synonyms=OBJECTS[name], kind=ANCHORS.get(name, "")) for name in names)


OBJECT = Task(
    name="object",
    erasable=_objects(*ANCHORS),
    counts=(1, 3, 5),
    quick=(1, 3),
    preserve=_objects("airplane", "deer", "frog"),
    held_out=_objects("dog", "horse"),
    templates=("a photo of the {}",),
    anchor="",
    severity="normal",
    judges=("clip-accuracy",),
    paper_images={1: 200, 3: 600, 5: 1000},
    neutral=NEUTRAL,
)
