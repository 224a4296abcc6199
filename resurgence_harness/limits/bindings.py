"""The settings that an acceptance is bound to, beside weights and versions: a short digest of a recipe's steps.

A ceiling was measured with certain values and does not apply to others. So every field of every step counts: numbers of
the preset, concepts, prompts, the training images and how they are drawn. Training seeds do not count, since runs
differ in nothing else, nor does the device, which is not a field of a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from resurgence_harness.specs import Step
from resurgence_harness.storing.keys import canonical, canonical_json

TRAINING_SEED = "seed"
"""The field of a step in which training runs differ."""
DIGITS = 12
"""Hexadecimal digits of a settings digest: short enough for a reviewed file, long enough to avoid collisions."""


def settings_digest(steps: Iterable[Step]) -> str:
    """12 hexadecimal digits for the steps' resolved values, training seeds excluded; the same on every machine."""
    values = [
        {name: value for name, value in canonical(step).items() if name != TRAINING_SEED}  # image seeds are nested
        for step in steps
    ]
    return hashlib.sha256(canonical_json(values).encode("ascii")).hexdigest()[:DIGITS]
