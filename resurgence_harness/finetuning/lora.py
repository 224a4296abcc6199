"""LoRA: a low-rank update of the frozen attention projections is trained, then merged into them.

Hu et al. LoRA: Low-Rank Adaptation of Large Language Models. ICLR 2022. https://arxiv.org/abs/2106.09685

    W' = W + (α / r) B A,     A [r, in] ~ N(0, 1/r²),     B [out, r] = 0,     α = r

on to_q, to_k, to_v and to_out.0 of attn1 and attn2, as diffusers' train_text_to_image_lora.py does. The recipe is that
of `contract`; learning rate 1e-4.

Departures   the result has plain weights W', as after `fuse_lora`, so that all later code gets an ordinary model. A is
             drawn on the CPU from the step's seed, not from the global random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion.model import tensors
from resurgence_harness.diffusion.parameters import Parameters, Projections, TextProjections, selected
from resurgence_harness.diffusion.ranges import whole
from resurgence_harness.diffusion.training import gradients
from resurgence_harness.finetuning.contract import FineTuning, train

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

ADAPTER = "resurgence"
"""peft's name for the adapter while it is trained."""


@final
@dataclass(frozen=True, kw_only=True)
class LoRA(FineTuning):
    """Train a low-rank adapter on the attention projections and merge it."""

    name: ClassVar[str] = "lora"
    version: ClassVar[int] = 1

    learning_rate: float = 1e-4
    """Initial learning rate of AdamW, > 0; changed by `schedule`."""
    rank: int = 4
    """r, columns of B and rows of A, ≥ 1."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        FineTuning.__post_init__(self)
        whole("LoRA", 1, rank=self.rank)

    @property
    def moves(self) -> Parameters:
        """The weights of the attention projections."""
        return Projections()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned, in plain weights."""

        with gradients(model, self.arithmetic, run):
            adapted = model.copy()
            layers = add_adapter(adapted, rank=self.rank, seed=self.seed)
            trained = [parameter for parameter in adapted.unet.parameters() if parameter.requires_grad]
            train(self, adapted, trained, run, result=lambda: merged(model, layers))
            return merged(model, layers)


def add_adapter(model: StableDiffusion, *, rank: int, seed: int, decomposed: bool = False) -> dict[str, Any]:
    """Add a new adapter to the UNet, in place. Returns peft's layers by the name of the adapted weight.

    `decomposed`: a DoRA instead of a LoRA.
    """
    return _adapted(model, "unet", Projections(), rank=rank, seed=seed, decomposed=decomposed)


def add_text_adapter(model: StableDiffusion, *, rank: int, seed: int) -> dict[str, Any]:
    """The same for the text encoders, which must be the model's own; each from the next seed."""
    layers: dict[str, Any] = {}
    for number, part in enumerate(model.family.encoders):
        layers |= _adapted(model, part, TextProjections(), rank=rank, seed=seed + number)
    return layers


def _adapted(
    model: StableDiffusion, part: str, rule: Parameters, *, rank: int, seed: int, decomposed: bool = False
) -> dict[str, Any]:
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    module = getattr(model, part)
    names = [name for name in selected(rule, tensors(model)) if name.startswith(f"{part}.")]
    targets = [name.removeprefix(f"{part}.").removesuffix(".weight") for name in names]
    config = LoraConfig(
        r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets, use_dora=decomposed
    )
    with torch.random.fork_rng():
        inject_adapter_in_model(config, module, adapter_name=ADAPTER)
    layers = {f"{part}.{target}.weight": module.get_submodule(target) for target in targets}
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for layer in layers.values():
            a = layer.lora_A[ADAPTER].weight
            a.copy_(torch.randn(a.shape, generator=generator) / rank)
    return layers


def merged(model: StableDiffusion, layers: dict[str, Any]) -> StableDiffusion:
    """A copy of the unadapted model in which each weight has its adapter's B A added."""
    import torch

    result = model.copy()
    weights = tensors(result)
    with torch.no_grad():
        for name, layer in layers.items():
            weights[name].add_(layer.get_delta_weight(ADAPTER))
    return result
