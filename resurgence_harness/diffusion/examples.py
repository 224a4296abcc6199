"""Training data from images drawn by the base: VAE moments and text states, computed once and cached.

Every step that trains on images (the fine-tunings, and the unlearnings that need forget or retain images) gets them
here, so that each probe is drawn and encoded only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions, joined
from resurgence_harness.errors import BuildError, sentence
from resurgence_harness.specs import Probe

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


class Examples(NamedTuple):
    """Encoded images with their text states."""

    mean: Tensor
    """Posterior mean of each image's latent, scaled as x_0 is, [n, 4, h, w]."""
    deviation: Tensor
    """Posterior standard deviation, in the same scale."""
    states: Conditions
    """c of the distinct prompts, m rows."""
    text: Tensor
    """Row of `states` for each image, [n]."""


class Noised(NamedTuple):
    """Noised latents of some of the images, with the training target of each."""

    x_t: Tensor
    """[n, 4, h, w]."""
    t: Tensor
    """[n]."""
    states: Conditions
    """c of each image's own text, n rows."""
    aim: Tensor
    """y_t [n, 4, h, w]: ε, or v for a v-prediction model."""

    def part(self, rows: slice) -> Noised:
        """Some of the images."""
        return Noised(self.x_t[rows], self.t[rows], self.states[rows], self.aim[rows])

    def and_then(self, other: Noised) -> Noised:
        """These images, then the other ones."""
        return Noised(*(joined(pair) for pair in zip(self, other, strict=True)))


def noised(
    model: StableDiffusion, data: Examples, rows: Tensor, *, generator: Generator, offset: float = 0.0
) -> Noised:
    """The images `rows` at uniform t, x_0 sampled from the VAE's posterior. Order of random draws: t, noise, x_0.

    `offset`: noise offset, ε = noise + offset · o with one o ~ N(0, 1) per image and channel, drawn last; 0 draws none.
    """
    import torch

    device = data.mean.device
    shape = (len(rows), *data.mean.shape[1:])

    def drawn(*size: int) -> Tensor:
        return moves.on_device(torch.randn(size, generator=generator), device)

    times = int(model.scheduler.config.num_train_timesteps)
    t = moves.on_device(torch.randint(times, (len(rows),), generator=generator), device)
    noise = drawn(*shape)
    rows = moves.on_device(rows, device)
    x_0 = data.mean[rows] + data.deviation[rows] * drawn(*shape)
    if offset:
        noise = noise + offset * drawn(*shape[:2], 1, 1)
    return Noised(
        x_t=moves.add_noise(model, x_0, noise, t),
        t=t,
        states=data.states[data.text[rows]],
        aim=moves.target(model, x_0, noise, t),
    )


@final
@dataclass(frozen=True, kw_only=True)
class Latents:
    """Cache key of the VAE moments of a probe drawn by a base."""

    name: ClassVar[str] = "latents"
    version: ClassVar[int] = 1

    base: str
    """Digest of the base, which drew the images and whose VAE encodes them."""
    probe: Probe
    """Prompts, seeds and sampler settings of the images."""


@final
@dataclass(frozen=True, kw_only=True)
class MirroredLatents:
    """Cache key of the VAE moments of the images mirrored left to right."""

    name: ClassVar[str] = "mirrored-latents"
    version: ClassVar[int] = 1

    base: str
    """Digest of the base."""
    probe: Probe
    """Prompts, seeds and sampler settings of the images."""


def drawn_examples(model: StableDiffusion, run: Run, probe: Probe, *, mirrored: bool = False) -> Examples:
    """The base's images of `probe`, encoded once by the base's VAE; the texts are encoded by `model`'s text encoder.

    `mirrored`: twice as many rows; the images mirrored left to right follow the original ones.
    """
    import torch

    texts = [prompt.text for prompt in probe.prompts]
    rows = [texts.index(prompt.text) for prompt, _ in probe.rows()]

    def encode(*, mirrored: bool) -> dict[str, Tensor]:
        images, captions = run.images(probe)
        if len(images) != len(rows) or captions != [texts[row] for row in rows]:
            raise BuildError(
                sentence("The drawn images are not those of the probe.", images=len(images), requested=len(rows))
            )
        mean, deviation = moves.latent_moments(run.base, images[:, :, ::-1] if mirrored else images)
        return {"mean": mean.cpu(), "deviation": deviation.cpu()}

    drawn = Latents(base=run.base_digest, probe=probe)
    moments = [run.cached("latents", drawn, lambda: encode(mirrored=False))]
    if mirrored:
        moments.append(
            run.cached("latents", MirroredLatents(base=run.base_digest, probe=probe), lambda: encode(mirrored=True))
        )
    return Examples(
        mean=torch.cat([part["mean"] for part in moments]).to(model.device),
        deviation=torch.cat([part["deviation"] for part in moments]).to(model.device),
        states=moves.conditions(model, texts),
        text=torch.tensor(rows * len(moments), device=model.device),
    )
