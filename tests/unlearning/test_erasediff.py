"""EraseDiff: the multiplier's two properties, both losses for ε and v, plain fine-tuning at λ = 0, and its sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, Noised, drawn_examples
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import Everything, NonCrossAttention, Parameters, StrictKeyValue
from resurgence_harness.errors import BuildError, SpecError, UserError
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.unlearning import AdaptiveWeight, EraseDiff, FixedWeight, erasediff
from resurgence_harness.unlearning.erasediff import (
    constrained_weight,
    direction,
    inner,
    noised_batches,
    slope,
    with_gradient,
)
from resurgence_harness.unlearning.redirection import TextReplaced
from tests.tiny import NAMES, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

ADA, DOV = (Concept(name=name, kind="a celebrity") for name in (NAMES[0], NAMES[4]))
BRAM, CLEO = (Concept(name=name, kind="a celebrity") for name in (NAMES[1], NAMES[3]))


def portraits(*concepts: Concept, seeds: tuple[int, ...] = (1, 2)) -> Probe:
    """What the base is asked to draw pictures of some concepts."""
    prompts = tuple(
        Prompt(text=text.format(concept.name), concept=concept.name)
        for concept in concepts
        for text in ("a portrait of {}", "{} in an official photo")
    )
    return Probe(prompts=prompts, seeds=seeds, sampler=Sampler(steps=2, batch=4))


STEP = EraseDiff(
    concepts=(ADA, DOV),
    forget=portraits(ADA, DOV),
    retain=portraits(BRAM, CLEO),
    iterations=2,
    batch=4,
    learning_rate=1e-4,
)


def _gradients(seed: int) -> list[Tensor]:
    """Three tensors, as of a layer or two."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (16, 8), (16,))]


def _batch(model: StableDiffusion, probe: Probe, *, seed: int, size: int = 4) -> tuple[Tensor, Noised]:
    """The first noised batch of a probe's images, and the text of each."""
    data = drawn_examples(model, tiny_run(model), probe)
    rows, x = next(noised_batches(model, data, size, seed=seed))
    return data.text[rows], x


def _aimed(student: StableDiffusion, text: Tensor, x: Noised) -> Noised:
    """The batch with the student's own prediction for the pseudo prompts as its target."""
    with torch.no_grad():
        return x._replace(
            aim=moves.predict(student, x.x_t, x.t, moves.encode_texts(student, STEP._pseudo_texts())[text])
        )


def _loss(student: StableDiffusion, x: Noised) -> Tensor:
    """w_t ‖ f_θ(x_t, t, c) − aim ‖²."""
    weight = moves.signal(student, x.t) ** 2 if student.prediction_type == "v_prediction" else 1.0
    return (weight * (moves.predict(student, x.x_t, x.t, x.states) - x.aim) ** 2).mean()


# The constraint


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("lean", [-2.0, -0.5, 0.0, 0.5, 2.0])
def test_the_step_descends_the_forget_loss_fast_enough(rate: float, lean: float) -> None:
    """(a) ⟨δ, ∇L_f⟩ ≥ η ‖∇L_f‖², with equality where λ > 0, at whatever angle the two gradients stand."""
    forget = _gradients(0)
    retain = [ours + lean * theirs for ours, theirs in zip(_gradients(1), forget, strict=True)]
    bound = rate * inner(forget, forget)

    weight = AdaptiveWeight(rate=rate).of(retain=retain, forget=forget)
    step = direction([slope.clone() for slope in retain], forget, weight=weight)

    assert inner(step, forget) >= bound * (1 - 1e-5) - 1e-4
    assert (weight > 0) == (inner(retain, forget) < bound)
    if weight:
        assert inner(step, forget) == pytest.approx(bound, rel=1e-5, abs=1e-3)
    else:  # and δ is ∇L_r, bit for bit
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(step, retain, strict=True))


def test_the_weight_is_the_smallest_that_suffices() -> None:
    """Orthogonal gradients give η; a conflict more, agreement less, down to 0; a flat forget loss asks for nothing."""
    assert constrained_weight(0.0, 4.0, rate=0.3) == 0.3
    assert constrained_weight(-2.0, 4.0, rate=0.3) == pytest.approx(0.8)
    assert constrained_weight(1.0, 4.0, rate=0.3) == pytest.approx(0.05)
    assert constrained_weight(4.0, 4.0, rate=0.3) == 0.0
    assert constrained_weight(0.0, 0.0, rate=0.3) == 0.0
    assert math.isnan(constrained_weight(math.nan, math.nan, rate=0.3))  # and descent stops, instead of going on at 0


