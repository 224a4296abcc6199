"""Proposition 5.1, part 2: where the stated inequality fails, and the corrected one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import SpecError
from resurgence_harness.theory import (
    Descent,
    LinearScoreModel,
    Subspace,
    Within,
    at_angle,
    confined_sensitivity_bound,
    confined_sensitivity_bound_of_the_unlearned_optimum,
    largest_update_alpha,
    leakage_on_supervised,
    leakage_on_whole_space,
    sensitivity_bound,
    sharp_sensitivity_bound,
    stated_sensitivity_bound,
    unlearn,
    update,
)
from tests.theory.draws import draws

NEARLY = 1 + 1e-9


def norm(matrices):
    """‖·‖_F of each."""
    return np.linalg.norm(matrices, axis=(-2, -1))


def isotropic(d, alpha=0.5, variance=1.0):
    """Σ = variance · I."""
    return LinearScoreModel(alpha=alpha, second_moment=variance * np.eye(d))


@settings(deadline=None)
@given(draws())
def test_the_exact_update_is_minimal(drawn):
    """10,000 draws: after it the gradient in C is 0, from any W with P_C W = 0, and its norm is `update`."""
    model, erased = drawn.model, drawn.erased
    start = unlearn(drawn.weights, erased)
    change = erased.projector @ model.minimiser()
    left = norm(erased.projector @ model.gradient(start + change))
    assert np.all(left < 1e-8 * (1 + norm(drawn.weights)) * (1 + norm(model.noisy_second_moment)))
    assert norm(change) == pytest.approx(update(model, erased), rel=1e-9)


@settings(deadline=None)
@given(draws())
def test_the_corrected_bounds_hold(drawn):
    """10,000 draws: √(1−α)√dim C/(αλ_max^C + 1−α) ≤ sharp ≤ exact ≤ √dim C/√(1−α)."""
    model, erased = drawn.model, drawn.erased
    plain, sharp = sensitivity_bound(model, erased), sharp_sensitivity_bound(model, erased)
    exact = update(model, erased)
    assert np.all(plain <= sharp * NEARLY) and np.all(sharp <= exact * NEARLY)
    assert np.all(exact <= math.sqrt(erased.dim) / model.cross * NEARLY)


@settings(deadline=None)
@given(draws())
def test_the_stated_bound_holds_if_gamma_is_at_most_a_quarter_of_dim_c(drawn):
    """10,000 draws, S at any position; so for all of dim C ≥ 4."""
    gamma = leakage_on_supervised(drawn.erased, drawn.supervised)
    stated = stated_sensitivity_bound(drawn.model, drawn.erased, drawn.supervised)
    small = gamma <= drawn.erased.dim / 4
    assert np.all(stated[small] <= update(drawn.model, drawn.erased)[small] * NEARLY)
    if drawn.erased.dim >= 4:
        assert small.all()


@pytest.mark.parametrize(("dim", "holds"), [(1, False), (2, False), (3, False), (4, True), (5, True)])
@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
def test_the_stated_bound_at_isotropic_data_and_s_equal_to_c(dim, holds, alpha, variance):
    """Σ = vI, S = C: exact √dim C, stated 2, in the same units. It fails for dim C ≤ 3 at every α."""
    model, erased = isotropic(6, alpha, variance), Subspace.axes(6, *range(dim))
    exact, stated = update(model, erased), stated_sensitivity_bound(model, erased, erased)
    assert exact / stated == pytest.approx(math.sqrt(dim) / 2)
    assert (stated <= exact * NEARLY) == holds
    assert sensitivity_bound(model, erased) == pytest.approx(exact)


@pytest.mark.parametrize(("dim", "limit"), [(1, 60.0), (2, 45.0), (3, 30.0)])
def test_the_stated_bound_fails_below_an_angle(dim, limit):
    """Isotropic data: below 60°, 45°, 30° for dim C = 1, 2, 3, and not above."""
    model = isotropic(6)
    for degrees in (0.0, limit - 1, limit + 1, 90.0):
        erased, supervised = at_angle(6, dim, degrees)
        fails = stated_sensitivity_bound(model, erased, supervised) > update(model, erased) * NEARLY
        assert fails == (degrees < limit)


def test_on_the_whole_space_the_stated_bound_fails_only_for_tiny_models():
    """γ on R^d is 1 for S = C = R^d alone: d ≤ 3 fails, everything else is "≥ 0" or d ≥ 4."""
    for d in range(1, 7):
        whole = Subspace(np.eye(d))
        stated = stated_sensitivity_bound(isotropic(d), whole, whole, leakage=leakage_on_whole_space)
        assert (stated > update(isotropic(d), whole) * NEARLY) == (d <= 3)
    part = Subspace.axes(6, 0)
    assert stated_sensitivity_bound(isotropic(6), part, part, leakage=leakage_on_whole_space) == 0


def test_the_two_cancels_whatever_the_loss_is_scaled_by():
    """One Newton step of c·L is the same for c = ½, 1, 2: −∇L/2 Σ_t⁻¹."""
    model, erased = isotropic(3, 0.4, 2.0), Subspace.axes(3, 0)
    for scale in (0.5, 1.0, 2.0):
        gradient, hessian = scale * model.gradient(np.zeros((3, 3))), scale * model.hessian()
        step = -erased.projector @ gradient @ np.linalg.inv(hessian)
        assert norm(step) == pytest.approx(update(model, erased))


def test_any_update_cannot_be_meant():
    """One small gradient step is an update supported in C, and lies below even the corrected bound."""
    model, erased = isotropic(3), Subspace.axes(3, 0)
    step = erased.projector @ Descent(model=model, start=np.zeros((3, 3)), step_size=0.1).after(1)
    assert 0 < norm(step) < 0.3 * sensitivity_bound(model, erased)


@settings(deadline=None)
@given(draws())
def test_the_sharp_bound_is_the_update_held_in_c_on_both_sides(drawn):
    """10,000 draws: P_C ΔW P_C with U_Cᵀ ∇L U_C = 0 after it."""
    model, erased, basis = drawn.model, drawn.erased, drawn.erased.basis
    inner = basis.swapaxes(-1, -2) @ model.noisy_second_moment @ basis
    change = basis @ (model.cross * np.linalg.inv(inner)) @ basis.swapaxes(-1, -2)
    left = basis.swapaxes(-1, -2) @ model.gradient(unlearn(drawn.weights, erased) + change) @ basis
    assert np.abs(left).max() < 1e-8 * (1 + norm(model.noisy_second_moment).max())
    assert norm(change) == pytest.approx(sharp_sensitivity_bound(model, erased), rel=1e-8)


@settings(deadline=None)
@given(draws())
def test_bounds_of_updates_confined_to_s_hold(drawn):
    """10,000 draws, from W = 0 with S's variance, from the unlearned optimum with C's."""
    model, erased, supervised = drawn.model, drawn.erased, drawn.supervised
    confine, best = erased.projector @ supervised.projector, model.minimiser()
    moved = norm(confine @ best)
    assert np.all(confined_sensitivity_bound(model, erased, supervised) <= moved * NEARLY + 1e-12)
    moved = norm(confine @ (best - unlearn(best, erased)))
    bound = confined_sensitivity_bound_of_the_unlearned_optimum(model, erased, supervised)
    assert np.all(bound <= moved * NEARLY + 1e-12)


def test_confined_descent_reaches_the_confined_update():
    """The limit of descent within S is the update that the bound speaks of."""
    erased, supervised = at_angle(4, 1, 40.0)
    model = LinearScoreModel(alpha=0.5, second_moment=np.diag([1.0, 0.3, 0.1, 2.0]))
    start = unlearn(model.minimiser(), erased)
    end = Descent(model=model, start=start, step_size=0.3, updates=Within(supervised)).after(5000)
    expected = erased.projector @ supervised.projector @ (model.minimiser() - start)
    assert np.abs(erased.projector @ (end - start) - expected).max() < 1e-9


@settings(deadline=None)
@given(some.floats(1e-3, 10.0))
def test_the_alpha_of_the_largest_update(variance):
    """(1−2λ)/(1−λ) for λ < ½, else 0, against a grid; 1/(2√(λ(1−λ))) high."""
    line, best = Subspace.axes(1, 0), largest_update_alpha(variance)
    top = update(isotropic(1, best, variance), line)
    others = [update(isotropic(1, float(alpha), variance), line) for alpha in np.linspace(0, 0.9999, 200)]
    assert top >= max(others) * (1 - 1e-9)
    assert top == pytest.approx(1 / (2 * math.sqrt(variance * (1 - variance))) if variance < 0.5 else 1)


def test_variance_in_c_does_not_protect_from_correlated_directions():
    """Σ = [[1, ρ], [ρ, 1]] has λ_max^C = 1 for all ρ; at ρ = .99, α = .9 the update is 6.5 times the bound."""
    axis = Subspace.axes(2, 0)
    model = LinearScoreModel(alpha=0.9, second_moment=np.array([[1.0, 0.99], [0.99, 1.0]]))
    assert update(model, axis) / sensitivity_bound(model, axis) == pytest.approx(6.5, abs=0.05)


def test_the_ends_of_alpha_and_singular_data():
    """α = 0: √dim C. α → 1: 0, but 1/√(1−α) for data without C. α = 1 without variance is refused."""
    axis, flat = Subspace.axes(2, 0), np.diag([0.0, 1.0])
    assert update(LinearScoreModel(alpha=0, second_moment=flat), axis) == 1
    assert update(isotropic(2, 1.0), axis) == sensitivity_bound(isotropic(2, 1.0), axis) == 0
    near = LinearScoreModel(alpha=1 - 1e-8, second_moment=flat)
    assert update(near, axis) == pytest.approx(1e4) == sensitivity_bound(near, axis)
    refused = LinearScoreModel(alpha=1, second_moment=flat)
    for call in (update, sensitivity_bound, sharp_sensitivity_bound):
        with pytest.raises(SpecError, match="alpha below 1"):
            call(refused, axis)
    for call in (sensitivity_bound, sharp_sensitivity_bound):
        with pytest.raises(SpecError, match="empty subspace"):
            call(isotropic(2), Subspace(np.zeros((2, 0))))
    for variance in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SpecError, match="variance above 0"):
            largest_update_alpha(variance)


def test_nothing_erased_moves_nothing():
    """dim C = 0: an update of 0."""
    assert update(isotropic(2), Subspace(np.zeros((2, 0)))) == 0
