"""The intervals against brute force, published examples and enumeration."""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics import clopper_pearson, mcnemar_exact, paired, tango, zero_event_floor
from resurgence_harness.statistics.intervals import tango_z


@pytest.mark.parametrize(
    "call",
    [
        partial(clopper_pearson, 3, 2, 0.01),
        partial(clopper_pearson, -1, 2, 0.01),
        partial(clopper_pearson, 0, 0, 0.01),
        partial(tango, 0, 0, 0, 0.01),
        partial(tango, -1, 0, 5, 0.01),
        partial(tango, 3, 3, 5, 0.01),
        partial(mcnemar_exact, -1, 0),
    ],
)
def test_impossible_counts_are_errors_of_the_harness(call):
    """Counts that cannot be never become an interval."""
    with pytest.raises(HarnessError):
        call()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, float("nan")])
def test_alpha_is_an_error_probability(alpha):
    """An alpha that means nothing is a spec error."""
    for call in (partial(clopper_pearson, 1, 5), partial(tango, 1, 1, 5), partial(zero_event_floor, 0.05)):
        with pytest.raises(SpecError, match="alpha"):
            call(alpha=alpha)


@pytest.mark.parametrize("n", [1, 7, 30, 90])
def test_clopper_pearson_errs_no_more_than_alpha(n):
    """Enumerated over all counts: each bound misses with probability at most alpha, at every rate."""
    from scipy.stats import binom

    alpha = 0.01
    lows, highs = np.array([clopper_pearson(k, n, alpha) for k in range(n + 1)]).T
    for p in np.linspace(0, 1, 301):
        weights = binom.pmf(np.arange(n + 1), n, p)
        assert weights[highs < p - 1e-12].sum() <= alpha + 1e-12
        assert weights[lows > p + 1e-12].sum() <= alpha + 1e-12


def test_clopper_pearson_agrees_with_statsmodels():
    """The same numbers as an independent implementation."""
    from statsmodels.stats.proportion import proportion_confint

    for k, n in ((0, 90), (1, 90), (45, 90), (90, 90), (61, 500)):
        assert clopper_pearson(k, n, 0.01) == pytest.approx(proportion_confint(k, n, 0.02, method="beta"), abs=1e-9)


@pytest.mark.parametrize(
    ("b", "c", "n", "low", "high", "digits"),
    [
        (7, 1, 21, -0.517, -0.026, 3),
        (16, 6, 161, -0.1240, -0.0054, 4),
        (8, 16, 86, -0.020, 0.207, 3),
        (2, 12, 50, 0.0611, 0.3447, 4),
    ],
)
def test_tango_gives_the_published_intervals(b, c, n, low, high, digits):
    """Examples in print: Bentur 2009 (Fagerland 2014), Cavo 2012 (Fagerland 2017), Agresti and Min 2005, Newcombe's."""
    assert tuple(round(bound, digits) for bound in tango(b, c, n, 0.025)) == (low, high)


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 30), (0, 3, 40), (3, 0, 40), (4, 9, 60), (20, 11, 90), (0, 5, 5)])
def test_the_constrained_likelihood_is_maximal(b, c, n):
    """The closed form agrees with a search over all P(lost) for the likeliest one."""
    for delta in (-0.6, -0.05, 0.0, 0.05, 0.31):
        grid = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [
                np.where(count > 0, count * np.log(probability), 0.0)
                for count, probability in ((b, grid), (c, grid + delta), (n - b - c, 1 - 2 * grid - delta))
            ]
        q = grid[np.nanargmax(sum(parts))]
        variance = n * (2 * q + delta * (1 - delta))
        if variance < 1e-3:
            continue
        assert tango_z(b, c, n, delta) == pytest.approx((c - b - n * delta) / math.sqrt(variance), abs=2e-3)


def test_tango_at_zero_is_mcnemar():
    """At a difference of 0 the statistic is (c − b)/√(b + c)."""
    assert tango_z(4, 13, 90, 0.0) == pytest.approx(9 / math.sqrt(17))