def test_a_fixed_weight_looks_at_nothing() -> None:
    """The authors' code: the same λ for any two gradients."""
    assert FixedWeight(value=0.7).of(retain=_gradients(0), forget=_gradients(1)) == 0.7
    assert FixedWeight().value == 1.0


def test_a_scalar_carries_the_gradient_it_is_given() -> None:
    """Its value is the loss, its gradient δ bit for bit."""
    parameters = [slope.requires_grad_(True) for slope in _gradients(0)]
    slopes = _gradients(1)

    loss = with_gradient(torch.tensor(0.25), parameters, slopes)
    torch.autograd.backward(loss)

    assert loss.item() == 0.25
    assert all(torch.equal(p.grad, slope) for p, slope in zip(parameters, slopes, strict=True) if p.grad is not None)
    assert all(p.grad is not None for p in parameters)


# The losses


def test_a_slope_owes_nothing_to_the_step_before(model: StableDiffusion) -> None:
    """What the optimiser left at the parameters is not added to it, and nothing is left there."""
    student = model.copy()
    student.unet.requires_grad_(True)
    parameters = list(student.unet.parameters())
    _, x = _batch(student, portraits(BRAM), seed=0)
    loss, clean = slope(student, x, parameters)
    expected = torch.autograd.grad(_loss(student, x), parameters)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 7.0)

    again, gradient = slope(student, x, parameters)

    assert float(again) == float(loss) and all(parameter.grad is None for parameter in parameters)
    for ours, theirs, other in zip(gradient, clean, expected, strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, other)


def _first(step: EraseDiff, model: StableDiffusion) -> dict[str, Any]:
    """Facts that the step recorded."""
    facts: dict[str, Any] = {}
    step.apply(model, tiny_run(model, record=facts.__setitem__))
    return facts


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_the_first_step_is_the_formulas(load: Load, style: str) -> None:
    """L_r, L_f, λ and the loss that descent is told, on the first batches; with sg, as a plain backward pass has it."""
    model = load(style)
    step = replace(STEP, subset=StrictKeyValue(), iterations=1)
    facts = _first(step, model)

    copied = model.copy()
    copied.unet.requires_grad_(True)
    named = [p for name, p in copied.unet.named_parameters() if StrictKeyValue().selects(f"unet.{name}")]
    losses = [
        _loss(copied, _aimed(copied, *_batch(model, step.forget, seed=0))),
        _loss(copied, _batch(model, step.retain, seed=1)[1]),
    ]
    forget, retain = (list(torch.autograd.grad(loss, named)) for loss in losses)
    weight = max(0.0, 1.0 - inner(forget, retain) / inner(forget, forget))

    first = facts["first step"]
    assert first["forget"] == pytest.approx(losses[0].item(), rel=1e-4)
    assert first["retain"] == pytest.approx(losses[1].item(), rel=1e-4)
    assert first["weight"] == pytest.approx(weight, rel=1e-3)
    assert facts["loss"]["first"] == pytest.approx(first["retain"] + first["weight"] * first["forget"], rel=1e-5)
    assert facts["samples seen"] == 8 and first == facts["last step"]
    assert facts["steps without forgetting"] == int(weight == 0)


def test_velocity_losses_are_those_of_noise(load: Load) -> None:
    """a_t² ‖Δv‖² = ‖Δε‖² at a fixed x_t, for a denoising target as for another prompt's prediction."""
    model = load("v2")
    shape = (3, 4, 8, 8)
    x_0, noise, said = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    t = torch.tensor([1, 501, 981])
    a = moves.signal(model, t)
    x_t = moves.add_noise(model, x_0, noise, t)

    heard_noise = a * said + (1 - a**2).sqrt() * x_t  # ε = a v + s x_t

    error = a**2 * (said - moves.target(model, x_0, noise, t)) ** 2
    torch.testing.assert_close(error, (heard_noise - noise) ** 2, rtol=1e-3, atol=1e-3)


