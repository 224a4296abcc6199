"""LoRA through peft: nothing at the start, the same fused as beside, and diffusers' own layers."""

from __future__ import annotations

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.errors import SpecError
from resurgence_harness.finetuning import BenignSet, LoRA
from resurgence_harness.finetuning.lora import ADAPTER, add_adapter, merged
from resurgence_harness.specs import Probe, Prompt

pytestmark = pytest.mark.slow


def _predictions(model: StableDiffusion) -> torch.Tensor:
    """What the model says on a fixed batch."""
    x = moves.initial_noise(model, [0, 1], height=64, width=64)
    states = moves.encode_texts(model, ["ada quill", "cleo marsh"])
    with torch.no_grad():
        return moves.predict(model, x, 500, states)


def test_a_fresh_adapter_changes_nothing(model: StableDiffusion) -> None:
    """B = 0: the adapted model answers as the plain one, bit for bit, and so does the merged one."""
    adapted = model.copy()

    layers = add_adapter(adapted, rank=4, seed=0)

    assert torch.equal(_predictions(adapted), _predictions(model))
    assert difference(merged(model, layers), model) == {}


def test_the_adapter_is_diffusers_own(model: StableDiffusion) -> None:
    """128 layers, A and B trainable and nothing else, A of standard deviation 1/r, scaling α/r = 1."""
    adapted = model.copy()

    layers = add_adapter(adapted, rank=4, seed=0)

    trained = [name for name, parameter in adapted.unet.named_parameters() if parameter.requires_grad]
    a = torch.cat([layer.lora_A[ADAPTER].weight.flatten() for layer in layers.values()])
    assert len(layers) == 128 and len(trained) == 256 and all("lora_" in name for name in trained)
    assert a.std().item() == pytest.approx(0.25, rel=0.02)
    assert all(layer.scaling[ADAPTER] == 1 for layer in layers.values())


def test_merged_is_the_same_as_beside(model: StableDiffusion) -> None:
    """With B ≠ 0, plain weights W + B A answer as the adapted model within 1e-4, and as diffusers' fuse_lora."""
    adapted = model.copy()
    layers = add_adapter(adapted, rank=4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in layers.values():
            b = layer.lora_B[ADAPTER].weight
            b.copy_(0.1 * torch.randn(b.shape, generator=generator))

    plain = merged(model, layers)

    beside = _predictions(adapted)
    assert (beside - _predictions(model)).abs().max() > 1e-2
    torch.testing.assert_close(_predictions(plain), beside, atol=1e-4, rtol=1e-4)
    assert tensors(plain).keys() == tensors(model).keys()
    assert len(difference(plain, model)) == 128


def test_the_adapter_depends_on_its_seed_alone(model: StableDiffusion) -> None:
    """A is the seed's, the global state is neither used nor moved."""
    random = torch.get_rng_state()
    one, two, three = (add_adapter(model.copy(), rank=2, seed=seed) for seed in (0, 0, 1))
    name = next(iter(one))

    assert torch.equal(one[name].lora_A[ADAPTER].weight, two[name].lora_A[ADAPTER].weight)
    assert not torch.equal(one[name].lora_A[ADAPTER].weight, three[name].lora_A[ADAPTER].weight)
    assert torch.equal(random, torch.get_rng_state())


def test_a_rank_must_be_a_whole_number() -> None:
    """Rank 0 trains nothing."""
    data = BenignSet(probe=Probe(prompts=(Prompt(text="a", concept="a"),), seeds=(0,)))
    with pytest.raises(SpecError, match=r"LoRA\.rank must be"):
        LoRA(data=data, rank=0)
