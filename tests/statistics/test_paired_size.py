"""The size of the paired bound against searches and sums written out longhand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics import paired
from resurgence_harness.statistics.intervals import tango_z
from resurgence_harness.statistics.paired_size import (
    SURELY,
    Side,
    binomial,
    claims,
    critical_alpha,
    scores,
    sized_claims,
    worst_paired,
)


def chances(n, lost, gained):
    """P(b, c) of every count, [n + 1, n + 1]; 0 where b + c > n."""
    from scipy.stats import binom

    b, c = np.indices((n + 1, n + 1))
    return binom.pmf(b, n, lost) * binom.pmf(c, n - b, min(gained / (1 - lost), 1.0))


def error_at(n, delta, alpha, lost, *, rise=None):
    """How often each side is said falsely where P(lost) and the rise are these, the rise delta unless given."""
    b, c = np.indices((n + 1, n + 1))
    weight = chances(n, lost, lost + (delta if rise is None else rise))
    return dict(zip(Side, ((weight * flags).sum() for flags in claims(b, c, n, delta, alpha)), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "delta", "alpha"), [(7, 0.2, 0.05), (33, 0.05, 0.05), (90, 0.05, 0.01), (126, 0.05, 0.01), (60, 0.4, 0.2)]
)
def test_no_rate_of_discordance_is_worse_than_the_worst(n, delta, alpha):
    """Against 500 rates, equally spaced and near both ends; and the error is made where it is said to be."""
    ends = np.geomspace(1e-6, 0.05, 150)
    rates = np.concatenate([np.linspace(0, (1 - delta) / 2, 350), ends])
    worst = worst_paired(n, delta, alpha)
    every = [error_at(n, delta, alpha, float(q)) for q in rates if q <= (1 - delta) / 2]
    for side in Side:
        most = max(found[side] for found in every)
        assert most <= worst[side].error * (1 + 1e-6) <= most * 1.001
        assert 0 <= worst[side].at <= (1 - delta) / 2
        assert error_at(n, delta, alpha, worst[side].at)[side] == pytest.approx(worst[side].error)


@pytest.mark.parametrize(("n", "delta", "alpha"), [(25, 0.1, 0.05), (48, 0.05, 0.05), (46, 0.1, 0.01)])
def test_sized_claims_err_no_more_than_alpha(n, delta, alpha):
    """Summed over every outcome at D = delta, on both sides; Tango's own would err more."""
    b, c = np.arange(n + 1)[:, None], np.arange(n + 1)[None]
    inside, outside = sized_claims(b, c, n, delta, alpha)
    published = claims(b, c, n, delta, alpha)
    excess = [0.0, 0.0]
    for q in np.linspace(0, (1 - delta) / 2, 60):
        weight = chances(n, q, q + delta)
        assert weight.sum() == pytest.approx(1)
        assert (weight * inside).sum() <= alpha + 1e-12
        assert (weight * outside).sum() <= alpha + 1e-12
        excess = [max(one, (weight * flags).sum()) for one, flags in zip(excess, published, strict=True)]
    assert max(excess) > alpha
    assert np.all(inside <= published[0])
    assert np.all(outside <= published[1])


@pytest.mark.parametrize(("n", "delta", "alpha"), [(25, 0.1, 0.05), (64, 0.05, 0.01), (90, 0.05, 0.01)])
def test_each_side_has_its_own_nominal_alpha(n, delta, alpha):
    """What is said of one side does not depend on the other's."""
    nominal = {side: critical_alpha(n, delta, alpha, side) for side in Side}
    assert nominal[Side.HOLDS] != nominal[Side.VIOLATED]
    b, c = np.arange(n + 1)[:, None], np.arange(n + 1)[None]
    inside, outside = sized_claims(b, c, n, delta, alpha)
    assert np.array_equal(inside, claims(b, c, n, delta, nominal[Side.HOLDS], at_zero=alpha)[0])
    assert np.array_equal(outside, claims(b, c, n, delta, nominal[Side.VIOLATED])[1])