def test_without_weight_it_is_plain_fine_tuning_on_the_retain_set(model: StableDiffusion) -> None:
    """(c) λ = 0 gives, bit for bit, what Adam makes of the denoising loss alone."""
    ours = replace(STEP, weight=FixedWeight(value=0.0), iterations=3).apply(model, tiny_run(model))

    plain = model.copy()
    adam = torch.optim.Adam(plain.unet.requires_grad_(True).parameters(), lr=STEP.learning_rate, fused=True)
    data = drawn_examples(model, tiny_run(model), STEP.retain)
    for _, (_, x) in zip(range(3), noised_batches(model, data, 4, seed=1), strict=False):
        adam.zero_grad()
        torch.autograd.backward(_loss(plain, x))
        adam.step()

    assert difference(ours, plain) == {}


def test_a_fixed_weight_is_the_sum_of_the_losses(model: StableDiffusion) -> None:
    """L_r + λ L_f, one backward pass: the direction of the first step is that of its gradient."""
    step = replace(STEP, weight=FixedWeight(value=0.5), iterations=1)
    ours = tensors(step.apply(model, tiny_run(model)))

    plain = model.copy()
    named = {f"unet.{name}": p.requires_grad_(True) for name, p in plain.unet.named_parameters()}
    forget = _loss(plain, _aimed(plain, *_batch(model, step.forget, seed=0)))
    retain = _loss(plain, _batch(model, step.retain, seed=1)[1])
    torch.autograd.backward(retain + 0.5 * forget)

    # A first step of Adam is the sign of the gradient, where that is not nearly zero.
    before = tensors(model)
    agree = [
        (ours[name] - before[name])[p.grad.abs() > 1e-5].sign() == -p.grad[p.grad.abs() > 1e-5].sign()
        for name, p in named.items()
        if p.grad is not None
    ]
    assert torch.cat(agree).float().mean() > 0.999


def _held(model: StableDiffusion, base: StableDiffusion) -> tuple[float, float]:
    """L_f and L_r on a fixed noised batch of the images that the base drew."""
    text, x = _batch(base, STEP.forget, seed=99, size=16)
    _, kept = _batch(base, STEP.retain, seed=99, size=16)
    with torch.no_grad():
        return float(_loss(model, _aimed(model, text, x))), float(_loss(model, kept))


def test_the_concept_is_forgotten_and_the_rest_retained(model: StableDiffusion) -> None:
    """(d) On a fixed batch L_f falls and L_r does not rise; retaining alone does not lower L_f."""
    longer = replace(STEP, iterations=12, batch=8, learning_rate=3e-4)
    alone = replace(longer, weight=FixedWeight(value=0.0))

    before = _held(model, model)
    forget, retain = _held(longer.apply(model, tiny_run(model)), model)
    forget_alone, _ = _held(alone.apply(model, tiny_run(model)), model)

    assert forget < 0.8 * min(before[0], forget_alone)
    assert retain < before[1]


# What moves, and in what order


@pytest.mark.parametrize(("subset", "count"), [(Everything(), 686), (NonCrossAttention(), 598), (StrictKeyValue(), 32)])
def test_the_subset_moves_and_nothing_else(model: StableDiffusion, subset: Parameters, count: int) -> None:
    """(e) 686 tensors by default, 598 as for unsafe content; the others keep their bits."""
    step = replace(STEP, subset=subset, iterations=1)

    moved = difference(step.apply(model, tiny_run(model)), model)

    assert len(moved) == count and all(subset.selects(name) for name in moved)
    assert STEP.subset == Everything()


