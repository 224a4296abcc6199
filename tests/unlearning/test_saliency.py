"""The k-th largest without a sort, masks in bits, images of concepts in turn, and the losses whose gradients count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, drawn_examples, noised
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import BuildError
from resurgence_harness.unlearning.saliency import (
    Denoising,
    Guided,
    add_gradients,
    balanced,
    kth_largest,
    largest,
    ones,
    packed,
    sensitivity,
    unpacked,
)
from tests.tiny import NAMES, portraits, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _forget(model: StableDiffusion) -> Examples:
    return drawn_examples(model, tiny_run(model), portraits(NAMES[:2]))


def _mask(bits: dict[str, Tensor], tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([unpacked(bits[name], value.shape).flatten() for name, value in tensors.items()])


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_the_kth_largest_is_a_sorts(scale: float) -> None:
    """At both ends and between, over tensors of any shape, near the ends of float32 too."""
    tensors = [_numbers(7, 11).abs() * scale, _numbers(13, seed=1).abs() * scale, _numbers(2, 3, 5, seed=2).abs()]
    flat = torch.cat([part.flatten() for part in tensors]).sort(descending=True).values

    for k in (1, 2, 50, len(flat) - 1, len(flat)):
        assert kth_largest(lambda: tensors, k) == (flat[k - 1].item(), 1)


def test_ties_are_counted_and_fill_the_mask_in_order() -> None:
    """Of 0 2 2 1 2 0 the three largest end in a tie of three; with one place fewer the first two are taken."""
    tensors = {"a": torch.tensor([0.0, -2.0, 2.0]), "b": torch.tensor([1.0, 2.0, 0.0])}
    sizes = [part.abs() for part in tensors.values()]

    assert kth_largest(lambda: sizes, 2) == (2.0, 2)
    assert kth_largest(lambda: sizes, 6) == (0.0, 2)
    assert _mask(largest(tensors, 1 / 3), tensors).tolist() == [0, 1, 1, 0, 0, 0]
    assert _mask(largest(tensors, 5 / 6), tensors).tolist() == [1, 1, 1, 1, 1, 0]
    assert _mask(largest(tensors, 1.0), tensors).tolist() == [1] * 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_a_build_error(bad: float) -> None:
    """It would be the most salient of all."""
    with pytest.raises(BuildError, match="A gradient is not finite"):
        kth_largest(lambda: [torch.tensor([1.0, bad])], 1)


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5), (2, 3, 4, 5)])
def test_masks_come_back_from_their_bits(shape: tuple[int, ...]) -> None:
    """One bit an entry, whatever the shape."""
    mask = _numbers(*shape) > 0

    bits = packed(mask)

    assert bits.dtype == torch.uint8 and len(bits) == -(-mask.numel() // 8)
    assert torch.equal(unpacked(bits, shape).bool(), mask)
    assert ones([bits, packed(~mask)]) == mask.numel()


def test_a_mask_knows_neither_the_sign_nor_the_scale_of_the_loss() -> None:
    """(c) G, −G and 4 G have one mask, of exactly the share that was asked for."""
    gradients = {"a": _numbers(31, 7), "b": _numbers(10, seed=1)}

    bits = largest(gradients, 0.5)

    assert ones(bits.values()) == round(0.5 * 227)
    for factor in (-1.0, 4.0, -0.25):
        other = largest({name: factor * value for name, value in gradients.items()}, 0.5)
        assert all(torch.equal(bits[name], other[name]) for name in bits)


@pytest.mark.parametrize("style", ["v1", "v2"])
@pytest.mark.parametrize("loss", [Denoising(), Guided(), Guided(guidance=2.0)])
def test_gradients_are_those_of_the_formula(load: Load, style: str, loss: Denoising | Guided) -> None:
    """In ε, whatever the model predicts; two batches add up to the mean over all images."""
    model = load(style).copy()
    model.unet.requires_grad_(True)
    data = _forget(model)
    rows = torch.tensor([3, 0, 1])

    add_gradients("SalUn", model, data, rows, loss=loss, batch=2, generator=_generator())
    found = [parameter.grad.clone() for parameter in model.unet.parameters()]
    model.unet.zero_grad(set_to_none=True)

    total: Any = 0.0
    generator = _generator()
    g = loss.guidance if isinstance(loss, Guided) else 0.0
    for part in (rows[:2], rows[2:]):
        seen = noised(model, data, part, generator=generator)
        empty = moves.encode_texts(model, [""] * len(part))
        said = (1 + g) * moves.predict(model, seen.x_t, seen.t, seen.states)
        said = said - g * moves.predict(model, seen.x_t, seen.t, empty) if g else said
        if style == "v2":
            said, aim = moves.signal(model, seen.t) * said, moves.signal(model, seen.t) * seen.aim
        else:
            aim = seen.aim
        total = total + ((said - aim) ** 2).mean(dim=(1, 2, 3)).sum() / 3
    total.backward()
    scale = max(parameter.grad.abs().max() for parameter in model.unet.parameters())
    for gradient, parameter in zip(found, model.unet.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5 * float(scale))


def test_a_batchs_gradients_lose_their_sign_before_they_are_summed(load: Load) -> None:
    """Σ_b |∇L_b|, not |Σ_b ∇L_b|: of two batches, for the weights that were asked for, and no gradient is left."""
    model = load("v1").copy()
    named = dict(model.unet.named_parameters())
    weights = {name: named[name] for name in ("conv_in.weight", "conv_out.bias")}
    data, rows = _forget(model), torch.arange(4)

    sums = sensitivity("SHS", model, weights, data, rows, loss=Denoising(), batch=2, generator=_generator())

    assert all(parameter.grad is None and not parameter.requires_grad for parameter in named.values())
    generator = _generator()
    expected = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    signed = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for part in (rows[:2], rows[2:]):
        for weight in weights.values():
            weight.requires_grad_(True).grad = None
        seen = noised(model, data, part, generator=generator)
        (Denoising().errors(model, seen, seen.states).sum() / 4).backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            expected[name] += weight.grad.abs()
            signed[name] += weight.grad
    for name in weights:
        torch.testing.assert_close(sums[name], expected[name])
        assert (sums[name] > 1.01 * signed[name].abs()).any()


def test_a_loss_that_is_not_finite_is_a_build_error(load: Load) -> None:
    """A broken model has no saliency."""
    model = load("v1").copy()
    data = _forget(model)
    model.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(BuildError, match="SalUn's saliency is not finite"):
        add_gradients("SalUn", model, data, torch.arange(2), loss=Denoising(), batch=2, generator=_generator())


def test_concepts_come_in_turn() -> None:
    """However unequal their images are, each is looked at equally often (± 1), and its images in turn as well."""
    concepts = ["a"] * 6 + ["b"] * 2 + ["c"]

    rows = balanced(concepts, 10, generator=_generator())

    assert sorted(Counter(concepts[row] for row in rows).values()) == [3, 3, 4]
    assert {int(row) for row in rows if concepts[row] == "b"} == {6, 7}
    assert len({int(row) for row in rows if concepts[row] == "a"}) >= 3
    assert torch.equal(rows, balanced(concepts, 10, generator=_generator()))
    assert not torch.equal(rows, balanced(concepts, 10, generator=_generator(1)))
