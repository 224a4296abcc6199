"""The weights of `micro-xl`: a Stable Diffusion XL in diffusers' layout, float16, every file pinned by sha256."""

from __future__ import annotations

from pathlib import Path

PINS: dict[str, str] = {}
"""sha256 of every file."""


def directory() -> Path:
    """The directory of the embedded SDXL, for `StableDiffusionXLPipeline.from_pretrained`."""
    return Path(__file__).parent
