"""Weights of the denoising loss of a fine-tuning, by the timestep of each image.

Hang et al. Efficient Diffusion Training via Min-SNR Weighting Strategy. ICCV 2023. https://arxiv.org/abs/2303.09556

    SNR(t) = a_t² / s_t² = ᾱ_t / (1 − ᾱ_t)
    w_t = min(SNR(t), γ) / SNR(t) for an ε-model,     min(SNR(t), γ) / (SNR(t) + 1) for a v-model

Section 3.4 has w_t = min(SNR, γ) for a model that predicts x_0; section 4.2 converts it to ε and v. The same as
--snr_gamma of diffusers' scripts (huggingface/diffusers 58eb52c, examples/text_to_image/train_text_to_image.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.ranges import positive

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


@final
@dataclass(frozen=True)
class Unweighted:
    """Every timestep counts the same, the default of diffusers' scripts."""

    name: ClassVar[str] = "unweighted"


@final
@dataclass(frozen=True, kw_only=True)
class MinSNR:
    """Timesteps with little noise count less: min-SNR-γ."""

    name: ClassVar[str] = "min-snr"

    gamma: float = 5.0
    """γ > 0, the largest signal-to-noise ratio that counts in full; 5 in the paper and in diffusers' help."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        positive("MinSNR", gamma=self.gamma)

    def at(self, model: StableDiffusion, t: Tensor) -> Tensor:
        """w_t of each timestep, [n]."""
        alpha = moves.on_device(model.scheduler.alphas_cumprod, t.device)[t]
        return model.prediction.capped(alpha / (1 - alpha), self.gamma)


Weighting = Unweighted | MinSNR
