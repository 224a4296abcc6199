"""Scissorhands: what is cut and what becomes of it, the projection's promise, both repairs, and that it repairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import drawn_examples, noised
from resurgence_harness.diffusion.model import StableDiffusion, difference, tensors
from resurgence_harness.diffusion.parameters import CrossAttention, Parameters, StrictKeyValue, TwoSelfAttentions
from resurgence_harness.errors import BuildError, SpecError
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning import (
    SHS,
    Ascend,
    GradientMemory,
    Guided,
    KaimingUniform,
    NoProjection,
    TruncatedNormal,
)
from resurgence_harness.unlearning.projection import inner, turn
from resurgence_harness.unlearning.saliency import balanced, sensitivity
from resurgence_harness.unlearning.scissorhands import threshold, trim
from tests.tiny import NAMES, portraits, tiny_run

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

ADA, BRAM = (Concept(name=name, kind="a celebrity") for name in NAMES[:2])
STEP = SHS(
    concepts=(ADA, BRAM),
    forget=portraits(NAMES[:2]),
    retain=portraits(NAMES[3:6]),
    sparsity=0.9,
    trim_batches=2,
    iterations=1,
    batch=2,
    learning_rate=1e-4,
)
STILL = replace(STEP, learning_rate=1e-60, projection=NoProjection())
"""A step whose repair is too small for float32: what it returns is the trimmed model."""


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def _scope(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and Σ_b |∇L_b| of three tensors."""
    shapes = {"to_q.weight": (6, 5), "to_out.0.bias": (9,), "norm.weight": (7,)}
    weights = {name: _numbers(*shape, seed=seed + len(name)) for name, shape in shapes.items()}
    return weights, {name: _numbers(*value.shape, seed=99).abs() for name, value in weights.items()}


def test_only_the_most_sensitive_entries_are_cut() -> None:
    """(a) Those with |θ| Σ|∇| above τ, as a sort finds it; biases become 0, scales of norms 1; they are counted."""
    weights, sums = _scope()
    before = {name: value.clone() for name, value in weights.items()}
    scores = {name: before[name].abs() * sums[name] for name in before}
    flat = torch.cat([score.flatten() for score in scores.values()]).sort().values

    tau = threshold(weights, sums, 0.75)
    cut = trim(weights, sums, tau, redraw=KaimingUniform(), generator=_generator())

    assert tau == flat[int(0.75 * 46) - 1].item()
    assert cut == 46 - int(0.75 * 46) == sum(int((weights[name] != before[name]).sum()) for name in weights)
    for name, score in scores.items():
        assert torch.equal(weights[name] != before[name], score > tau)
        assert (score > tau).any(), name
    assert (weights["to_out.0.bias"][scores["to_out.0.bias"] > tau] == 0).all()
    assert (weights["norm.weight"][scores["norm.weight"] > tau] == 1).all()


def test_the_ends_of_sparsity() -> None:
    """(b) At 1 nothing is cut, at 0 everything is, entries that no gradient reaches as well."""
    for sparsity, cut in ((1.0, 0), (0.0, 46)):
        weights, sums = _scope()
        sums["to_q.weight"].zero_()
        before = {name: value.clone() for name, value in weights.items()}
        tau = threshold(weights, sums, sparsity)
        assert trim(weights, sums, tau, redraw=TruncatedNormal(), generator=_generator()) == cut
        assert all(torch.equal(weights[name], before[name]) == (cut == 0) for name in weights)


@pytest.mark.parametrize("redraw", [KaimingUniform(), TruncatedNormal(), TruncatedNormal(std=0.5)])
def test_new_weights_are_seeded_and_of_their_distribution(redraw: KaimingUniform | TruncatedNormal) -> None:
    """(c) Twice the same from one seed, other ones from another; what an entry becomes does not depend on τ."""
    drawn = []
    for seed, share in ((0, 0.0), (0, 0.0), (1, 0.0), (0, 0.5)):
        weights = {"to_q.weight": _numbers(300, 200)}
        sums = {"to_q.weight": torch.ones(300, 200)}
        trim(weights, sums, threshold(weights, sums, share), redraw=redraw, generator=_generator(seed))
        drawn.append(weights["to_q.weight"])

    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    changed = drawn[3] != _numbers(300, 200)
    assert int(changed.sum()) == 30_000 and torch.equal(drawn[3][changed], drawn[0][changed])
    deviation = redraw.std if isinstance(redraw, TruncatedNormal) else (2 / 200) ** 0.5
    assert drawn[0].std() == pytest.approx(deviation, rel=0.02)
    bound = 2 if isinstance(redraw, TruncatedNormal) else (6 / 200) ** 0.5
    assert drawn[0].abs().max() <= bound


