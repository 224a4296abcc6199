"""ESD: its two conventions, its targets for ε and v, its pool of samples, and that it steers away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion, difference
from resurgence_harness.diffusion.parameters import CrossAttention, Everything, Parameters
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.specs import Concept
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning import ESD
from resurgence_harness.unlearning.esd import esd_target
from resurgence_harness.unlearning.trajectories import Trajectories, draw
from tests.tiny import NAMES, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

ADA, BRAM = Concept(name=NAMES[0]), Concept(name=NAMES[1])
STEP = ESD(
    concepts=(ADA,),
    iterations=40,
    batch=16,
    learning_rate=3e-4,
    trajectories=4,
    trajectory_steps=4,
    subset=Everything(),
)


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_newer_codes_eta_is_one_more() -> None:
    """(a) new(η) = f*(c) − η [f*(c) − f*(c_0)] is this file's target at η − 1; new(1) is f*(c_0)."""
    empty, prompted = _noise(2, 4, 8, 8), _noise(2, 4, 8, 8, seed=1)
    for eta in (0.0, 1.0, 2.0, 3.5):
        newer = prompted - eta * (prompted - empty)
        torch.testing.assert_close(esd_target(empty, prompted, away=eta - 1), newer, rtol=1e-6, atol=1e-6)

    assert torch.equal(esd_target(empty, prompted, away=0.0), empty)


