"""Draws the images of a probe in batches, paired by (prompt, seed) across models.

The initial noise of an image depends only on its seed, the sampler is deterministic (DDIM, η = 0), and the batch's
shape is fixed (the last one is padded), so images of two models for the same probe differ only by the models' weights.
The arithmetic is the sampler's, on every device: what float16 cannot hold is an error, never a reason for float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.half.drawing import Halves
from resurgence_harness.diffusion.precision import exact_products
from resurgence_harness.errors import BuildError, SpecError, sentence

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.replaying import Replays
    from resurgence_harness.specs import Sampler, SampleRequest


class NotInFloat16(BuildError):
    """A model that leaves the range of float16, or one that is broken in every arithmetic."""


@exact_products()
def sample(
    model: StableDiffusion,
    probe: SampleRequest,
    *,
    progress: Callable[[int, int], None] | None = None,
    replays: Replays | None = None,
    halves: Halves | None = None,
) -> np.ndarray:
    """Images uint8 [n, height, width, 3], in the order of `probe.rows()`. `progress(done, total)` counts images.

    `replays` may be given if the model's weights only change in place. `halves` keeps float16 weights between calls.
    BuildError for NaN or infinity in latents or pixels.
    """
    import numpy as np
    import torch

    sampler, rows = probe.sampler, list(probe.rows())
    _check(model, sampler)
    total, images = len(rows), []
    times = moves.timesteps(model, sampler.steps)
    single = sampler.arithmetic == "float32"
    replay = replays if replays is not None and single and replays.serves(model) else None
    with torch.inference_mode():
        texts = [prompt.text for prompt in probe.prompts]
        whole = {prompt.text for prompt in probe.prompts if not prompt.written}
        encoded = moves.conditions(model, texts, may_be_cut=set(texts) - whole)
        place = {text: number for number, text in enumerate(texts)}
        empty = moves.conditions(model, [""])
        half = None if single else (halves or Halves()).of(model)
        for low in range(0, total, sampler.batch):
            batch = rows[low : low + sampler.batch]
            padded = batch + batch[-1:] * (sampler.batch - len(batch))
            noise = moves.initial_noise(model, [seed for _, seed in padded], height=sampler.height, width=sampler.width)
            prompted = encoded[[place[prompt.text] for prompt, _ in padded]]
            if replay is not None:
                x_0, drawn = replay.draw(model, noise, prompted, empty, steps=sampler.steps, guidance=sampler.guidance)
                _check_finite(sampler, x_0)
            else:
                own = None if half is None else half.predictions(model, prompted, empty, times)
                x_0 = moves.denoise(
                    model, noise, prompted, empty, steps=sampler.steps, guidance=sampler.guidance, predictions=own
                )
                pixels = moves.decode_pixels(model, x_0) if half is None else half.decode(model, x_0)
                _check_finite(sampler, x_0, pixels)
                drawn = moves.rounded(pixels)
            images.append(drawn[: len(batch)].cpu().numpy())
            if progress is not None:
                progress(min(low + sampler.batch, total), total)
    return np.concatenate(images)


def _check_finite(sampler: Sampler, *drawn: Tensor) -> None:
    """BuildError for a NaN or infinity, which would become a black image that judges call safe."""
    import torch

    if all(bool(torch.isfinite(one).all()) for one in drawn):
        return
    if sampler.arithmetic == "float16" and bool(torch.isfinite(drawn[0]).all()):
        raise NotInFloat16(
            sentence(
                "The autoencoder decodes to NaN or infinity in float16, so there is no image to judge.",
                latents="finite",
                do="Give a VAE that was made for float16 (for SDXL: sdxl-vae-fp16-fix), or for SDXL set force_upcast "
                "to true in vae/config.json; or draw in float32: --resurgence-set sampler.arithmetic=float32.",
            )
        )
    if sampler.arithmetic == "float16":
        raise NotInFloat16(
            sentence(
                "The model draws NaN or infinity in float16, so there is no image to judge.",
                steps=sampler.steps,
                guidance=sampler.guidance,
                do="Draw in float32: --resurgence-set sampler.arithmetic=float32, or in a gate's policy "
                "sampler: {arithmetic: float32}. If that gives NaN or infinity, too, the model itself is broken.",
            )
        )
    raise BuildError(
        sentence(
            "The model draws NaN or infinity, so there is no image to judge.",
            steps=sampler.steps,
            guidance=sampler.guidance,
            do="The step that made this model diverged: lower its learning rate or its strength.",
        )
    )


def _check(model: StableDiffusion, sampler: Sampler) -> None:
    """SpecError for sizes that the model cannot draw."""
    factor = model.latent_factor
    if sampler.height % factor or sampler.width % factor:
        raise SpecError(
            sentence(
                f"Images of {sampler.height} × {sampler.width} pixels cannot be drawn.",
                do=f"Height and width must be multiples of {factor}.",
            )
        )
