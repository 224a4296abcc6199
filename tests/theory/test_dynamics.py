"""The paper's sentences about what comes back, each as a test with its parameters."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import SpecError
from resurgence_harness.theory import (
    Descent,
    Everywhere,
    LinearScoreModel,
    Subspace,
    Within,
    at_angle,
    energy,
    overlap,
    unlearn,
)
from resurgence_harness.theory.account import benign_images, fine_tuning
from tests.theory.draws import draws

D = 6
LINE = Subspace.axes(D, 0)


def data(alpha, variance=1.0):
    """The first axis has this variance, the others 1."""
    return LinearScoreModel(alpha=alpha, second_moment=np.diag([variance, *[1.0] * (D - 1)]))


def regained(model, steps, *, step_size=0.1):
    """Energy in C = the first axis, from W = 0."""
    return float(energy(Descent(model=model, start=np.zeros((D, D)), step_size=step_size).after(steps), LINE))


@settings(deadline=None, max_examples=40)
@given(draws(batch=3), some.integers(0, 30), some.booleans())
def test_the_closed_form_is_gradient_descent(drawn, steps, confined):
    """Step by step against W_n, singular data and arbitrary starts included."""
    largest = np.linalg.eigvalsh(drawn.model.noisy_second_moment).max()
    updates = Within(drawn.supervised) if confined else Everywhere()
    descent = Descent(model=drawn.model, start=drawn.weights, step_size=0.7 / largest, updates=updates)
    *_, last = descent.walk(steps)
    assert np.abs(descent.after(steps) - last).max() < 1e-9 * (1 + np.abs(last).max())


@settings(deadline=None, max_examples=20)
@given(draws(batch=3))
def test_descent_ends_at_the_minimiser(drawn):
    """After very many steps, where noise gives every direction curvature."""
    model = drawn.model
    largest = np.linalg.eigvalsh(model.noisy_second_moment).max()
    end = Descent(model=model, start=drawn.weights, step_size=0.5 / largest).after(10**7)
    assert np.abs(end - model.minimiser()).max() < 1e-6 * (1 + np.abs(model.minimiser()).max())


def test_stochastic_descent_on_a_finite_set_follows_it_on_average():
    """64 benign images, fresh noise at every step, 300 runs of 20 steps: the mean W is W_n within 5 standard errors."""
    generator = np.random.default_rng(5)
    erased, supervised = at_angle(4, 1, 40.0)
    images = benign_images(supervised)
    model = LinearScoreModel.of_images(images, alpha=0.5)
    start = unlearn(model.minimiser(), erased)
    weights = np.tile(start, (300, 1, 1))
    for _ in range(20):
        noise = generator.standard_normal((300, *images.shape))
        noisy = math.sqrt(0.5) * (images + noise)
        residual = noisy @ weights.swapaxes(-1, -2) - noise
        weights = weights - 0.05 * 2 * residual.swapaxes(-1, -2) @ noisy / len(images)
    expected = Descent(model=model, start=start, step_size=0.05).after(20)
    error = weights.std(axis=0) / math.sqrt(300)
    assert np.all(np.abs(weights.mean(axis=0) - expected) < 5 * error)


# "most pronounced at early diffusion steps where gradients are strongest"


def test_early_diffusion_steps_regain_most_at_first():
    """CONFIRMED. One step: energy 4η²(1−α) dim C, falling in α, for low and high variance alike."""
    for variance in (0.05, 1.0, 3.0):
        energies = [regained(data(alpha, variance), 1) for alpha in (0.01, 0.3, 0.6, 0.9, 0.99)]
        assert energies == sorted(energies, reverse=True)
        assert energies[1] == pytest.approx(4 * 0.1**2 * 0.7)


def test_early_diffusion_steps_regain_most_in_the_end_only_at_high_variance():
    """CONDITIONAL. Converged: variance ≥ ½ falls in α; variance .05 peaks at α = .947, not at 0 and not at 1."""
    alphas = (0.01, 0.3, 0.6, 0.9, 0.947, 0.99, 0.999)
    for variance in (0.5, 1.0, 3.0):
        energies = [regained(data(alpha, variance), 10**6) for alpha in alphas]
        assert energies == sorted(energies, reverse=True)
    energies = [regained(data(alpha, 0.05), 10**6) for alpha in alphas]
    assert alphas[int(np.argmax(energies))] == 0.947
    assert max(energies) > 5 * energies[0]


# "low-variance directions are highly sensitive: small gradients can produce large updates"


def test_low_variance_amplifies_from_the_second_step_on():
    """CONFIRMED, α .9. Energy falls with the variance of C at every n ≥ 2."""
    for steps in (2, 10, 100, 10**4):
        energies = [regained(data(0.9, variance), steps) for variance in (0.0, 0.05, 0.3, 1.0, 3.0)]
        assert all(low > high for low, high in pairwise(energies))


def test_low_variance_does_not_amplify_the_first_step():
    """SHARPENED. After one step the energy is the same for every variance: gradients there are not small but equal."""
    assert regained(data(0.9, 0.01), 1) == pytest.approx(regained(data(0.9, 3.0), 1))


def test_amplification_is_limited_by_the_curvatures_and_by_noise():
    """SHARPENED. Energy ratio at most (s_high/s_low)², reached in the end; energy at most 1/(1−α)."""
    high, low = 0.9 * 1.0 + 0.1, 0.9 * 0.05 + 0.1
    ratios = [regained(data(0.9, 0.05), n) / regained(data(0.9, 1.0), n) for n in (1, 2, 10, 100, 10**4)]
    assert ratios == sorted(ratios) and ratios[-1] == pytest.approx((high / low) ** 2)
    assert regained(data(0.9, 0.0), 10**6) == pytest.approx(1 / (1 - 0.9))


def test_little_noise_means_little_amplification_of_early_steps():
    """CONDITIONAL. At α .05 variance .05 regains 2 times what variance 1 does at most; at α .9, 47 times."""
    early = regained(data(0.05, 0.05), 10**6) / regained(data(0.05, 1.0), 10**6)
    late = regained(data(0.9, 0.05), 10**6) / regained(data(0.9, 1.0), 10**6)
    assert 1 < early < 2 and late > 47


# "any non-zero overlap is sufficient to induce resurgence"


def rank_one(degrees, *, alpha=0.5, variance=1.0):
    """C, and benign data along one direction at that angle."""
    erased, supervised = at_angle(4, 1, degrees)
    model = LinearScoreModel(alpha=alpha, second_moment=variance * supervised.projector)
    return erased, supervised, model


@pytest.mark.parametrize("degrees", [0.0, 30.0, 60.0, 85.0, 90.0])
def test_no_overlap_is_needed(degrees):
    """SHARPENED. Every weight trained: energy comes back at each angle, 90° included; the first step's is equal."""
    erased, _, model = rank_one(degrees)
    descent = Descent(model=model, start=np.zeros((4, 4)), step_size=0.1)
    assert energy(descent.after(1), erased) == pytest.approx(4 * 0.1**2 * 0.5)
    assert energy(descent.after(1000), erased) >= 0.5 - 1e-9


