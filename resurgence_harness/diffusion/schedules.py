"""Checks from a scheduler's config alone that images can be drawn with it. Needs no torch.

A model that predicts noise cannot be used at a timestep without signal: x₀ = (x_t − √(1−ᾱ) ε) / √ᾱ divides by zero at
ᾱ = 0. "rescale_betas_zero_snr" puts ᾱ of the last step there (Lin et al. 2023), for models that predict velocity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.tensor_files import shown
from resurgence_harness.errors import UserError, sentence


def check_schedule(settings: Mapping[str, Any], path: Path) -> None:
    """UserError if the settings of a scheduler lead to a division by zero; `path` is their file."""
    predicted = settings.get("prediction_type", "epsilon")
    betas = settings.get("trained_betas")
    noisy = isinstance(betas, list) and any(not isinstance(one, int | float) or not 0 <= one < 1 for one in betas)
    ends = [settings.get(name, 0.0) for name in ("beta_start", "beta_end")]
    odd = noisy or any(not isinstance(one, int | float) or not 0 <= one < 1 for one in ends)
    zero = bool(settings.get("rescale_betas_zero_snr")) and predicted == "epsilon"
    if zero or odd:
        setting = "rescale_betas_zero_snr = true" if zero else f"betas from {ends[0]} to {ends[1]}"
        raise UserError(
            sentence(
                f"The scheduler {path} divides by zero, so nothing can be drawn with it.",
                setting=shown(setting if not noisy or zero else "trained_betas outside 0 ≤ β < 1"),
                prediction_type=shown(str(predicted)),
                do="Give the scheduler_config.json that the model was trained with: a schedule that ends in pure noise "
                "is for models that predict velocity.",
            )
        )
