"""The closed forms against automatic differentiation, exact quadrature and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import SpecError
from resurgence_harness.theory import LinearScoreModel, Subspace, unlearn
from tests.theory.draws import draws


def quadrature(model):
    """Pairs (x₀, ε) whose mean of any quadratic function is its expectation: all of ±√d Σ^½ eᵢ with all of ±√d eⱼ."""
    d = model.dim
    values, axes = np.linalg.eigh(model.second_moment)
    root = axes * np.sqrt(np.maximum(values, 0))
    some_images = math.sqrt(d) * np.vstack([root.T, -root.T])
    some_noise = math.sqrt(d) * np.vstack([np.eye(d), -np.eye(d)])
    return np.repeat(some_images, 2 * d, axis=0), np.tile(some_noise, (2 * d, 1))


def written_out(model, weights):
    """L(W) as its definition says, in torch, from nothing but residuals."""
    images, noise = (torch.from_numpy(points) for points in quadrature(model))
    noisy = math.sqrt(model.alpha) * images + math.sqrt(1 - model.alpha) * noise
    return ((noisy @ weights.T - noise) ** 2).sum(1).mean()


def single(drawn):
    """The first model of a batch."""
    return LinearScoreModel(alpha=drawn.model.alpha, second_moment=drawn.model.second_moment[0])


@settings(deadline=None, max_examples=60)
@given(draws(batch=1))
def test_loss_gradient_and_minimiser_equal_automatic_differentiation(drawn):
    """To 1e-9 of their size, the factor 2 included; and the gradient at the minimiser is 0."""
    model = single(drawn)
    weights = torch.from_numpy(drawn.weights[0]).requires_grad_()
    loss = written_out(model, weights)
    (gradient,) = torch.autograd.grad(loss, weights)
    size = 1 + float(np.abs(drawn.weights).max() * model.dim * np.abs(model.noisy_second_moment).max())
    assert model.loss(drawn.weights[0]) == pytest.approx(loss.item(), abs=1e-9 * size**2)
    assert np.abs(model.gradient(drawn.weights[0]) - gradient.numpy()).max() < 1e-9 * size
    best = torch.from_numpy(model.minimiser()).requires_grad_()
    (flat,) = torch.autograd.grad(written_out(model, best), best)
    scale = 1 + np.abs(model.minimiser()).max() * np.abs(model.noisy_second_moment).max() * model.dim
    assert flat.abs().max().item() < 1e-9 * scale
    assert model.loss(model.minimiser()) <= model.loss(drawn.weights[0])


@settings(deadline=None, max_examples=20)
@given(draws(batch=1, most=4))
def test_the_hessian_carries_the_same_two(drawn):
    """Its block of each row of W is 2 Σ_t, and no row bends another."""
    model, d = single(drawn), drawn.model.dim
    found = torch.autograd.functional.hessian(
        lambda weights: written_out(model, weights), torch.from_numpy(drawn.weights[0])
    ).numpy()
    expected = np.einsum("ik,jl->ijkl", np.eye(d), model.hessian())
    assert np.abs(found - expected).max() < 1e-9 * (1 + np.abs(expected).max())


@settings(deadline=None, max_examples=30)
@given(draws(batch=1))
def test_denoised_energy_equals_its_definition(drawn):
    """E‖P_C (x_t − √(1−α) W x_t)/√α‖², point by point."""
    model = single(drawn)
    if model.alpha < 1e-3:
        return
    images, noise = quadrature(model)
    noisy = math.sqrt(model.alpha) * images + model.cross * noise
    denoised = (noisy - model.cross * noisy @ drawn.weights[0].T) / math.sqrt(model.alpha)
    erased = Subspace(drawn.erased.basis[0])
    expected = ((denoised @ erased.basis) ** 2).sum(1).mean()
    assert model.denoised_energy(drawn.weights[0], erased) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_gradient_agrees_with_monte_carlo():
    """200,000 noised images: every entry within 5 standard errors, for a singular Σ."""
    generator = np.random.default_rng(3)
    root = np.array([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.2, -0.5, 0.0]])
    model = LinearScoreModel(alpha=0.7, second_moment=root @ root.T)
    weights = generator.standard_normal((3, 3))
    images, noise = (generator.standard_normal((200_000, 3)) for _ in range(2))
    noisy = math.sqrt(0.7) * images @ root.T + math.sqrt(0.3) * noise
    each = 2 * np.einsum("ni,nj->nij", noisy @ weights.T - noise, noisy)
    error = each.std(axis=0) / math.sqrt(len(each))
    assert np.all(np.abs(each.mean(axis=0) - model.gradient(weights)) < 5 * error)
    losses = ((noisy @ weights.T - noise) ** 2).sum(1)
    assert abs(losses.mean() - model.loss(weights)) < 5 * losses.std() / math.sqrt(len(losses))


def test_a_finite_set_with_a_mean_needs_its_second_moment():
    """E[x_t x_tᵀ] of images around (3, 0) is that of Σ = second moment; with the covariance it would be another."""
    images = np.array([[2.0, 1.0], [4.0, -1.0]])
    model = LinearScoreModel.of_images(images, alpha=0.5)
    assert model.second_moment == pytest.approx(np.array([[10.0, -1.0], [-1.0, 1.0]]))
    assert not np.allclose(model.second_moment, np.cov(images.T, bias=True))


@settings(deadline=None, max_examples=20)
@given(draws())
def test_exact_unlearning_removes_c_and_leaves_the_rest(drawn):
    """P_C W = 0; (I − P_C) W as before."""
    unlearned, projector = unlearn(drawn.weights, drawn.erased), drawn.erased.projector
    assert np.abs(projector @ unlearned).max() < 1e-12
    assert np.abs((unlearned - drawn.weights) - projector @ (unlearned - drawn.weights)).max() < 1e-12


def test_without_signal_the_minimiser_is_the_identity():
    """α = 0: Σ_t = I, W* = I, for any Σ, also 0."""
    for moment in (np.zeros((3, 3)), np.diag([1.0, 5.0, 0.0])):
        assert np.allclose(LinearScoreModel(alpha=0, second_moment=moment).minimiser(), np.eye(3))


def test_without_noise_the_minimiser_is_zero_or_refused():
    """α = 1: nothing to predict; singular data leave W open, and near α = 1 it grows like 1/√(1−α)."""
    assert np.all(LinearScoreModel(alpha=1, second_moment=np.diag([1.0, 2.0])).minimiser() == 0)
    with pytest.raises(SpecError, match="many W are minimal"):
        LinearScoreModel(alpha=1, second_moment=np.diag([1.0, 0.0])).minimiser()
    for gap in (1e-2, 1e-6, 1e-10):
        best = LinearScoreModel(alpha=1 - gap, second_moment=np.diag([1.0, 0.0])).minimiser()
        assert best[1, 1] * math.sqrt(gap) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("alpha", "moment", "words"),
    [
        (-0.1, np.eye(2), "from 0 to 1"),
        (1.1, np.eye(2), "from 0 to 1"),
        (math.nan, np.eye(2), "from 0 to 1"),
        (0.5, np.ones((2, 3)), "square"),
        (0.5, np.ones(2), "square"),
        (0.5, np.array([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (0.5, np.array([[math.nan, 0.0], [0.0, 1.0]]), "symmetric"),
        (0.5, np.diag([1.0, -0.1]), "no negative eigenvalue"),
    ],
)
def test_what_is_no_model_is_refused(alpha, moment, words):
    """With one sentence that says which rule was broken."""
    with pytest.raises(SpecError, match=words):
        LinearScoreModel(alpha=alpha, second_moment=moment)


def test_no_images_and_pure_noise_are_refused():
    """An empty benign set; denoising at α = 0."""
    with pytest.raises(SpecError, match="at least one"):
        LinearScoreModel.of_images(np.zeros((0, 3)), alpha=0.5)
    with pytest.raises(SpecError, match="Pure noise"):
        LinearScoreModel(alpha=0, second_moment=np.eye(2)).denoised_energy(np.eye(2), Subspace.axes(2, 0))


@given(some.integers(1, 6), some.floats(0, 1))
def test_the_loss_of_predicting_nothing_is_d(d, alpha):
    """L(0) = E‖ε‖² = d."""
    assert LinearScoreModel(alpha=alpha, second_moment=np.eye(d)).loss(np.zeros((d, d))) == d
