"""MACE's second stage: one LoRA per concept learns not to attend to the name inside the concept's mask. See mace.py.

Concepts share only forward passes: every row of a batch has its concept's LoRA, image, prompt, timestep and noise, and
every concept has its own parameter group, which AdamW updates and clips separately. All share one U-Net; the result per
concept is two low-rank factors per key and value matrix.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import grid, watched
from resurgence_harness.diffusion.examples import Examples
from resurgence_harness.diffusion.training import Losses, batches, descend
from resurgence_harness.specs import Concept, Probe
from resurgence_harness.unlearning.masks import name_tokens, resized

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


class Timesteps(ABC):
    """The density of t."""

    name: ClassVar[str]

    @abstractmethod
    def density(self, steps: int) -> list[float]:
        """ξ(t) for t in 0 … steps − 1, not normalised."""


@final
@dataclass(frozen=True)
class FocalTimesteps(Timesteps):
    """ξ(t) ∝ σ(.05 (t − 200)) − σ(.05 (t − 400)): the timesteps at which an image's subject forms. Mean 300."""

    name: ClassVar[str] = "focal"

    def density(self, steps: int) -> list[float]:
        """The difference of two sigmoids."""
        return [_sigmoid(0.05 * (t - 200)) - _sigmoid(0.05 * (t - 400)) for t in range(steps)]


@final
@dataclass(frozen=True)
class UniformTimesteps(Timesteps):
    """Uniform t, as the authors use for explicit content."""

    name: ClassVar[str] = "uniform"

    def density(self, steps: int) -> list[float]:
        """Ones."""
        return [1.0] * steps


@final
@dataclass(frozen=True)
class FrobeniusNorm:
    """Σ_l ‖A_l‖_F, as the authors' code."""

    name: ClassVar[str] = "norm"
    power: ClassVar[int] = 1


@final
@dataclass(frozen=True)
class SquaredFrobeniusNorm:
    """Σ_l ‖A_l‖_F², the paper's objective (from memory)."""

    name: ClassVar[str] = "squared-norm"
    power: ClassVar[int] = 2


class LoRA(NamedTuple):
    """dW = up down of one matrix."""

    down: Tensor
    """[r, d]"""
    up: Tensor
    """[C, r]"""


LoRAs = dict[str, LoRA]
"""One concept's LoRAs, by the name of the matrix that each is added to."""


class Draw(NamedTuple):
    """One batch of one concept, or of several concepts concatenated."""

    image: Tensor
    """Rows of the forget images [n]."""
    text: Tensor
    """Rows of the prompts [n]."""
    t: Tensor
    """Timesteps [n]."""
    spread: Tensor
    """Offset of the latent from the VAE posterior's mean, in standard deviations [n, 4, h, w]."""
    noise: Tensor
    """ε [n, 4, h, w]."""


class Training(Protocol):
    """The fields of MACE that this stage needs, documented in mace.py."""

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts, "{}" for the name."""

    @property
    def forget(self) -> Probe:
        """Prompts and seeds of the forget images."""

    @property
    def rank(self) -> int:
        """Rank of each LoRA."""

    @property
    def iterations(self) -> int:
        """Optimiser steps per concept."""

    @property
    def batch(self) -> int:
        """Images of one concept per optimiser step."""

    @property
    def learning_rate(self) -> float:
        """AdamW's learning rate."""

    @property
    def timesteps(self) -> Timesteps:
        """The density of t."""

    @property
    def penalty(self) -> FrobeniusNorm | SquaredFrobeniusNorm:
        """Norm of the attention inside the masks that is minimised."""

    @property
    def seed(self) -> int:
        """Seed of the LoRAs, the order of images and prompts, t and the noise."""

    @property
    def updates(self) -> int:
        """Optimiser steps of all concepts."""

    def prompts(self, name: str) -> list[str]:
        """Every template filled."""