def test_an_alpha_that_does_not_err_is_kept():
    """No number below it is needed; and none above it is ever given."""
    kept = 0
    for n in range(1, 40):
        for side in Side:
            nominal = critical_alpha(n, 0.05, 0.05, side)
            errs = worst_paired(n, 0.05, 0.05)[side].error
            assert (nominal == 0.05) == (errs <= 0.05)
            assert nominal <= 0.05
            kept += nominal == 0.05
    assert 5 < kept < 70


def test_beyond_a_thousand_pairs_a_share_of_alpha_is_surely_small_enough():
    """.4 %, where the size is .55 % of 1 %."""
    assert SURELY == 0.4
    for side in (None, *Side):
        assert critical_alpha(1001, 0.05, 0.01, side) == pytest.approx(0.004)


def test_the_error_falls_away_from_the_limit():
    """One more gained pair never makes a rise look smaller: D = delta is the worst of D ≥ delta, and of D ≤ delta."""
    n, delta, q = 60, 0.1, 0.05
    holds = [error_at(n, delta, 0.05, q, rise=rise)[Side.HOLDS] for rise in (0.1, 0.12, 0.2, 0.5)]
    violated = [error_at(n, delta, 0.05, q, rise=rise)[Side.VIOLATED] for rise in (0.1, 0.08, 0.03, 0.0)]
    assert holds == sorted(holds, reverse=True)
    assert violated == sorted(violated, reverse=True)
    assert error_at(n, delta, 0.05, q)[Side.HOLDS] == holds[0]
    weight = chances(n, q, q + 0.03)
    low = sum(weight[b, c] for b in range(n + 1) for c in range(n + 1 - b) if paired(b, c, n, 0.05)[0] > delta)
    assert violated[2] == pytest.approx(low)


def test_without_a_rise_a_regression_is_rarely_said():
    """As `intervals.paired` says: .23 % at 90 pairs, 5 points and alpha .01, at the worst rate of discordance."""
    unrisen = [error_at(90, 0.05, 0.01, q, rise=0.0)[Side.VIOLATED] for q in np.linspace(0, 0.5, 60)]
    assert max(unrisen) == pytest.approx(0.0023, abs=5e-5)


def test_the_exact_bound_after_nothing_gained_keeps_its_alpha():
    """At any nominal alpha of Tango's part, 90 pairs without a gain are under 5 points at alpha .01, and 89 are not."""
    for b in (0, 5):
        flags = [bool(claims(b, 0, n, 0.05, 1e-9, at_zero=0.01)[0]) for n in (89, 90)]
        assert flags == [False, True]
    assert not claims(0, 1, 90, 0.05, 1e-9, at_zero=0.01)[0]
    assert not claims(0, 0, 90, 0.05, 0.005)[0]


def test_the_binomial_is_scipy_s():
    """Also at 0 and 1."""
    from scipy.stats import binom

    k = np.arange(31)
    for p in (0.0, 1e-3, 0.3, 1.0):
        assert binomial(k, 30, np.array(p)) == pytest.approx(binom.pmf(k, 30, p), abs=1e-12)


@pytest.mark.parametrize(
    ("b", "c", "n", "delta", "z"), [(0, 0, 50, 0.0, 0.0), (0, 3, 50, 1.0, -math.inf), (0, 50, 50, 1.0, 0.0)]
)
def test_a_statistic_without_variance_is_certain(b, c, n, delta, z):
    """0 where the estimate is the hypothesis, infinite where it cannot be; in numbers and in arrays."""
    assert tango_z(b, c, n, delta) == z
    assert scores(b, c, n, delta) == z


@pytest.mark.parametrize("wrong", [(0, 0.05, 0.01), (9, 0.0, 0.01), (9, 1.0, 0.01), (9, math.nan, 0.01), (9, 0.1, 0.5)])
def test_what_gives_no_claim_is_refused(wrong):
    """By every door."""
    for call in (worst_paired, critical_alpha):
        with pytest.raises(SpecError):
            call(*wrong)
