"""What the methods that train on pictures are given: SalUn, Scissorhands and EraseDiff."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.run import Run
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from tests.parity.given import pictures
from tests.tiny import tiny_run

CONCEPT = Concept(name="ada quill", kind="a celebrity")
TEXT, INSTEAD, KEPT = "a photo of ada quill", "a photo of a celebrity", "a portrait of a public person"
"""Of the forget images, their pseudo prompt, of the retain images."""
BATCH, STEPS = 2, 2
SMALL = Sampler(steps=2, height=64, width=64)
FORGET = Probe(prompts=(Prompt(text=TEXT, concept=CONCEPT.name),), seeds=(1, 2, 3, 4), sampler=SMALL)
RETAIN = Probe(prompts=(Prompt(text=KEPT, concept="public person"),), seeds=(5, 6, 7, 8), sampler=SMALL)
RATE = 1e-4


def images_of(probe: Probe) -> np.ndarray:
    """The pictures of either set, uint8 [4, 64, 64, 3]."""
    return pictures(4, seed=5 if probe == FORGET else 6)


def run_of(model: StableDiffusion, **others: Any) -> Run:
    """A run whose base has drawn these pictures; of a model in float64, their latents are float64, too."""

    def cached(kind: str, _: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        exact = kind == "latents" and model.unet.dtype == torch.float64
        return {name: value.double() for name, value in build().items()} if exact else build()

    def images(probe: Probe) -> tuple[np.ndarray, list[str]]:
        return images_of(probe), [prompt.text for prompt, _ in probe.rows()]

    return tiny_run(model, **({"images": images, "cached": cached} | others))


def drawn(count: int, *, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """t [n], noise and the place in the posterior [n, 4, 8, 8], in the order in which the product draws them."""
    t = torch.randint(1000, (count,), generator=generator)
    noise, spread = (torch.randn(count, 4, 8, 8, generator=generator) for _ in range(2))
    return t, noise, spread


def changes(after: StableDiffusion, before: StableDiffusion, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """What was added to each of the UNet's tensors, without those that did not move."""
    old = dict(before.unet.named_parameters())
    moved = {name: value.detach() - old[name].detach() for name, value in after.unet.named_parameters()}
    return {name: value for name, value in moved.items() if names is None or name in names}


SPARSITY, LOOKS, LAMBDA = 0.9, 2, 0.1
"""Scissorhands': share that is not cut, batches that the trim looks at, weight of the forget loss."""
