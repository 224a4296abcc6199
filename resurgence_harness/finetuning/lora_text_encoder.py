"""LoRA of the U-Net and of the text encoder: low-rank updates of both, trained together, then merged.

Hu et al. LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022. https://arxiv.org/abs/2106.09685, equation 3

    W' = W + (α / r) B A,     A [r, in] ~ N(0, 1/r²),     B [out, r] = 0,     α = r

on the attention projections of the U-Net, as `lora`, and on q_proj, k_proj, v_proj and out_proj of every layer of the
text encoder. Source: huggingface/diffusers 58eb52c, examples/dreambooth/train_dreambooth_lora.py with
--train_text_encoder: one learning rate, and one norm for the gradients of both. The recipe is that of `contract`,
except that text states are computed anew for each batch.

Departures   as `lora`: merged into plain weights afterwards, A drawn from the step's seed, first the U-Net's, then the
             text encoder's. Trained on captioned images without DreamBooth's prior (dreambooth.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.model import tensors
from resurgence_harness.diffusion.parameters import AnyOf, Parameters, Projections, TextProjections
from resurgence_harness.diffusion.ranges import whole
from resurgence_harness.diffusion.training import gradients
from resurgence_harness.finetuning.contract import FineTuning, train
from resurgence_harness.finetuning.lora import ADAPTER, add_adapter, add_text_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class LoRATextEncoder(FineTuning):
    """Train low-rank adapters on the attention projections of U-Net and text encoder and merge them."""

    name: ClassVar[str] = "lora-te"
    version: ClassVar[int] = 1

    learning_rate: float = 1e-4
    """Initial learning rate of AdamW for both adapters, > 0; changed by `schedule`."""
    rank: int = 4
    """r, columns of B and rows of A, ≥ 1."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        FineTuning.__post_init__(self)
        whole("LoRATextEncoder", 1, rank=self.rank)

    @property
    def moves(self) -> Parameters:
        """The weights of the attention projections of both."""
        return AnyOf(rules=(Projections(), TextProjections()))

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned, in plain weights."""

        with gradients(model, self.arithmetic, run):
            adapted = with_own_text_encoder(model)
            layers = add_adapter(adapted, rank=self.rank, seed=self.seed)
            layers |= add_text_adapter(adapted, rank=self.rank, seed=self.seed + 1)
            trained = [
                parameter
                for part in (adapted.unet, *adapted.encoders)
                for parameter in part.parameters()
                if parameter.requires_grad
            ]
            train(self, adapted, trained, run, result=lambda: merged(model, layers), encode=_encoder(adapted))
            return merged(model, layers)


def with_own_text_encoder(model: StableDiffusion) -> StableDiffusion:
    """A copy of the model whose text encoders may be changed as well."""
    return model.copy(texts=True)


def merged(model: StableDiffusion, layers: dict[str, Any]) -> StableDiffusion:
    """A copy of the unadapted model in which each weight has its adapter's B A added."""
    import torch

    result = with_own_text_encoder(model)
    weights = tensors(result)
    with torch.no_grad():
        for name, layer in layers.items():
            weights[name].add_(layer.get_delta_weight(ADAPTER))
    return result


def _encoder(model: StableDiffusion) -> Callable[[Sequence[str]], Callable[[Tensor], Conditions]]:
    """What `train` needs to compute text states with gradients."""

    def prepared(texts: Sequence[str]) -> Callable[[Tensor], Conditions]:
        # Long captions were cut or refused when the data were read.
        ids = moves.text_ids(model, texts, may_be_cut=frozenset(texts))

        def states(rows: Tensor) -> Conditions:
            return moves.read_texts(model, [each[rows.to(each.device)] for each in ids])

        return states

    return prepared
