"""The parameter rules select what Stable Diffusion's own layers are called."""

from __future__ import annotations

import pytest

from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.parameters import (
    AnyOf,
    CrossAttention,
    Everything,
    NonCrossAttention,
    Parameters,
    Projections,
    StrictKeyValue,
    TwoSelfAttentions,
    selected,
)
from resurgence_harness.errors import SpecError

RULES: dict[str, tuple[Parameters, int, int]] = {
    "cross-attention": (CrossAttention(), 80, 43_962_560),
    "key-value": (StrictKeyValue(), 32, 19_169_280),
    "non-cross-attention": (NonCrossAttention(), 598, 813_495_680),
    "projections": (Projections(), 128, 93_511_680),
    "two-self-attentions": (TwoSelfAttentions(), 10, 8_193_920),
    "any-of": (AnyOf((StrictKeyValue(), CrossAttention(), TwoSelfAttentions())), 90, 43_962_560 + 8_193_920),
    "everything": (Everything(), 686, 859_520_964),
}
"""Tensors and numbers of SD v1.4 under each rule, on the official configuration."""


@pytest.fixture(scope="module")
def sd14() -> dict[str, int]:
    """Name → size of every tensor of SD v1.4's UNet, built without memory."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    return {f"unet.{name}": parameter.numel() for name, parameter in unet.named_parameters()}


@pytest.mark.parametrize("word", RULES)
def test_a_rule_selects_sds_tensors(sd14: dict[str, int], word: str) -> None:
    """Counts and sizes on SD v1.4 are those of the official code's subsets."""
    rule, count, size = RULES[word]

    chosen = selected(rule, sd14)

    assert rule.name == word
    assert (len(chosen), sum(sd14[name] for name in chosen)) == (count, size)


def test_the_tiny_model_has_sds_tensors(sd14: dict[str, int], model: StableDiffusion) -> None:
    """What is tested on the tiny model is tested on SD v1.4's layer names."""
    assert {name for name in tensors(model) if name.startswith("unet.")} == sd14.keys()


def test_no_rule_selects_the_text_encoder(model: StableDiffusion) -> None:
    """Everything means everything of the UNet."""
    names = [name for name in tensors(model) if name.startswith("text_encoder.")]

    assert names and not any(rule.selects(name) for rule, _, _ in RULES.values() for name in names)


def test_a_rule_that_selects_nothing_is_refused() -> None:
    """A step that would move nothing is a SpecError, not an unlearning."""
    with pytest.raises(SpecError, match='"cross-attention" select none'):
        selected(CrossAttention(), ["unet.conv_in.weight"])