def train_together(
    step: Training,
    group: tuple[Concept, ...],
    refined: StableDiffusion,
    matrices: dict[str, Tensor],
    pictures: Examples,
    masks: Tensor,
    run: Run,
    *,
    before: int,
) -> tuple[list[LoRAs], Losses]:
    """The LoRAs of a group of concepts on the refined model, and the sum of their first and last losses.

    `before`: updates already made for other concepts, for the progress display.
    """
    import torch

    generators = [own_generator(step.seed, concept.name) for concept in group]
    trained = [fresh(matrices, step.rank, generator=generator) for generator in generators]
    adam = torch.optim.AdamW(
        [{"params": [part for lora in loras.values() for part in lora]} for loras in trained],
        lr=step.learning_rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        fused=True,
    )
    texts = [(text, concept.name) for concept in group for text in step.prompts(concept.name)]
    states = moves.conditions(refined, [text for text, _ in texts])
    tokens = name_tokens(refined, texts, closing=True)

    def added(name: str, c: Tensor) -> Tensor:
        """dW c, with each row's own dW."""
        down, up = (torch.stack([loras[name][part] for loras in trained]) for part in (0, 1))
        return c @ down.repeat_interleave(step.batch, 0).mT @ up.repeat_interleave(step.batch, 0).mT

    def loss(drawn: Draw) -> Tensor:
        """L, averaged over each concept's images and summed over concepts."""
        x_0 = pictures.mean[drawn.image] + pictures.deviation[drawn.image] * drawn.spread
        x_t = moves.add_noise(refined, x_0, drawn.noise, drawn.t)
        norms: list[Tensor] = []

        def watch(maps: Tensor) -> None:
            norms.append(masked_norm(maps, masks[drawn.image], tokens[drawn.text]))

        with watched(refined.unet, watch, added):
            moves.predict(refined, x_t, drawn.t, states[drawn.text])
        return (torch.stack(norms) ** step.penalty.power).sum() / step.batch

    def losses() -> Iterator[Tensor]:
        density = torch.tensor(step.timesteps.density(int(refined.scheduler.config.num_train_timesteps)))
        each = [
            draws(step, concept, generator, density, pictures.mean.shape[1:], place * len(step.templates))
            for place, (concept, generator) in enumerate(zip(group, generators, strict=True))
        ]
        for several in zip(*each, strict=True):
            yield loss(Draw(*(moves.on_device(torch.cat(part), refined.device) for part in zip(*several, strict=True))))

    def progress(done: int, _: int, total: float | None) -> None:
        run.progress(before + done * len(group), step.updates, None if total is None else total / len(group))

    ends = descend("MACE", adam, losses(), steps=step.iterations, clip=1.0, progress=progress)
    return [
        {name: LoRA(lora.down.detach(), lora.up.detach()) for name, lora in loras.items()} for loras in trained
    ], ends


def draws(
    step: Training, concept: Concept, generator: Generator, density: Tensor, shape: tuple[int, ...], first: int
) -> Iterator[Draw]:
    """Endless batches of one concept; its prompts are the rows from `first` on."""
    import torch

    own = torch.tensor([row for row, (prompt, _) in enumerate(step.forget.rows()) if prompt.concept == concept.name])
    images = batches(len(own), step.batch, generator=generator)
    prompts = batches(len(step.templates), step.batch, generator=generator)
    for image, text in zip(images, prompts, strict=True):
        t = torch.multinomial(density, step.batch, replacement=True, generator=generator)
        spread, noise = torch.randn(2, step.batch, *shape, generator=generator)
        yield Draw(own[image], first + text, t, spread, noise)


def fresh(matrices: dict[str, Tensor], rank: int, *, generator: Generator) -> LoRAs:
    """New LoRAs with dW = 0: down ~ N(0, 1/r²), up = 0."""
    import torch

    loras: LoRAs = {}
    for name, matrix in matrices.items():
        down = torch.randn(rank, matrix.shape[1], generator=generator).to(matrix.device) / rank
        up = torch.zeros(len(matrix), rank, device=matrix.device)
        loras[name] = LoRA(down.requires_grad_(True), up.requires_grad_(True))
    return loras


def masked_norm(maps: Tensor, masks: Tensor, tokens: Tensor) -> Tensor:
    """‖A_l[m_l, S]‖_F of each row [n], from maps [n, heads, h_l w_l, L], masks [n, h, w] and tokens [n, L]."""
    import torch

    inside = resized(masks, *grid(maps.shape[2], *masks.shape[1:])).flatten(1)
    chosen = inside[:, None, :, None] & tokens[:, None, None, :]
    # vector_norm, not the root of a sum: if a coarse layer's mask is empty its gradient is 0 and not NaN.
    norms: Tensor = torch.linalg.vector_norm(maps * chosen, dim=(1, 2, 3))
    return norms


def own_generator(seed: int, name: str) -> Generator:
    """The generator of one concept, from the seed and its name, independent of its position in the erase set."""
    import torch

    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
