"""Full fine-tuning: every weight of the UNet is trained.

The stronger of the two usual fine-tunings. High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et
al., CVPR 2022, https://arxiv.org/abs/2112.10752) trains all weights; the recipe is that of `contract`, learning rate
1e-5 as in the README of diffusers' script.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion.parameters import Everything, Parameters
from resurgence_harness.finetuning.contract import FineTuning, train_selected

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class Full(FineTuning):
    """Train the whole UNet."""

    name: ClassVar[str] = "full"
    version: ClassVar[int] = 1

    @property
    def moves(self) -> Parameters:
        """Everything."""
        return Everything()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned."""
        return train_selected(self, model, run)
