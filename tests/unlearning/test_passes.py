"""A batch that goes through in several passes has the losses and gradients of the whole, up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion import training
from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.unlearning.erasediff import noised_batches, slope
from resurgence_harness.unlearning.redirection import Weights, denoising_losses, redirected, redirection_losses
from resurgence_harness.unlearning.saliency import Guided, add_gradients, sensitivity
from tests.tiny import tiny_run
from tests.unlearning.test_erasediff import ADA, BRAM, CLEO, DOV, STEP, portraits

pytestmark = pytest.mark.slow

Gradients = tuple[float, list[torch.Tensor]]


def generator() -> torch.Generator:
    """The same noise in every pass size."""
    return torch.Generator().manual_seed(0)


def from_terms(model: StableDiffusion, terms: Iterator[torch.Tensor]) -> Gradients:
    """The sum, and its gradient."""
    total = 0.0
    for term in terms:
        total += float(term.detach())
        torch.autograd.backward(term)
    return total, [parameter.grad.clone() for parameter in model.unet.parameters()]


def repair(model: StableDiffusion) -> Gradients:
    """SalUn's and Scissorhands' bounded loss."""
    run, probe = tiny_run(model), portraits(ADA, DOV)
    forget, retain = drawn_examples(model, run, probe), drawn_examples(model, run, portraits(BRAM, CLEO))
    pseudo = redirected(model, probe, STEP._pseudo_texts())
    weights = Weights(forget=0.3, retain=1.0)
    losses = redirection_losses(model, forget, retain, pseudo, weights=weights, batch=3, generator=generator())
    return from_terms(model, iter(next(losses)))


def ascent(model: StableDiffusion) -> Gradients:
    """Scissorhands' unbounded one."""
    run = tiny_run(model)
    forget = drawn_examples(model, run, portraits(ADA, DOV))
    retain = drawn_examples(model, run, portraits(BRAM, CLEO))
    weights = Weights(forget=-0.3, retain=1.0)
    return from_terms(
        model, iter(next(denoising_losses(model, forget, retain, weights=weights, batch=3, generator=generator())))
    )


def saliency(model: StableDiffusion) -> Gradients:
    """The gradients that SalUn's mask is made of."""
    data = drawn_examples(model, tiny_run(model), portraits(ADA, DOV))
    add_gradients("SalUn", model, data, torch.arange(5), loss=Guided(), batch=4, generator=generator())
    return 0.0, [parameter.grad.clone() for parameter in model.unet.parameters()]


def trimmed(model: StableDiffusion) -> Gradients:
    """Scissorhands' sums of sizes: a batch's passes are one gradient before its signs are dropped."""
    data = drawn_examples(model, tiny_run(model), portraits(ADA, DOV))
    named = dict(model.unet.named_parameters())
    sums = sensitivity("SHS", model, named, data, torch.arange(6), loss=Guided(), batch=3, generator=generator())
    return 0.0, list(sums.values())


def constrained(model: StableDiffusion) -> Gradients:
    """EraseDiff's ∇L_r."""
    data = drawn_examples(model, tiny_run(model), portraits(BRAM, CLEO))
    _, x = next(noised_batches(model, data, 4, seed=0))
    loss, gradient = slope(model, x, list(model.unet.parameters()))
    return float(loss), list(gradient)


@pytest.mark.parametrize("found", [repair, ascent, saliency, trimmed, constrained])
def test_passes_add_up(
    load: Callable[[str], StableDiffusion], monkeypatch: pytest.MonkeyPatch, found: Callable[[Any], Gradients]
) -> None:
    """One row a pass, against all at once."""
    results = []
    for size in (training.PASS, 1):
        model = load("v1").copy()
        model.unet.requires_grad_(True)
        monkeypatch.setattr(training, "PASS", size)
        results.append(found(model))

    (loss, whole), (same, parts) = results
    assert same == pytest.approx(loss, rel=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in whole)
    assert scale > 0
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * scale)
