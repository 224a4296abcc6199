"""Attention in half precision is as exact as TF32, of gradients that half precision has no numbers for as well."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.half_attention import attend, half_attention
from resurgence_harness.diffusion.model import StableDiffusion

pytestmark = pytest.mark.slow

TF32 = 2.0**-10
"""Bound on the relative rounding of a factor."""


def parts(*, width: int = 40) -> list[torch.Tensor]:
    """Q, K and V of 2 images, 4 heads; V has other places than Q."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 4, places, width, generator=generator, requires_grad=True) for places in (64, 30, 30)]


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e4])
def test_results_and_gradients_are_those_of_float32(size: float) -> None:
    """Gradients of 1e-9 are 0 in float16, and those of 1e4 are infinite where a few are summed; here neither."""
    q, k, v = parts()
    back = size * torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    exact = functional.scaled_dot_product_attention(q, k, v)
    aims = torch.autograd.grad(exact, (q, k, v), back)

    read = attend(q, k, v)
    found = torch.autograd.grad(read, (q, k, v), back)

    assert read.dtype == torch.float32
    for ours, theirs in zip((read, *found), (exact, *aims), strict=True):
        assert float(((ours - theirs).norm() / theirs.norm()).detach()) < TF32


def test_a_gradient_of_zero_stays_zero() -> None:
    """No scale is infinite."""
    q, k, v = parts()

    for gradient in torch.autograd.grad(attend(q, k, v), (q, k, v), torch.zeros_like(q)):
        assert bool((gradient == 0).all())


def test_numbers_beyond_the_range_are_not_hidden() -> None:
    """What float16 cannot hold ends in a NaN or infinity, which stops a training."""
    q, k, v = parts()

    assert not bool(torch.isfinite(attend(q, k, v * 1e6)).all())


def test_a_model_predicts_the_same_within_it(model: StableDiffusion) -> None:
    """A real UNet's attention goes through it, and nothing does after it; masks and wide heads are left alone."""
    x_t, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    states = moves.encode_texts(model, ["a portrait of ada quill"]).expand(2, -1, -1)
    with torch.no_grad():
        before = moves.predict(model, x_t, t, states)
        with half_attention():
            within = moves.predict(model, x_t, t, states)
            masked = functional.scaled_dot_product_attention(*parts(), attn_mask=torch.zeros(64, 30))
            wide = functional.scaled_dot_product_attention(*parts(width=512))
        after = moves.predict(model, x_t, t, states)

    assert torch.equal(before, after)
    assert 0 < float((within - before).norm() / before.norm()) < 1e-2
    assert torch.equal(masked, functional.scaled_dot_product_attention(*parts(), attn_mask=torch.zeros(64, 30)))
    assert torch.equal(wide, functional.scaled_dot_product_attention(*parts(width=512)))
