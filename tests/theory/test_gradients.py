"""Proposition 5.1, part 1: true, loose, blind to S; and where S does matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.theory import (
    LinearScoreModel,
    Subspace,
    at_angle,
    confined_gradient,
    confined_gradient_of_the_unlearned_optimum,
    gradient,
    gradient_bound,
    gradient_span,
    leakage_on_supervised,
    leakage_on_whole_space,
    remaining_signal_bound,
    unlearn,
)
from tests.theory.draws import draws

NEARLY = 1 + 1e-9


def norm(matrices):
    """‖·‖_F of each."""
    return np.linalg.norm(matrices, axis=(-2, -1))


@settings(deadline=None)
@given(draws())
def test_the_exact_gradient_is_blind_to_s_and_sigma(drawn):
    """10,000 draws: ‖P_C ∇L‖_F = 2√(1−α)√dim C for every W with P_C W = 0."""
    model, erased = drawn.model, drawn.erased
    found = norm(erased.projector @ model.gradient(unlearn(drawn.weights, erased)))
    assert found == pytest.approx(np.full(len(found), gradient(model, erased)), rel=1e-9)


@settings(deadline=None)
@given(draws())
def test_the_stated_gradient_bound_holds(drawn):
    """10,000 draws, both readings; it is at least √dim C below the exact value."""
    exact = gradient(drawn.model, drawn.erased)
    for reading in (leakage_on_supervised, leakage_on_whole_space):
        bound = gradient_bound(drawn.model, drawn.erased, drawn.supervised, leakage=reading)
        assert np.all(bound * np.sqrt(drawn.erased.dim) <= exact * NEARLY)


@settings(deadline=None)
@given(draws())
def test_the_bound_is_vacuous_where_said(drawn):
    """0 for every proper subspace on R^d, and on S whenever dim S > dim C."""
    model, erased, supervised = drawn.model, drawn.erased, drawn.supervised
    if min(erased.dim, supervised.dim) < model.dim:
        assert np.all(gradient_bound(model, erased, supervised, leakage=leakage_on_whole_space) == 0)
    if supervised.dim > erased.dim:
        assert np.all(gradient_bound(model, erased, supervised) == 0)


def test_one_orthogonal_direction_in_s_makes_the_bound_vacuous():
    """S holds a direction at 5° to C, and one orthogonal to C: γ is 0, the overlap .99."""
    erased, supervised = Subspace.axes(6, 0, 1), at_angle(6, 1, 5.0)[1]
    wider = Subspace(np.hstack([supervised.basis, np.eye(6)[:, [4]]]))
    model = LinearScoreModel(alpha=0.5, second_moment=np.eye(6))
    assert wider.dim == erased.dim and gradient_bound(model, erased, wider) < 1e-12
    assert confined_gradient(model, erased, wider) > 0.99 * 2 * model.cross


def test_a_gradient_in_c_without_any_overlap():
    """S ⊥ C and benign data with nothing in C: the gradient in C is as large as ever."""
    erased, supervised = at_angle(4, 1, 90.0)
    model = LinearScoreModel(alpha=0.5, second_moment=supervised.projector)
    assert norm(erased.projector @ model.gradient(np.zeros((4, 4)))) == pytest.approx(2 * np.sqrt(0.5))


def test_the_span_of_the_gradients_is_everything():
    """Residuals of d images span R^d, of one image more than dim C leave γ = 0: the paper's S gives "≥ 0"."""
    generator = np.random.default_rng(1)
    erased = Subspace.axes(6, 0, 1)
    model = LinearScoreModel(alpha=0.5, second_moment=np.eye(6))
    weights = unlearn(model.minimiser(), erased)
    images, noise = generator.standard_normal((2, 40, 6))
    images[:, :2] = 0  # not even anything of C in the benign images
    for count, dim in ((1, 1), (2, 2), (3, 3), (6, 6), (40, 6)):
        span = gradient_span(model, weights, images[:count], noise[:count])
        assert span.dim == dim
        assert (leakage_on_supervised(erased, span) > 0) == (dim <= erased.dim)
        assert leakage_on_whole_space(erased, span) == 0


