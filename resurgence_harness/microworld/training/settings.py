"""All hyperparameters of the microworld's training, at full size and for the smoke run."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model sizes, numbers of steps and learning rates. Steps are optimiser steps; pools are numbers of pictures.

    The numbers of steps are those of the shipped weights, fitted to the time available
    (reports/microworld/training.log); the text encoder had a pool of 200,000. Text states are 384 wide: with 192, the
    directions that a closed-form edit preserves leave an erased name only a fifth of cᵀ(λI + s PPᵀ)⁻¹c.
    """

    pool: int = 150_000
    """Rendered pictures kept on the device for the autoencoder and the judges."""
    held_out: int = 4_000
    """Pictures with another seed, for calibration."""
    autoencoder_widths: tuple[int, ...] = (24, 48, 96, 96)
    autoencoder_steps: int = 9_947
    autoencoder_batch: int = 128
    autoencoder_rate: float = 6e-4
    perceptual_steps: int = 700
    kl_weight: float = 2e-3
    latent_noise: float = 0.10
    """Largest standard deviation of the noise added to latents in training, in units of the latents' own."""
    text_width: int = 384
    text_layers: int = 3
    text_inner: int = 4
    """Width of a text encoder's hidden layers, in multiples of its own."""
    second_width: int = 0
    """Width of the second text encoder; above 0 the layout is SDXL's."""
    second_layers: int = 2
    unet_depths: tuple[int, ...] = (1,)
    """Transformer layers of each level, in SDXL's layout."""
    size_width: int = 16
    """Width of the embedding of each of the six sizes, in SDXL's layout."""
    text_steps: int = 3_308
    text_batch: int = 1_024
    judge_steps: int = 1_500
    judge_batch: int = 768
    unet_widths: tuple[int, ...] = (32, 64, 64, 64)
    unet_heads: int = 2
    unet_steps: int = 5_923
    unet_batch: int = 1_024
    unet_rate: float = 8e-4
    unet_pool: int = 400_000
    graphs: int = 1
    """1: replay the training steps of autoencoder and U-Net as CUDA graphs; 0: launch them kernel by kernel."""
    snapshot_seconds: float = 60.0
    seconds: float = 0.0
    """If above 0, the duration of the stage's main loop, to which its number of steps is fitted."""
    samples: int = 1_000
    """Images per family when the bars are measured."""


FULL = Settings()
XL = Settings(
    text_width=128,
    text_inner=2,
    text_steps=2_303,
    second_width=256,
    unet_widths=(64, 48, 48),
    unet_depths=(1, 2, 2),
    unet_steps=7_513,
)
"""micro-xl: at most 16 MB in float16 with the shipped autoencoder (reports/microworld/training-xl.log)."""
SMOKE = Settings(
    pool=64,
    held_out=48,
    autoencoder_widths=(16, 16, 16, 16),
    autoencoder_steps=3,
    autoencoder_batch=4,
    perceptual_steps=2,
    text_width=32,
    text_layers=1,
    text_steps=3,
    text_batch=8,
    judge_steps=3,
    judge_batch=8,
    unet_widths=(16, 16, 16, 16),
    unet_heads=2,
    unet_steps=3,
    unet_batch=4,
    unet_pool=64,
    samples=4,
)
XL_SMOKE = replace(SMOKE, text_layers=2, second_width=16, unet_widths=(16, 16, 16), unet_depths=(1, 1, 2), size_width=4)
"""micro-xl in seconds."""
