"""Guided trajectories of a model for prompts of the erased concepts: the source of x_t in ESD and SDD.

Both methods share one cached set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.errors import BuildError, sentence
from resurgence_harness.specs import ADDED, Arithmetic

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
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the predictions."""


HALF_BATCH = 32
"""Most trajectories at a time in float16."""


def draw(model: StableDiffusion, spec: Trajectories, *, batch: int = 16) -> dict[str, Tensor]:
    """Sample the trajectories, `batch` at a time, and return every step of each: rows are trajectory × step.

    In float16 they are sampled in equal parts of at most HALF_BATCH: libraries choose algorithms for every new shape.

    `x_t`, `prompted` and `empty` are [rows, 4, h, w], `t` and `text` [rows]. `spec.model` is only part of the cache
    key; `model` is sampled. BuildError for a prediction that float16 cannot hold.
    """
    import torch

    from resurgence_harness.diffusion.half.drawing import Halves

    half = None if spec.arithmetic == "float32" else Halves().of(model)
    times = moves.timesteps(model, spec.steps)
    with torch.no_grad():
        states = moves.conditions(model, spec.texts)
        empty = moves.conditions(model, [""])
        text = torch.arange(len(spec.texts)).repeat_interleave(spec.each)
        seeds = [spec.seed + index for index in range(len(text))]
        moments: list[moves.Moment] = []
        which: list[Tensor] = []
        size = model.sample_size
        if half is not None:
            batch = ceil(len(text) / ceil(len(text) / HALF_BATCH))
        for low in range(0, len(text), batch):
            part = text[low : low + batch]
            noise = moves.initial_noise(model, seeds[low : low + batch], height=size, width=size)
            before = len(moments)
            own = None if half is None else half.predictions(model, states[part], empty, times)
            x_0 = moves.denoise(
                model,
                noise,
                states[part],
                empty,
                steps=spec.steps,
                guidance=spec.guidance,
                watch=moments.append,
                predictions=own,
            )
            if half is not None and not bool(torch.isfinite(x_0).all()):
                raise BuildError(
                    sentence(
                        "A trajectory has numbers beyond float16.",
                        texts=len(spec.texts),
                        do='Train in float32, with arithmetic="float32".',
                    )
                )
            which += [part] * (len(moments) - before)
    return {
        "x_t": torch.cat([moment.x_t for moment in moments]).cpu(),
        "t": torch.cat([torch.full((len(moment.x_t),), moment.t) for moment in moments]),
        "text": torch.cat(which),
        "prompted": torch.cat([moment.prompted for moment in moments]).cpu(),
        "empty": torch.cat([moment.empty for moment in moments]).cpu(),
    }