@settings(deadline=None)
@given(draws())
def test_updates_confined_to_s_have_the_gradients_that_are_given(drawn):
    """10,000 draws at W = 0 and at the unlearned optimum: √Σcos², √Σcos⁴; and above their γ."""
    model, erased, supervised = drawn.model, drawn.erased, drawn.supervised
    confine = erased.projector @ supervised.projector
    at_zero = norm(confine @ model.gradient(np.zeros((model.dim, model.dim))))
    said = confined_gradient(model, erased, supervised)
    assert np.abs(at_zero - said).max() < 1e-9
    optimum = model.minimiser()
    at_optimum = norm(confine @ model.gradient(unlearn(optimum, erased)))
    said_there = confined_gradient_of_the_unlearned_optimum(model, erased, supervised)
    scale = 1 + np.abs(optimum).max() * np.abs(model.noisy_second_moment).max()
    assert np.abs(at_optimum - said_there).max() < 1e-9 * scale
    if supervised.dim <= erased.dim:
        gamma, s = leakage_on_supervised(erased, supervised), supervised.dim
        assert np.all(said * NEARLY >= 2 * model.cross * np.sqrt(s * gamma))
        assert np.all(said_there * NEARLY >= 2 * model.cross * np.sqrt(s) * gamma)


@pytest.mark.parametrize("degrees", [10.0, 45.0, 80.0])
def test_the_stated_gradient_bound_fails_for_updates_confined_to_s(degrees):
    """One direction, unlearned optimum: cos² θ where √γ says cos θ. At W = 0 it is met with equality."""
    model = LinearScoreModel(alpha=0.5, second_moment=np.eye(4))
    erased, supervised = at_angle(4, 1, degrees)
    stated = gradient_bound(model, erased, supervised)
    assert confined_gradient_of_the_unlearned_optimum(model, erased, supervised) < 0.99 * stated
    assert confined_gradient(model, erased, supervised) == pytest.approx(stated)


@settings(deadline=None)
@given(draws())
def test_what_signal_is_left_only_shrinks(drawn):
    """10,000 draws: the bound with the extra term holds, and that term's descent never adds energy in C."""
    model, erased = drawn.model, drawn.erased
    found = norm(erased.projector @ model.gradient(drawn.weights))
    assert np.all(remaining_signal_bound(model, drawn.weights, erased) <= found + 1e-9 * (1 + found))
    left = erased.projector @ drawn.weights
    assert np.all(np.sum(left * (2 * left @ model.noisy_second_moment), axis=(-2, -1)) >= -1e-12)


@given(some.floats(0.0, 1.0))
def test_a_remaining_fraction_of_the_optimum_weakens_the_gradient(fraction):
    """At W = ρ W* the gradient in C is 1 − ρ of its value at 0: the extra term opposes it."""
    model = LinearScoreModel(alpha=0.8, second_moment=np.diag([0.2, 1.0, 3.0]))
    erased = Subspace.axes(3, 0)
    found = norm(erased.projector @ model.gradient(fraction * model.minimiser()))
    assert found == pytest.approx((1 - fraction) * gradient(model, erased), abs=1e-12)


def test_the_extra_term_dominates_late():
    """P_C W = P_C fixed: at α = .999 the signal's term is 30 times the noise's, at α = .01 it is not larger than it."""
    erased = Subspace.axes(3, 0)
    ratios = {}
    for alpha in (0.01, 0.999):
        model = LinearScoreModel(alpha=alpha, second_moment=np.eye(3))
        ratios[alpha] = norm(2 * erased.projector @ model.noisy_second_moment) / gradient(model, erased)
    assert ratios[0.999] > 30 and ratios[0.01] < 1.01


def test_the_ends_of_alpha():
    """α = 1: no gradient in C. α = 0: 2√dim C."""
    erased = Subspace.axes(3, 0, 1)
    ends = [gradient(LinearScoreModel(alpha=alpha, second_moment=np.eye(3)), erased) for alpha in (0, 1)]
    assert ends == [2 * np.sqrt(2), 0]