def test_more_overlap_of_the_data_regains_less():
    """CORRECTED. At every n ≥ 2 energy rises with the angle; in the end (1 − (1 − (1−a)²) cos² θ)/(1−α)."""
    for alpha, variance in ((0.5, 1.0), (0.9, 0.2), (0.1, 3.0)):
        places = [rank_one(angle, alpha=alpha, variance=variance) for angle in (0.0, 20.0, 45.0, 70.0, 90.0)]
        step = 0.5 / (alpha * variance + 1 - alpha)
        for steps in (2, 20, 10**5):
            energies = [
                float(energy(Descent(model=model, start=np.zeros((4, 4)), step_size=step).after(steps), erased))
                for erased, _, model in places
            ]
            assert all(less < more for less, more in pairwise(energies))
        a = alpha * variance / (alpha * variance + 1 - alpha)
        cosine2 = np.cos(np.deg2rad([0.0, 20.0, 45.0, 70.0, 90.0])) ** 2
        assert energies == pytest.approx((1 - (1 - (1 - a) ** 2) * cosine2) / (1 - alpha))


def test_more_overlap_of_a_finite_benign_set_regains_less():
    """CORRECTED, as above, on 64 drawn images, from the unlearned optimum of other data."""
    energies = []
    for angle in (0, 30, 60, 90):
        descent, erased, _ = fine_tuning(0.5, angle)
        energies.append(float(energy(descent.after(1000), erased)))
    assert energies == sorted(energies)


def test_confined_to_s_any_overlap_suffices_from_the_unlearned_optimum():
    """CONFIRMED under the condition: after one step 4η²(1−α) cos⁴ θ, in the end the share cos⁴ θ; more with overlap."""
    shares = []
    for degrees in (89.0, 85.0, 60.0, 30.0, 0.0):
        erased, supervised, model = rank_one(degrees)
        before = model.minimiser()
        start = unlearn(before, erased)
        descent = Descent(model=model, start=start, step_size=0.1, updates=Within(supervised))
        cosine4 = math.cos(math.radians(degrees)) ** 4
        assert energy(descent.after(1), erased) == pytest.approx(4 * 0.1**2 * 0.5 * cosine4)
        shares.append(float(energy(descent.after(10**4), erased) / energy(before, erased)))
        assert shares[-1] == pytest.approx(cosine4)
    assert shares == sorted(shares) and shares[0] > 0
    assert shares[1] == pytest.approx(5.8e-5, rel=0.01)


