"""Cross-attention-only fine-tuning: only the layers that attend to the text are trained.

The subset of Custom Diffusion (Kumari et al., CVPR 2023, https://arxiv.org/abs/2212.04488) widened to all of attn2 (q,
k, v and the output), as the resurgence paper (https://arxiv.org/abs/2410.08074) uses it; the recipe is that of
`contract`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion.parameters import CrossAttention, Parameters
from resurgence_harness.finetuning.contract import FineTuning, train_selected

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class CrossAttentionOnly(FineTuning):
    """Train every attn2 layer."""

    name: ClassVar[str] = "xattn"
    version: ClassVar[int] = 1

    @property
    def moves(self) -> Parameters:
        """Every attn2 tensor."""
        return CrossAttention()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned."""
        return train_selected(self, model, run)