@pytest.mark.parametrize("style", ["v1", "v2"])
@pytest.mark.parametrize("ranked", ["unet", "scope"])
def test_the_model_is_cut_in_its_scope_alone(load: Load, style: str, ranked: str) -> None:
    """(a) As the formula says, over all of the UNet or over the scope; the count is recorded."""
    model = load(style)
    step = STILL if ranked == "unet" else replace(STILL, ranked=TwoSelfAttentions())
    facts: dict[str, Any] = {}

    changed = step.apply(model, tiny_run(model, record=facts.__setitem__))

    copied = model.copy()
    named: dict[str, Any] = {f"unet.{name}": value for name, value in copied.unet.named_parameters()}
    weights = {name: value for name, value in named.items() if step.ranked.selects(name)}
    data = drawn_examples(model, tiny_run(model), step.forget)
    generator = _generator()
    rows = balanced(["ada", "ada", "bram", "bram"], 4, generator=generator)
    sums = sensitivity("SHS", copied, weights, data, rows, loss=step.saliency, batch=2, generator=generator)
    scores = {name: (value.detach().abs() * sums[name]) for name, value in weights.items()}
    flat = torch.cat([score.flatten() for score in scores.values()]).sort().values
    tau = flat[int(0.9 * len(flat)) - 1]
    moved = difference(changed, model)
    above = {name: score > tau for name, score in scores.items() if TwoSelfAttentions().selects(name)}
    assert moved.keys() == {name for name, mask in above.items() if mask.any()}
    for name, value in moved.items():
        assert torch.equal(value != tensors(model)[name], above[name]), name
    assert facts["entries cut"] == sum(int(mask.sum()) for mask in above.values()) > 0
    if ranked == "scope":
        assert facts["entries cut"] == len(flat) - int(0.9 * len(flat))


def test_a_projected_gradient_never_goes_against_its_memory() -> None:
    """(d) ⟨g', m⟩ ≥ 0; where it was so before, g' has g's bits; elsewhere v is at least γ."""
    turned = 0
    for seed in range(20):
        for size in (1e-6, 1.0, 1e3):
            gradients = [_numbers(5, 4, seed=seed), _numbers(3, seed=seed + 100)]
            memory = [size * _numbers(5, 4, seed=seed + 200), size * _numbers(3, seed=seed + 300)]
            before = [gradient.clone() for gradient in gradients]
            along = inner(before, memory)
            v = GradientMemory().project(gradients, memory)
            if along >= 0:
                assert v == 0 and all(torch.equal(a, b) for a, b in zip(gradients, before, strict=True))
            else:
                turned += 1
                assert v >= 0.5
                for gradient, old, remembered in zip(gradients, before, memory, strict=True):
                    torch.testing.assert_close(gradient, old + v * remembered)
            scale = (inner(gradients, gradients) * inner(memory, memory)) ** 0.5
            assert inner(gradients, memory) >= -1e-6 * scale
    assert 10 < turned < 50


def test_the_closed_form_solves_gems_program() -> None:
    """v minimises ½ v² (‖m‖² + ρ) + v ⟨g, m⟩ over v ≥ γ, as a fine grid finds it."""
    grid = torch.linspace(0.5, 50, 100_000, dtype=torch.float64)
    for along, square, ridge in ((-0.1, 2.0, 0.0), (-8.0, 2.0, 0.0), (-8.0, 2.0, 1e-3), (-3.0, 0.1, 1e-1)):
        best = grid[(0.5 * grid**2 * (square + ridge) + grid * along).argmin()].item()
        assert turn(along, square, margin=0.5, ridge=ridge) == pytest.approx(best, abs=1e-3)
    assert turn(0.0, 1.0, margin=0.5, ridge=0.0) == turn(3.0, 1.0, margin=0.5, ridge=0.0) == 0


