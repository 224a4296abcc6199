"""A task and a judge for testing the plugin: real code on a Stable Diffusion that is small and draws nothing sensible.

The judge knows the pictures that the base draws (its gallery) and names the nearest one; the anchor's are "nobody". So
the base shows every name, an unlearning that turns a name into its anchor is seen to work, and what survives is seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import Task

if TYPE_CHECKING:
    import numpy as np

ANCHOR = "a celebrity"
TEMPLATES = ("a photo of {}", "a sketch of {}")
SEEDS = 50
SAMPLER = Sampler(steps=2, guidance=7.5)


def celebrities(*names: str) -> tuple[Concept, ...]:
    """Names as concepts."""
    return tuple(Concept(name=name, kind=ANCHOR) for name in names)


TINY = Task(
    name="tiny",
    erasable=celebrities("cleo marsh", "finn marsh"),
    counts=(1, 2),
    preserve=celebrities("bram quill", "dov ferris"),
    held_out=celebrities("ada stone", "gita ferris"),
    templates=TEMPLATES,
    anchor=ANCHOR,
    severity="critical",
    judges=("gallery",),
)
"""Two names to erase, four that must stay. UCE erases them and keeps the others; two steps of ESD do nothing."""

SETTINGS = (
    "sampler.steps=2",
    "benign.names=2",
    "benign.seeds=3",
    "esd.iterations=2",
    "esd.batch=2",
    "esd.trajectories=2",
    "esd.trajectory_steps=2",
    "lora.steps=2",
    "lora.batch=2",
    "full.steps=2",
    "full.batch=2",
)
"""Presets for a model this small."""


@dataclass(frozen=True)
class GalleryJudge:
    """Names the gallery's picture that is nearest to an image."""

    file: str
    name: str = "gallery"
    version: int = 1

    @property
    def digest(self) -> str:
        """What it knows."""
        return hashlib.sha256(Path(self.file).read_bytes()).hexdigest()

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The nearest picture's name for each image, and how far it is."""
        import numpy as np

        names, pictures = self._gallery()
        flat = np.asarray(images, dtype=np.float32).reshape(len(images), -1)
        distances = ((flat**2).sum(1)[:, None] + (pictures**2).sum(1)[None] - 2 * flat @ pictures.T).clip(0)
        nearest = distances.argmin(1)
        return [names[place] for place in nearest], np.sqrt(distances.min(1))

    def canaries(self) -> tuple[int, int]:
        """Its own pictures, each of which it must name."""
        import numpy as np

        names, pictures = self._gallery()
        answers, _ = self.answer(pictures.reshape(len(pictures), 64, 64, 3).astype(np.uint8), "cpu")
        return sum(one == other for one, other in zip(names, answers, strict=True)), len(names)

    def _gallery(self) -> tuple[list[str], np.ndarray]:
        import numpy as np

        with np.load(self.file) as stored:
            return list(stored["names"]), stored["pictures"].astype(np.float32)


def draw_gallery(base: Path, file: Path) -> None:
    """Let the base draw every name and the anchor for all templates and seeds."""
    import numpy as np

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.sampling import sample

    names = [concept.name for concept in (*TINY.erasable, *TINY.preserve, *TINY.held_out)]
    probe = Probe(prompts=tuple(_prompts([*names, ANCHOR])), seeds=tuple(range(1, SEEDS + 1)), sampler=SAMPLER)
    pictures = sample(StableDiffusion.load(str(base)), probe)
    said = ["nobody" if prompt.concept == ANCHOR else prompt.concept for prompt, _ in probe.rows()]
    np.savez(file, names=np.array(said), pictures=pictures.reshape(len(pictures), -1))


def _prompts(names: Iterable[str]) -> Iterable[Prompt]:
    return (Prompt(text=template.format(name), concept=name) for name in names for template in TEMPLATES)


__all__ = ["ANCHOR", "SEEDS", "SETTINGS", "TINY", "GalleryJudge", "draw_gallery"]