def test_every_forget_image_is_seen(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one batch again and again: in two steps of four, all eight images of either set are met."""
    seen: list[list[int]] = []

    def spy(model: StableDiffusion, data: Examples, batch: int, *, seed: int) -> Any:
        own: list[int] = []
        seen.append(own)
        for rows, x in noised_batches(model, data, batch, seed=seed):
            own.extend(rows.tolist())
            yield rows, x

    monkeypatch.setattr(erasediff, "noised_batches", spy)
    STEP.apply(model, tiny_run(model))

    assert len(seen) == 2
    for rows in seen:  # the next batch may have been drawn already
        assert sorted(rows[:8]) == list(range(8))


def test_a_run_is_the_beginning_of_a_longer_one(model: StableDiffusion) -> None:
    """Nothing is reset on the way: training longer passes through the same models."""
    losses: dict[int, list[float]] = {2: [], 4: []}
    for iterations, seen in losses.items():
        run = tiny_run(model, progress=lambda done, total, loss, seen=seen: seen.append(loss))
        replace(STEP, subset=StrictKeyValue(), iterations=iterations).apply(model, run)

    assert losses[4][:2] == losses[2]


def test_two_seeds_give_two_models(model: StableDiffusion) -> None:
    """The seed reaches the order of the images and the noise."""
    short = replace(STEP, iterations=1, subset=StrictKeyValue())

    assert difference(short.apply(model, tiny_run(model)), replace(short, seed=1).apply(model, tiny_run(model)))


# What is asked


def test_the_pseudo_prompt_is_the_prompt_with_the_anchor() -> None:
    """The concept's own kind unless an anchor is given, in the name's place or alone."""
    assert STEP._pseudo_texts() == 2 * ("a portrait of a celebrity", "a celebrity in an official photo")
    assert replace(STEP, anchor="a person")._pseudo_texts()[:2] == (
        "a portrait of a person",
        "a person in an official photo",
    )
    assert set(replace(STEP, anchor="a photo of a person", pseudo=TextReplaced())._pseudo_texts()) == {
        "a photo of a person"
    }


def test_updates_follow_the_erase_set_on_request() -> None:
    """160 by default, whatever the number of concepts; a hundred concepts are one union."""
    many = tuple(Concept(name=f"name {index}", kind="a celebrity") for index in range(100))
    step = EraseDiff(concepts=many, forget=portraits(*many), retain=STEP.retain)

    assert step.updates == 160 and len(step._pseudo_texts()) == 200
    assert replace(step, iterations_per_concept=3).updates == 300


def test_sets_that_contradict_each_other_are_refused() -> None:
    """A concept nobody asks for, a prompt for something else, an erased name to be retained, an anchor that is one."""
    with pytest.raises(SpecError, match='no forget images of "dov ferris"'):
        replace(STEP, forget=portraits(ADA))
    with pytest.raises(SpecError, match='a prompt for "bram quill", which is not erased'):
        replace(STEP, forget=portraits(ADA, DOV, BRAM))
    with pytest.raises(SpecError, match='retain set has a prompt for the erased "dov ferris"'):
        replace(STEP, retain=portraits(BRAM, Concept(name="Dov  Ferris")))
    with pytest.raises(SpecError, match='has no anchor for "ada quill"'):
        replace(STEP, concepts=(Concept(name=ADA.name), DOV))
    with pytest.raises(SpecError, match='still names the erased "dov ferris"'):
        replace(STEP, anchor="a man like Dov Ferris")
    assert replace(STEP, retain=portraits(Concept(name="ada stone"), Concept(name="adam quill"))).retain


def test_an_anchor_that_does_not_fit_is_a_users_error(model: StableDiffusion) -> None:
    """c' goes through the same door as every text, before any image is drawn."""

    def images(probe: Probe) -> Any:
        raise AssertionError("nothing should be drawn")

    with pytest.raises(UserError, match="does not fit the base model"):
        replace(STEP, anchor="a portrait of " * 8).apply(model, tiny_run(model, images=images))


def test_divergence_is_a_build_error(model: StableDiffusion) -> None:
    """An absurd learning rate ends in a sentence that names the step, never in a stored NaN."""
    with pytest.raises(BuildError, match="EraseDiff's training diverged at step"):
        replace(STEP, learning_rate=1e30, subset=StrictKeyValue()).apply(model, tiny_run(model))


def test_parameters_that_select_nothing_are_refused(model: StableDiffusion) -> None:
    """A rule without tensors would train nothing and call it unlearned."""

    class Nothing(Parameters):
        name = "nothing"

        def selects(self, name: str) -> bool:
            return False

    with pytest.raises(SpecError, match='"nothing" select none'):
        replace(STEP, subset=Nothing()).apply(model, tiny_run(model))


@pytest.mark.parametrize(
    "bad", [{"iterations": 0}, {"batch": 2.5}, {"learning_rate": 0.0}, {"iterations_per_concept": -1}, {"seed": -1}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"EraseDiff.{next(iter(bad))} must be"):
        replace(STEP, **bad)


def test_weights_out_of_range_are_refused() -> None:
    """A negative λ would teach the concept anew."""
    with pytest.raises(SpecError, match=r"AdaptiveWeight\.rate must be"):
        AdaptiveWeight(rate=-0.1)
    with pytest.raises(SpecError, match=r"FixedWeight\.value must be"):
        FixedWeight(value=float("nan"))