def test_the_memory_is_the_trimmed_models_ascent(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """m = ∇(−L_u) over the images of the trim, unchanged through all steps; each step's gradient is turned by it."""
    met: list[tuple[list[Tensor], float, list[Tensor], list[Tensor]]] = []
    project = GradientMemory.project

    def watched(self: GradientMemory, gradients: list[Tensor], memory: list[Tensor]) -> float:
        before = [gradient.clone() for gradient in gradients]
        v = project(self, gradients, memory)
        met.append((before, v, [gradient.clone() for gradient in gradients], [part.clone() for part in memory]))
        return v

    monkeypatch.setattr(GradientMemory, "project", watched)
    facts: dict[str, Any] = {}
    step = replace(STEP, subset=CrossAttention(), iterations=2)
    step.apply(model, tiny_run(model, record=facts.__setitem__))

    assert len(met) == 2 and facts["steps projected"] == sum(v > 0 for _, v, _, _ in met) > 0
    assert all(torch.equal(a, b) for a, b in zip(met[0][3], met[1][3], strict=True))
    assert all(inner(after, memory) >= 0 for _, _, after, memory in met)
    # The trimmed model, and the stream of noise where the trim left it.
    trimmed = STILL.apply(model, tiny_run(model))
    copied = model.copy()
    data = drawn_examples(model, tiny_run(model), step.forget)
    generator = _generator()
    rows = balanced(["ada", "ada", "bram", "bram"], 4, generator=generator)
    named: dict[str, Any] = {f"unet.{name}": value for name, value in copied.unet.named_parameters()}
    sums = sensitivity("SHS", copied, named, data, rows, loss=step.saliency, batch=2, generator=generator)
    scope = {name: value for name, value in named.items() if TwoSelfAttentions().selects(name)}
    trim(scope, sums, threshold(named, sums, 0.9), redraw=step.redraw, generator=generator)
    assert difference(copied, trimmed) == {}
    trained = [value.requires_grad_(True) for name, value in named.items() if CrossAttention().selects(name)]
    for part in (rows[:2], rows[2:]):
        seen = noised(copied, data, part, generator=generator)
        error = (moves.predict(copied, seen.x_t, seen.t, seen.states) - seen.aim) ** 2
        (error.mean() / -2).backward()
    for parameter, remembered in zip(trained, met[0][3], strict=True):
        torch.testing.assert_close(parameter.grad, remembered, rtol=1e-3, atol=1e-6)


def test_the_repair_moves_every_tensor_and_lowers_the_retain_loss(model: StableDiffusion) -> None:
    """(e) After it, the denoising loss on retain images is under that of the trimmed model; all of the UNet moves."""
    run = tiny_run(model)
    data = drawn_examples(model, run, STEP.retain)
    step = replace(STEP, iterations=20, batch=4, projection=NoProjection())
    trimmed, repaired = replace(step, iterations=1, learning_rate=1e-60).apply(model, run), step.apply(model, run)

    losses = []
    for changed in (trimmed, repaired):
        generator = _generator(7)
        with torch.no_grad():
            seen = noised(changed, data, torch.arange(6).repeat(4), generator=generator)
            said = moves.predict(changed, seen.x_t, seen.t, seen.states)
        losses.append(float(((said - seen.aim) ** 2).mean()))
    assert losses[1] < 0.9 * losses[0]
    assert len(difference(repaired, model)) == sum(name.startswith("unet.") for name in tensors(model))


def test_both_repairs_start_from_the_formulas_loss(model: StableDiffusion) -> None:
    """L_r + λ L_f and L_r − λ L_u: with twice the λ the change of the first loss doubles, with the formula's sign."""
    first: dict[tuple[str, float], float] = {}
    for repair in (STEP.repair, Ascend()):
        for weight in (0.0, 1.0, 2.0):
            facts: dict[str, Any] = {}
            step = replace(STILL, repair=repair, forget_weight=weight)
            step.apply(model, tiny_run(model, record=facts.__setitem__))
            first[repair.name, weight] = facts["loss"]["first"]

    assert first["redirect", 0.0] == pytest.approx(first["ascend", 0.0], rel=1e-6)
    for repair, sign in (("redirect", 1), ("ascend", -1)):
        change = first[repair, 1.0] - first[repair, 0.0]
        assert sign * change > 0
        assert first[repair, 2.0] - first[repair, 0.0] == pytest.approx(2 * change, rel=1e-3)


def test_ascent_needs_no_anchor() -> None:
    """Without one Redirect is refused, Ascend is not."""
    nameless = tuple(replace(concept, kind="") for concept in STEP.concepts)
    with pytest.raises(SpecError, match='SHS has no anchor for "ada quill"'):
        replace(STEP, concepts=nameless)
    replace(STEP, concepts=nameless, repair=Ascend())


@pytest.mark.parametrize("repair", [STEP.repair, Ascend()])
def test_divergence_is_a_build_error(model: StableDiffusion, repair: Any) -> None:
    """(f) The guard stops at the first loss that is not finite; nothing is returned."""
    step = replace(STEP, repair=repair, learning_rate=1e30, iterations=5, projection=NoProjection())
    with pytest.raises(BuildError, match="SHS's training diverged at step"):
        step.apply(model, tiny_run(model))


def test_nothing_cut_is_a_build_error(model: StableDiffusion) -> None:
    """Then the method would be a repair of what was never broken."""
    step = replace(STEP, scope=StrictKeyValue(), ranked=TwoSelfAttentions())
    with pytest.raises(BuildError, match='SHS cut nothing in "key-value"'):
        step.apply(model, tiny_run(model))


@pytest.mark.parametrize("which", ["subset", "scope", "ranked"])
def test_parameters_that_select_nothing_are_refused(model: StableDiffusion, which: str) -> None:
    """A rule without tensors cuts or trains nothing."""

    class Nothing(Parameters):
        name = "nothing"

        def selects(self, name: str) -> bool:
            return False

    rule: dict[str, Any] = {which: Nothing()}
    with pytest.raises(SpecError, match='"nothing" select none'):
        replace(STEP, **rule).apply(model, tiny_run(model))


def test_what_may_move_is_the_subset_and_the_scope(model: StableDiffusion) -> None:
    """A cross-attention repair leaves the rest alone, but for what was cut."""
    step = replace(STEP, subset=CrossAttention())

    moved = difference(step.apply(model, tiny_run(model)), model)

    assert {True, False} == {CrossAttention().selects(name) for name in moved}
    assert all(CrossAttention().selects(name) or TwoSelfAttentions().selects(name) for name in moved)
    assert not step.moves.selects("unet.conv_in.weight")


def test_updates_and_looks_grow_with_the_concepts() -> None:
    """Steps are max(iterations, iterations_per_concept × n); the trim looks at every concept at least once."""
    assert replace(STEP, iterations_per_concept=30).updates == 60
    assert STEP.looks == 4 and replace(STEP, batch=1, trim_batches=1).looks == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"iterations": 0},
        {"batch": 2.5},
        {"trim_batches": 0},
        {"learning_rate": 0.0},
        {"forget_weight": -1.0},
        {"iterations_per_concept": -1},
        {"seed": -1},
        {"sparsity": 1.0},
        {"sparsity": -0.1},
        {"sparsity": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """Each is a SpecError that names the field."""
    with pytest.raises(SpecError, match=f"SHS.{next(iter(bad))} must be"):
        replace(STEP, **bad)


def test_parts_out_of_range_are_refused() -> None:
    """Of the projection, the new weights and the saliency."""
    for make, match in (
        (lambda: GradientMemory(margin=-1.0), "GradientMemory.margin must be"),
        (lambda: GradientMemory(ridge=float("nan")), "GradientMemory.ridge must be"),
        (lambda: TruncatedNormal(std=0.0), "TruncatedNormal.std must be"),
        (lambda: Guided(guidance=-0.5), "Guided.guidance must be"),
    ):
        with pytest.raises(SpecError, match=match):
            make()
