"""DoRA: the frozen attention projections get a low-rank update of their direction and a trained magnitude.

Liu et al. DoRA: Weight-Decomposed Low-Rank Adaptation. ICML 2024. https://arxiv.org/abs/2402.09353, equations 5 and 11

    W' = m ⊙ (W + (α / r) B A) / ‖W + (α / r) B A‖,     m = ‖W‖ and B = 0 at the start,     A as in LoRA, α = r

‖·‖ and m have one value per output, the norm over a row of [out, in], as in the authors' code and in peft. The norm is
a constant in the backward pass (section 4.3). On the layers of `lora`; the recipe is that of `contract`.

Source: huggingface/diffusers 58eb52c, examples/advanced_diffusion_training/train_dreambooth_lora_sd15_advanced.py with
--use_dora: its adapter and its defaults.

Departures   as `lora`: merged into plain weights afterwards, A drawn from the step's seed. Trained on captioned images
             without DreamBooth's prior (dreambooth.py). Weight decay 1e-2, theirs 1e-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion.model import tensors
from resurgence_harness.diffusion.parameters import Parameters, Projections
from resurgence_harness.diffusion.ranges import whole
from resurgence_harness.diffusion.training import gradients
from resurgence_harness.finetuning.contract import FineTuning, train
from resurgence_harness.finetuning.lora import ADAPTER, add_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class DoRA(FineTuning):
    """Train a weight-decomposed low-rank adapter on the attention projections and merge it."""

    name: ClassVar[str] = "dora"
    version: ClassVar[int] = 1

    learning_rate: float = 1e-4
    """Initial learning rate of AdamW, > 0; changed by `schedule`."""
    rank: int = 4
    """r, columns of B and rows of A, ≥ 1."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        FineTuning.__post_init__(self)
        whole("DoRA", 1, rank=self.rank)

    @property
    def moves(self) -> Parameters:
        """The weights of the attention projections."""
        return Projections()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned, in plain weights."""

        with gradients(model, self.arithmetic, run):
            adapted = model.copy()
            layers = add_adapter(adapted, rank=self.rank, seed=self.seed, decomposed=True)
            trained = [parameter for parameter in adapted.unet.parameters() if parameter.requires_grad]
            train(self, adapted, trained, run, result=lambda: decomposed(model, layers))
            return decomposed(model, layers)


def decomposed(model: StableDiffusion, layers: dict[str, Any]) -> StableDiffusion:
    """A copy of the unadapted model whose weights are those of the adapted layers."""
    import torch

    result = model.copy()
    weights = tensors(result)
    with torch.no_grad():
        for name, layer in layers.items():
            magnitude = layer.lora_magnitude_vector[ADAPTER].weight
            weights[name].copy_(rescaled(weights[name], layer.get_delta_weight(ADAPTER), magnitude))
    return result


def rescaled(weight: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
    """m ⊙ (W + ΔW) / ‖W + ΔW‖: W, ΔW [out, in], m [out]."""
    import torch

    direction = weight + delta
    scale: Tensor = magnitude / torch.linalg.norm(direction, dim=1)
    return scale[:, None] * direction
