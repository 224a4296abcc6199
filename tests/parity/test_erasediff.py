"""EraseDiff's losses, directions and updates are those of the authors' code; its λ departs (docs/parity.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.unlearning import EraseDiff, TextReplaced
from resurgence_harness.unlearning.erasediff import AdaptiveWeight, FixedWeight, inner, noised_batches, slope
from tests.parity import retraining_inputs as given
from tests.parity.given import agree, fingerprint, gradients, precise, recorded

pytestmark = pytest.mark.slow


def step(weight: FixedWeight | AdaptiveWeight) -> EraseDiff:
    """EraseDiff on the given pictures."""
    return EraseDiff(
        concepts=(given.CONCEPT,),
        forget=given.FORGET,
        retain=given.RETAIN,
        anchor=given.INSTEAD,
        pseudo=TextReplaced(),
        weight=weight,
        iterations=given.STEPS,
        batch=given.BATCH,
        learning_rate=given.RATE,
    )


Trained = tuple[StableDiffusion, list[np.ndarray], dict[str, Any]]


def trained(model: StableDiffusion, weight: FixedWeight | AdaptiveWeight) -> Trained:
    """The model after two updates, the directions that Adam was given, and the recorded facts."""
    facts: dict[str, Any] = {}
    with gradients([name for name, _ in model.unet.named_parameters()]) as seen:
        changed = step(weight).apply(model, given.run_of(model, record=facts.__setitem__))
    return changed, seen, facts


def test_losses_are_the_authors(base: StableDiffusion) -> None:
    """L_r and L_f of both updates, in float32; the second ones depend on the first update."""
    _, _, facts = trained(base, FixedWeight(value=1.0))
    ours = [[facts[moment][part] for moment in ("first step", "last step")] for part in ("retain", "forget")]

    agree("EraseDiff losses", ours, recorded("erasediff")["fixed losses"])


def test_directions_and_updates_are_the_authors(base: StableDiffusion) -> None:
    """δ of both updates at λ = 1, and what they add to every tensor, in float64."""
    model = precise(base)
    changed, seen, _ = trained(model, FixedWeight(value=1.0))

    agree("EraseDiff directions, float64", seen, recorded("erasediff")["fixed gradients"])
    agree(
        "EraseDiff updates, float64", fingerprint(given.changes(changed, model)), recorded("erasediff")["fixed changes"]
    )


def test_an_inner_loop_does_not_change_the_direction(base: StableDiffusion) -> None:
    """It adds a constant to the authors' loss: δ of the first update is the same with it."""
    with_it, without = recorded("erasediff")["inner gradients"], recorded("erasediff")["fixed gradients"][:1]

    agree("EraseDiff directions after the authors' inner loop", without, with_it)


def test_the_adaptive_weight_departs_as_written(base: StableDiffusion) -> None:
    """Ours divides ⟨∇L_f, ∇L_r⟩ by ‖∇L_f‖², as the paper; theirs by both norms, which makes it a cosine."""
    model = precise(base)
    run = given.run_of(model)
    trainable = [weight.requires_grad_(True) for weight in model.unet.parameters()]
    states = moves.encode_texts(model, [given.INSTEAD] * given.BATCH)
    found = []
    with torch.enable_grad():
        for probe, seed in ((given.FORGET, 0), (given.RETAIN, 1)):
            data = drawn_examples(model, run, probe)
            _, noised = next(noised_batches(model, data, given.BATCH, seed=seed))
            if probe == given.FORGET:
                with torch.no_grad():
                    noised = noised._replace(aim=moves.predict(model, noised.x_t, noised.t, states))
            found.append(slope(model, noised, trainable)[1])
    forget, retain = found
    along, square, other = inner(forget, retain), inner(forget, forget), inner(retain, retain)

    agree(
        "EraseDiff λ, the authors' formula",
        1 - along / (square * other) ** 0.5,
        recorded("erasediff")["adaptive weight"][0],
    )
    assert AdaptiveWeight(rate=1.0).of(retain=retain, forget=forget) == max(1 - along / square, 0)