def test_no_discordant_pair_is_not_certainty():
    """0 of 0 discordant pairs has Tango's z²/(n + z²), not Wald's 0."""
    z2 = NormalDist().inv_cdf(0.99) ** 2
    assert tango(0, 0, 30, 0.01) == pytest.approx((-z2 / (30 + z2), z2 / (30 + z2)))
    assert round(tango(0, 0, 30, 0.01)[1], 3) == 0.153
    assert paired(0, 0, 30, 0.01)[1] == pytest.approx(1 - 0.01 ** (1 / 30))


triples = some.integers(1, 150).flatmap(
    lambda n: some.integers(0, n).flatmap(lambda b: some.tuples(some.just(b), some.integers(0, n - b), some.just(n)))
)


@settings(deadline=None)
@given(triples)
def test_the_paired_interval_is_an_interval(counts):
    """It holds the estimate, stays within −1 and 1, and is negated when the arms are swapped."""
    b, c, n = counts
    for interval in (tango, paired):
        low, high = interval(b, c, n, 0.01)
        assert -1 <= low <= (c - b) / n + 1e-12
        assert (c - b) / n - 1e-12 <= high <= 1
        assert interval(c, b, n, 0.01) == pytest.approx((-high, -low), abs=1e-12)


@settings(deadline=None)
@given(triples)
def test_one_more_hit_never_helps(counts):
    """A pair that gains a hit, or no longer loses one, never lowers a bound."""
    b, c, n = counts
    low, high = paired(b, c, n, 0.01)
    if b + c < n:
        assert paired(b, c + 1, n, 0.01)[0] >= low - 1e-12
        assert paired(b, c + 1, n, 0.01)[1] >= high - 1e-12
    assume(b > 0)
    assert paired(b - 1, c, n, 0.01)[0] >= low - 1e-12
    assert paired(b - 1, c, n, 0.01)[1] >= high - 1e-12


@pytest.mark.parametrize("n", [90, 103])
def test_the_size_of_the_paired_bound_is_as_its_docstring_says(n):
    """Enumerated at D = .05: "high < .05" is wrong in more than alpha, but in at most 1.16 % of runs."""
    region = []
    for b in range(n + 1):
        for c in range(n + 1 - b):
            if paired(b, c, n, 0.01)[1] >= 0.05:
                break
            region.append((b, c))
    b, c = np.array(region).T
    factorial = np.array([math.lgamma(k + 1) for k in range(n + 1)])
    ways = factorial[n] - factorial[b] - factorial[c] - factorial[n - b - c]
    sizes = [
        np.exp(ways + b * np.log(q) + c * np.log(q + 0.05) + (n - b - c) * np.log(0.95 - 2 * q)).sum()
        for q in np.linspace(1e-9, 0.475 - 1e-9, 200)
    ]
    assert 0.01 < max(sizes) < 0.01165


def test_mcnemar_is_exact():
    """The p values of the statistics note, and statsmodels' two-sided one."""
    from statsmodels.stats.contingency_tables import mcnemar

    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(0, 3) == 0.125
    assert mcnemar_exact(0, 11) == 0.5**11
    assert 2 * mcnemar_exact(4, 13) == pytest.approx(mcnemar([[5, 4], [13, 5]], exact=True).pvalue)
    assert mcnemar_exact(1200, 1300) == pytest.approx(0.02384, abs=1e-5)


def test_the_zero_event_floor():
    """The floors of the statistics note, and what they mean."""
    assert [zero_event_floor(d, 0.01) for d in (0.1, 0.05, 0.02, 0.01, 0.005, 0.001)] == [44, 90, 228, 459, 919, 4603]
    assert paired(0, 0, 90, 0.01)[1] < 0.05 < paired(0, 0, 89, 0.01)[1]
    for limit in (0.0, 1.0, -0.1):
        with pytest.raises(SpecError):
            zero_event_floor(limit, 0.01)
