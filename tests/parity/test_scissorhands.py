"""Scissorhands' scores, cuts, losses, gradients and projection are those of the authors' code (docs/parity.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import TwoSelfAttentions, selected
from resurgence_harness.unlearning import SHS, TextReplaced
from resurgence_harness.unlearning.projection import GradientMemory, NoProjection
from resurgence_harness.unlearning.redirection import Weights, denoising_losses, redirected, redirection_losses
from resurgence_harness.unlearning.saliency import Denoising, Guided, balanced, sensitivity
from resurgence_harness.unlearning.scissorhands import (
    Ascend,
    KaimingUniform,
    Redirect,
    TruncatedNormal,
    threshold,
    trim,
)
from tests.parity import retraining_inputs as given
from tests.parity.given import agree, fingerprint, precise, recorded

pytestmark = pytest.mark.slow

SCRIPTS: dict[str, dict[str, Any]] = {
    "nsfw": {"saliency": Denoising(), "redraw": KaimingUniform(), "repair": Redirect()},
    "class": {"saliency": Guided(), "redraw": TruncatedNormal(), "repair": Ascend()},
}
"""What the two scripts do."""


def step(script: str) -> SHS:
    """SHS as one of the authors' two scripts runs it: they never call their projection."""
    return SHS(
        concepts=(given.CONCEPT,),
        forget=given.FORGET,
        retain=given.RETAIN,
        anchor=given.INSTEAD,
        pseudo=TextReplaced(),
        sparsity=given.SPARSITY,
        trim_batches=given.LOOKS,
        projection=NoProjection(),
        forget_weight=given.LAMBDA,
        iterations=given.STEPS,
        batch=given.BATCH,
        learning_rate=given.RATE,
        **SCRIPTS[script],
    )


Cut = tuple[StableDiffusion, dict[str, Any], dict[str, Tensor], float, int, Generator]


def cut(base: StableDiffusion, script: str) -> Cut:
    """The trimmed model in float64, its weights, their scores' gradients, τ, how many were cut, and the generator."""
    model, shs = precise(base), step(script)
    generator = torch.Generator().manual_seed(0)
    rows = balanced([given.CONCEPT.name] * 4, given.LOOKS * given.BATCH, generator=generator)
    weights: dict[str, Any] = {f"unet.{name}": weight for name, weight in model.unet.named_parameters()}
    data = drawn_examples(model, given.run_of(model), given.FORGET)
    with torch.enable_grad():
        sums = sensitivity("SHS", model, weights, data, rows, loss=shs.saliency, batch=given.BATCH, generator=generator)
    scores = {name.removeprefix("unet."): weights[name].detach().abs() * sums[name] for name in weights}
    single = [{name: value.detach().float() for name, value in part.items()} for part in (weights, sums)]
    tau = threshold(single[0], single[1], given.SPARSITY)
    scope = {name: weights[name] for name in selected(TwoSelfAttentions(), weights)}
    count = trim(scope, sums, tau, redraw=shs.redraw, generator=generator)
    return model, scope, scores, tau, count, generator


@pytest.mark.parametrize("script", SCRIPTS)
def test_scores_cuts_and_gradients_are_the_authors(base: StableDiffusion, script: str) -> None:
    """Connection scores of every weight, τ, what is drawn anew, and the gradient of the repair's first update."""
    model, scope, scores, tau, count, generator = cut(base, script)
    theirs = recorded("scissorhands")
    run = given.run_of(model)
    forget, retain = (drawn_examples(model, run, probe) for probe in (given.FORGET, given.RETAIN))
    model.unet.requires_grad_(True)
    if script == "nsfw":
        pseudo = redirected(model, given.FORGET, (given.INSTEAD,))
        weights = Weights(forget=given.LAMBDA, retain=1.0)
        losses = redirection_losses(
            model, forget, retain, pseudo, weights=weights, batch=given.BATCH, generator=generator
        )
    else:
        weights = Weights(forget=-given.LAMBDA, retain=1.0)
        losses = denoising_losses(model, forget, retain, weights=weights, batch=given.BATCH, generator=generator)
    with torch.enable_grad():
        for term in next(losses):
            torch.autograd.backward(term)
    slopes = {name: weight.grad for name, weight in model.unet.named_parameters()}

    # Our sum is over means of all images looked at, theirs over means of one batch: a factor that no ranking sees.
    agree(f"SHS {script}, scores, float64", given.LOOKS * fingerprint(scores), theirs[f"{script} scores"])
    agree(f"SHS {script}, threshold", given.LOOKS * tau, theirs[f"{script} threshold"])
    trimmed = np.concatenate([weight.detach().numpy().ravel() for weight in scope.values()])
    agree(f"SHS {script}, trimmed weights, float64", trimmed, theirs[f"{script} trimmed"])
    agree(f"SHS {script}, gradient, float64", fingerprint(slopes), theirs[f"{script} gradients"][0])
    assert (theirs[f"{script} cut"] == count).all()


@pytest.mark.parametrize("script", SCRIPTS)
def test_losses_are_the_authors(base: StableDiffusion, script: str) -> None:
    """The whole of `SHS.apply` in float32: as many weights cut, and the loss of both updates."""
    facts: dict[str, Any] = {}
    step(script).apply(base, given.run_of(base, record=facts.__setitem__))
    theirs = recorded("scissorhands")

    agree(f"SHS {script}, losses", list(facts["loss"].values()), theirs[f"{script} losses"])
    assert facts["entries cut"] == theirs[f"{script} cut"][0]


def test_the_projection_is_that_of_gems_quadratic_program() -> None:
    """Where it is called for; with the ridge of their solver."""
    theirs = recorded("scissorhands")
    called = 0
    for gradient, memory, projected in zip(
        theirs["gem gradients"], theirs["gem memories"], theirs["gem projected"], strict=True
    ):
        if gradient @ memory >= 0:  # GEM does not project here; their function is not asked
            continue
        ours = torch.from_numpy(gradient.copy())
        GradientMemory(margin=0.5, ridge=1e-3).project([ours], [torch.from_numpy(memory)])
        agree("SHS projection", ours, projected)
        called += 1
    assert called >= 2