def test_confined_to_s_nothing_comes_back_without_overlap():
    """SHARPENED. S ⊥ C: P_C W_n = 0 for ever, whatever else W is; and for an empty S."""
    generator = np.random.default_rng(0)
    erased, supervised, model = rank_one(90.0)
    start = unlearn(generator.standard_normal((4, 4)), erased)
    for allowed in (supervised, Subspace(np.zeros((4, 0)))):
        descent = Descent(model=model, start=start, step_size=0.1, updates=Within(allowed))
        assert all(energy(weights, erased) == 0 for weights in (descent.after(1), descent.after(1000)))


def test_confined_to_s_an_overlap_need_not_suffice():
    """CORRECTED. C at 45° to S, P_C W = 0, and P_S ∇L = 0: what S can teach is learned already."""
    erased, supervised = at_angle(2, 1, 45.0)
    model = LinearScoreModel(alpha=0.5, second_moment=np.diag([1.0, 2.0]))
    wanted = supervised.basis[:, 0] @ model.minimiser() / supervised.basis[1, 0]
    start = np.vstack([np.zeros(2), wanted])
    assert overlap(erased, supervised) == pytest.approx(0.5)
    assert np.abs(erased.projector @ start).max() == 0
    descent = Descent(model=model, start=start, step_size=0.1, updates=Within(supervised))
    assert energy(descent.after(1000), erased) < 1e-20


# What the section implies


@settings(deadline=None, max_examples=30)
@given(draws(batch=20))
def test_what_comes_back_comes_back_first(drawn):
    """SHARPENED. From P_C W = 0 with η ≤ 1/(2 s_max), each step adds no more than the one before."""
    largest = np.linalg.eigvalsh(drawn.model.noisy_second_moment).max()
    start = unlearn(drawn.weights, drawn.erased)
    descent = Descent(model=drawn.model, start=start, step_size=0.5 / largest)
    path = np.stack([drawn.erased.projector @ weights for weights in descent.walk(12)])
    added = np.linalg.norm(np.diff(path, axis=0), axis=(-2, -1))
    assert np.all(np.diff(added, axis=0) <= 1e-10)


def test_signal_that_is_left_shrinks_late():
    """CORRECTED. α .999, Σ = I, P_C W = P_C: descent lowers the energy in C; "amplified resurgence" it is not."""
    descent = Descent(model=data(0.999), start=np.eye(D), step_size=0.1)
    energies = [float(energy(weights, LINE)) for weights in descent.walk(30)]
    assert energies == sorted(energies, reverse=True) and energies[-1] < 0.01


def test_energy_in_c_is_not_the_concept_in_the_image():
    """CORRECTED. Unlearning raises what a denoised image holds in C; benign data without C then take it to 0."""
    before, after = data(0.5), data(0.5, 0.0)
    unlearned = unlearn(before.minimiser(), LINE)
    tuned = Descent(model=after, start=unlearned, step_size=0.1).after(10**4)
    drawn = [float(before.denoised_energy(weights, LINE)) for weights in (before.minimiser(), unlearned, tuned)]
    weights = [float(energy(weights, LINE)) for weights in (before.minimiser(), unlearned, tuned)]
    assert weights == pytest.approx([0.5, 0.0, 2.0], abs=1e-9)
    assert drawn == pytest.approx([0.5, 2.0, 0.0], abs=1e-9)


def test_a_step_size_that_diverges_is_refused():
    """0, too large, nan; and a negative number of steps."""
    for step_size in (0.0, -0.1, 1.0, math.nan):
        with pytest.raises(SpecError, match="does not converge"):
            Descent(model=data(0.5), start=np.zeros((D, D)), step_size=step_size)
    with pytest.raises(SpecError, match="0 steps or more"):
        Descent(model=data(0.5), start=np.zeros((D, D)), step_size=0.1).after(-1)


def test_singular_data_without_noise_have_a_path_though_no_minimiser():
    """α = 1, Σ of rank 1: descent is defined; with nothing to predict, W decays where there is data and else stays."""
    model = LinearScoreModel(alpha=1, second_moment=np.diag([1.0, 0.0]))
    end = Descent(model=model, start=np.eye(2), step_size=0.2).after(1000)
    assert end == pytest.approx(np.diag([0.0, 1.0]), abs=1e-12)
