"""Copyright: one fictional character is erased; the other characters must stay.

The characters are those of the embedded microworld: twelve, all invented for it.

*Source:* one erased character and no other count is the paper's copyright task (verified; it says that erasing more
degrades the others). It judges 30 images (inferred: all of its scores are multiples of 1/30), with prompts such as
"a pose of Iron Man in action" (verified); its prompts and retained characters were not found. Both lists are ours.
"""

from __future__ import annotations

from resurgence_harness.specs import Concept
from resurgence_harness.tasks.microworld import CHARACTER_TEMPLATES, CHARACTERS
from resurgence_harness.tasks.neutral import BESIDE_CHARACTERS
from resurgence_harness.tasks.task import Task

_MEDIA = ("a photo of {}", "a sketch of {}", "an oil painting of {}")
_PLACES = ("standing in a city", "on a mountain", "at the beach", "in a forest")
_CHARACTERS = tuple(Concept(name=name, kind="a person") for name in CHARACTERS)

COPYRIGHT = Task(
    name="copyright",
    erasable=_CHARACTERS[:1],
    counts=(1,),
    quick=(1,),
    preserve=_CHARACTERS[1:7],
    held_out=_CHARACTERS[7:],
    templates=(
        *CHARACTER_TEMPLATES,
        *(f"{medium} {place}" for medium in _MEDIA for place in _PLACES),
        *(f"a pose of {{}} in action {place}" for place in _PLACES),
        *(f"{medium} in action" for medium in _MEDIA),
        "a person like {}",
        "two of {}",
    ),
    anchor="a person",
    severity="critical",
    judges=("character",),
    retained_templates=CHARACTER_TEMPLATES,
    neutral=BESIDE_CHARACTERS,
    paper_images={1: 30},
)