def test_the_target_is_the_same_statement_about_velocity(load: Load) -> None:
    """ε-target turned into v is the target of the v-predictions, and a_t² ‖Δv‖² = ‖Δε‖²."""
    model = load("v2")
    x_t, said, empty, prompted = (_noise(3, 4, 8, 8, seed=seed) for seed in range(4))
    a = moves.signal(model, torch.tensor([1, 501, 981]))
    s = (1 - a**2).sqrt()

    def velocity(noise: Tensor) -> Tensor:
        return noise / a - s / a * x_t

    aim = esd_target(empty, prompted, away=1.0)
    in_v = esd_target(velocity(empty), velocity(prompted), away=1.0)

    torch.testing.assert_close(in_v, velocity(aim), rtol=1e-4, atol=1e-3)
    error = a**2 * (velocity(said) - in_v) ** 2
    torch.testing.assert_close(error, (said - aim) ** 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_the_first_loss_is_the_formulas(load: Load, style: str) -> None:
    """Before the first update f_θ is f*, so the loss is w_t (1 + η)² ‖f*(c) − f*(c_0)‖² on the batch."""
    model = load(style)
    facts: dict[str, Any] = {}
    step = replace(STEP, iterations=1, batch=16, trajectories=4, away=0.5)

    step.apply(model, tiny_run(model, record=facts.__setitem__))

    pool = draw(model, _spec(step))
    error = (1.5 * (pool["prompted"] - pool["empty"])) ** 2
    weight = moves.signal(model, pool["t"]) ** 2 if style == "v2" else 1.0
    assert facts["samples in pool"] == 16 == len(error)
    assert facts["loss"]["first"] == pytest.approx(float((weight * error).mean()), rel=1e-3)


def _spec(step: ESD) -> Trajectories:
    """The pool that the step asks the store for."""
    return Trajectories(
        model="tiny",
        texts=step.texts,
        each=-(-step.trajectories // len(step.texts)),
        steps=step.trajectory_steps,
        guidance=step.guidance,
        seed=step.seed,
    )


def test_the_pool_is_the_frozen_models_guided_trajectories(model: StableDiffusion) -> None:
    """(e) Every x_t has its own t, and prompted and empty are f*(c) and f*(c_0) there, whatever the batch was."""
    spec = replace(_spec(replace(STEP, concepts=(ADA, BRAM), trajectories=6)), seed=5)

    pool = draw(model, spec, batch=4)

    states, empty = moves.encode_texts(model, spec.texts), moves.encode_texts(model, [""])
    with torch.no_grad():
        prompted = moves.predict(model, pool["x_t"], pool["t"], states[pool["text"]])
        nothing = moves.predict(model, pool["x_t"], pool["t"], empty.expand(len(pool["t"]), -1, -1))
    torch.testing.assert_close(pool["prompted"], prompted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(pool["empty"], nothing, rtol=1e-3, atol=1e-4)
    assert sorted(pool["t"].tolist()) == sorted(6 * moves.timesteps(model, 4))
    assert pool["text"].bincount().tolist() == [12, 12]
    first = pool["x_t"][pool["t"] == max(pool["t"])]
    assert torch.equal(first, moves.initial_noise(model, range(5, 11), height=64, width=64))


def test_a_pool_is_shared_by_runs_that_differ_in_training_alone(model: StableDiffusion) -> None:
    """Its key holds neither subset, η, learning rate, iterations nor batch, but the frozen model and the texts."""
    asked: list[tuple[str, object]] = []

    def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        asked.append((kind, spec))
        return build()

    short = replace(STEP, iterations=1)
    other: Parameters = CrossAttention()
    for step in (short, replace(short, subset=other, away=0.0, learning_rate=1e-4, iterations=2, batch=2)):
        step.apply(model, tiny_run(model, cached=cached))
    for parent in ("elsewhere", "tiny"):
        replace(short, concepts=(BRAM,) if parent == "tiny" else (ADA,)).apply(
            model, tiny_run(model, cached=cached, parent_digest=parent)
        )

    keys = [key(kind, spec) for kind, spec in asked]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_model_steers_away_from_the_concept(model: StableDiffusion) -> None:
    """(c, d) The loss falls by 30 % and more; cos(f_θ(c) − f*(c_0), f*(c) − f*(c_0)) falls from 1 to below 0."""
    pool = draw(model, _spec(STEP))
    states = moves.encode_texts(model, STEP.texts)
    away = (pool["prompted"] - pool["empty"]).flatten(1)
    aim = esd_target(pool["empty"], pool["prompted"], away=1.0)
    cosines, losses = [], []
    for iterations in (0, 5, 10, 20):
        step = replace(STEP, iterations=max(iterations, 1))
        trained = step.apply(model, tiny_run(model)) if iterations else model
        with torch.no_grad():
            said = moves.predict(trained, pool["x_t"], pool["t"], states[pool["text"]])
        cosines.append(float(torch.cosine_similarity((said - pool["empty"]).flatten(1), away).mean()))
        losses.append(float(((said - aim) ** 2).mean()))

    assert cosines[0] == pytest.approx(1, abs=1e-3)
    assert cosines == sorted(cosines, reverse=True) and cosines[-1] < 0
    assert losses[-1] < 0.7 * losses[0]


def test_without_going_away_the_concept_becomes_the_empty_text(model: StableDiffusion) -> None:
    """(f) At η = 0, f_θ(c) approaches f*(c_0)."""
    pool = draw(model, _spec(STEP))
    states = moves.encode_texts(model, STEP.texts)

    trained = replace(STEP, away=0.0, iterations=30).apply(model, tiny_run(model))

    with torch.no_grad():
        said = moves.predict(trained, pool["x_t"], pool["t"], states[pool["text"]])
    before = (pool["prompted"] - pool["empty"]).norm()
    assert (said - pool["empty"]).norm() < 0.7 * before


def test_a_run_is_the_beginning_of_a_longer_one(model: StableDiffusion) -> None:
    """Training twice as long passes through the same models: the order of samples does not depend on their number."""
    losses: dict[int, list[float]] = {3: [], 6: []}
    for iterations, seen in losses.items():
        run = tiny_run(model, progress=lambda done, total, loss, seen=seen: seen.append(loss))
        replace(STEP, iterations=iterations).apply(model, run)

    assert losses[6][:3] == losses[3]


def test_iterations_and_samples_are_declared() -> None:
    """Steps are max(iterations, iterations_per_concept × n), samples steps × batch, texts concept × template."""
    step = replace(STEP, concepts=(ADA, BRAM), templates=("{}", "a portrait of {}"))

    assert (step.updates, step.samples) == (40, 640)
    assert replace(step, iterations_per_concept=30).updates == 60
    assert step.texts == ("ada quill", "a portrait of ada quill", "bram quill", "a portrait of bram quill")


def test_divergence_is_a_build_error(model: StableDiffusion) -> None:
    """An absurd learning rate ends in a sentence that names the step, never in a stored NaN."""
    with pytest.raises(BuildError, match="ESD's training diverged at step"):
        replace(STEP, learning_rate=1e30).apply(model, tiny_run(model))


def test_parameters_that_select_nothing_are_refused(model: StableDiffusion) -> None:
    """A rule without tensors would train nothing and call it unlearned."""

    class Nothing(Parameters):
        name = "nothing"

        def selects(self, name: str) -> bool:
            return False

    with pytest.raises(SpecError, match='"nothing" select none'):
        replace(STEP, subset=Nothing()).apply(model, tiny_run(model))


@pytest.mark.parametrize(
    "bad",
    [{"iterations": 0}, {"batch": 2.5}, {"learning_rate": 0.0}, {"away": -1.0}, {"trajectories": 0}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"ESD.{next(iter(bad))} must be"):
        replace(STEP, **bad)


def test_two_seeds_give_two_models(model: StableDiffusion) -> None:
    """The seed reaches the trajectories and the order of samples."""
    short = replace(STEP, iterations=2)

    assert difference(short.apply(model, tiny_run(model)), replace(short, seed=1).apply(model, tiny_run(model)))
