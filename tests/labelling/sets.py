"""Sets of pictures to label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resurgence_harness.labelling import PictureSet

CHOICES = ("red", "green")
SIDE = 16
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 30), "grey": (128, 128, 128)}


def drawn(
    folder: Path, count: int, *, seed: int = 0, covered: bool = False, first_seed: int = 900_001, **changed: str
) -> PictureSet:
    """Noisy pictures of the colours in turn, two of three drawn by the base."""
    random = np.random.default_rng(seed)
    names = [list(COLOURS)[place % 3] for place in range(count)]
    images = np.stack([np.full((SIDE, SIDE, 3), COLOURS[name], np.int16) for name in names])
    images = np.clip(images + random.integers(-9, 10, images.shape), 0, 255).astype(np.uint8)
    about = [
        {
            "kind": "drawn by the base" if place % 6 < 4 else "drawn by models",
            "drawn_by": "base",
            "prompt": f"a secret prompt {place}",
            "seed": first_seed + place,
            "concept": name,
        }
        for place, name in enumerate(names)
    ]
    facts = {"task": "colours", "base": "tiny", "base_digest": "0" * 64, "judge": "colour", "judge_digest": "1" * 64}
    facts |= changed
    references = {"red": np.full((SIDE, SIDE, 3), COLOURS["red"], np.uint8)}
    return PictureSet.write(folder, images, about, references=references, choices=CHOICES, covered=covered, **facts)
