"""Guided trajectories of a model for prompts of the erased concepts: the source of x_t in ESD and SDD.

Both methods share one cached set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


@final
@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Specification of a set of trajectories; also its cache key."""

    name: ClassVar[str] = "esd-trajectories"
    version: ClassVar[int] = 1

    model: str
    """Digest of the sampled model."""
    texts: tuple[str, ...]
    """The prompts c."""
    each: int
    """Trajectories per text."""
    steps: int
    """Sampler steps, all of which are stored."""
    guidance: float
    """Guidance scale of the sampler."""
    seed: int
    """Seed of the first trajectory's noise; the others follow it."""


def draw(model: StableDiffusion, spec: Trajectories, *, batch: int = 16) -> dict[str, Tensor]:
    """Sample the trajectories, `batch` at a time, and return every step of each: rows are trajectory × step.

    `x_t`, `prompted` and `empty` are [rows, 4, h, w], `t` and `text` [rows]. `spec.model` is only part of the cache
    key; `model` is sampled.
    """
    import torch

    with torch.no_grad():
        states = moves.encode_texts(model, spec.texts)
        empty = moves.encode_texts(model, [""])
        text = torch.arange(len(spec.texts)).repeat_interleave(spec.each)
        seeds = [spec.seed + index for index in range(len(text))]
        moments: list[moves.Moment] = []
        which: list[Tensor] = []
        size = model.sample_size
        for low in range(0, len(text), batch):
            part = text[low : low + batch]
            noise = moves.initial_noise(model, seeds[low : low + batch], height=size, width=size)
            before = len(moments)
            moves.denoise(
                model,
                noise,
                states[part],
                empty,
                steps=spec.steps,
                guidance=spec.guidance,
                watch=moments.append,
            )
            which += [part] * (len(moments) - before)
    return {
        "x_t": torch.cat([moment.x_t for moment in moments]).cpu(),
        "t": torch.cat([torch.full((len(moment.x_t),), moment.t) for moment in moments]),
        "text": torch.cat(which),
        "prompted": torch.cat([moment.prompted for moment in moments]).cpu(),
        "empty": torch.cat([moment.empty for moment in moments]).cpu(),
    }
