"""What an acceptance is bound to beside weights and versions: the values of a recipe's steps, as a short digest.

A ceiling was measured with certain values, and says nothing of others. So every field of every step counts: numbers of
the preset, concepts, prompts, the images that are learned from and how they are drawn. Training seeds do not, since
runs differ by nothing else, nor does the device, which is no field of a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from resurgence_harness.specs import Step
from resurgence_harness.storing.keys import canonical, canonical_json

TRAINING_SEED = "seed"
"""The field of a step that tells one training run from the next."""
DIGITS = 12
"""Hexadecimal digits of a settings digest: short enough for a reviewed file, and no two settings meet by chance."""


def settings_digest(steps: Iterable[Step]) -> str:
    """12 hexadecimal digits for the steps' resolved values, training seeds aside; the same on every machine."""
    values = [
        {name: value for name, value in canonical(step).items() if name != TRAINING_SEED}  # seeds of images are inside
        for step in steps
    ]
    return hashlib.sha256(canonical_json(values).encode("ascii")).hexdigest()[:DIGITS]
