"""Draws the images of a probe in batches, paired by (prompt, seed) across models.

The initial noise of an image depends only on its seed, the sampler is deterministic (DDIM, η = 0), and the batch's
shape is fixed (the last one is padded), so images of two models for the same probe differ only by the models' weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.precision import exact_products
from resurgence_harness.errors import BuildError, SpecError, sentence

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.replaying import Replays
    from resurgence_harness.specs import Sampler, SampleRequest


@exact_products()
def sample(
    model: StableDiffusion,
    probe: SampleRequest,
    *,
    progress: Callable[[int, int], None] | None = None,
    replays: Replays | None = None,
) -> np.ndarray:
    """Images uint8 [n, height, width, 3], in the order of `probe.rows()`. `progress(done, total)` counts images.

    `replays` may be given if the model's weights only change in place. BuildError for NaN or infinity in the latents.
    """
    import numpy as np
    import torch

    sampler, rows = probe.sampler, list(probe.rows())
    _check(model, sampler)
    total, images = len(rows), []
    replay = replays if replays is not None and replays.serves(model) else None
    with torch.inference_mode():
        texts = [prompt.text for prompt in probe.prompts]
        whole = {prompt.text for prompt in probe.prompts if not prompt.written}
        states = dict(zip(texts, moves.encode_texts(model, texts, may_be_cut=set(texts) - whole), strict=True))
        empty = moves.encode_texts(model, [""])
        for low in range(0, total, sampler.batch):
            batch = rows[low : low + sampler.batch]
            padded = batch + batch[-1:] * (sampler.batch - len(batch))
            noise = moves.initial_noise(model, [seed for _, seed in padded], height=sampler.height, width=sampler.width)
            prompted = torch.stack([states[prompt.text] for prompt, _ in padded])
            if replay is not None:
                x_0, drawn = replay.draw(model, noise, prompted, empty, steps=sampler.steps, guidance=sampler.guidance)
            else:
                x_0 = moves.denoise(model, noise, prompted, empty, steps=sampler.steps, guidance=sampler.guidance)
                drawn = moves.decode(model, x_0)
            _check_finite(x_0, sampler)
            images.append(drawn[: len(batch)].cpu().numpy())
            if progress is not None:
                progress(min(low + sampler.batch, total), total)
    return np.concatenate(images)


def _check_finite(x_0: Tensor, sampler: Sampler) -> None:
    """BuildError for a NaN or infinity, which would become a black image that judges call safe."""
    import torch

    if not bool(torch.isfinite(x_0).all()):
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
