"""Sums over all outcomes against sums written out longhand."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics import Hybrid, e_value, paired
from resurgence_harness.statistics.designs import Limits
from resurgence_harness.validation import Side, critical_alpha, worst_paired, worst_proportion
from resurgence_harness.validation.exactness import check_paired, hybrid_error, order_error
from resurgence_harness.validation.report import Must

pytestmark = pytest.mark.slow


def longhand(n: int, delta: float, alpha: float, q: float) -> dict[Side, float]:
    """The multinomial, count by count, through `paired` itself."""
    found = {Side.HOLDS: 0.0, Side.VIOLATED: 0.0}
    for b in range(n + 1):
        for c in range(n + 1 - b):
            low, high = paired(b, c, n, alpha)
            chance = (
                math.comb(n, b) * math.comb(n - b, c) * q**b * (q + delta) ** c * (1 - 2 * q - delta) ** (n - b - c)
            )
            found[Side.HOLDS] += chance * (high < delta)
            found[Side.VIOLATED] += chance * (low > delta)
    return found


@pytest.mark.parametrize(("n", "delta", "alpha"), [(12, 0.3, 0.05), (30, 0.1, 0.05), (45, 0.1, 0.01)])
def test_sizes_are_multinomial_sums(n, delta, alpha):
    """At given rates of discordance, and the worst is at least that of any other."""
    worst = worst_paired(n, delta, alpha)
    for q in np.linspace(0, (1 - delta) / 2, 7):
        found = longhand(n, delta, alpha, float(q))
        for side in Side:
            assert found[side] <= worst[side].error + 1e-12
    for side in Side:
        assert longhand(n, delta, alpha, worst[side].at)[side] == pytest.approx(worst[side].error, abs=1e-10)


def test_known_sizes_of_the_paired_bound():
    """As `intervals.paired` says: 1.16 % at 90 pairs, 1.39 % at 60 (delta .10), 1.98 % at 150."""
    assert worst_paired(90, 0.05, 0.01)[Side.HOLDS].error == pytest.approx(0.0116, abs=5e-5)
    assert worst_paired(60, 0.10, 0.01)[Side.HOLDS].error == pytest.approx(0.0139, abs=5e-5)
    assert worst_paired(150, 0.05, 0.01)[Side.VIOLATED].error == pytest.approx(0.0198, abs=5e-5)


def test_at_the_default_number_of_pairs_the_bound_errs_more_than_twice_alpha():
    """125 pairs, half a percent lost: VIOLATED in 2.42 % at D = .05, where alpha is 1 %."""
    found = worst_paired(125, 0.05, 0.01)[Side.VIOLATED]
    assert found.error == pytest.approx(0.0242, abs=5e-5)
    chance = sum(
        math.comb(125, b)
        * math.comb(125 - b, c)
        * found.at**b
        * (found.at + 0.05) ** c
        * (0.95 - 2 * found.at) ** (125 - b - c)
        for b in range(15)
        for c in range(40)
        if paired(b, c, 125, 0.01)[0] > 0.05
    )
    assert chance == pytest.approx(found.error, rel=1e-6)


@pytest.mark.parametrize("n", [90, 125])
def test_the_critical_alpha_is_the_largest_that_does_not_err(n):
    """At it the worst case is at most alpha; a hair above it, more; and the zero-event floor stays."""
    for side in Side:
        nominal = critical_alpha(n, 0.05, 0.01, side)
        assert 0 < nominal < 0.01
        assert worst_paired(n, 0.05, 0.01, tango_alpha=nominal)[side].error <= 0.01
        assert worst_paired(n, 0.05, 0.01, tango_alpha=nominal + 2e-5)[side].error > 0.01
    assert critical_alpha(n, 0.05, 0.01) == min(critical_alpha(n, 0.05, 0.01, side) for side in Side)
    assert worst_paired(n, 0.05, 0.01, tango_alpha=1e-9)[Side.HOLDS].error > 0


def test_what_is_known_to_err_is_told_and_what_is_corrected_is_judged():
    """Tango's rows are not judged; the lowered ones are, and pass."""
    rows = check_paired((90,), 0.05, 0.01)
    assert [row.must for row in rows] == [Must.SHOULD, Must.SHOULD, Must.AT_MOST, Must.AT_MOST]
    assert [row.answer for row in rows] == ["known", "known", "yes", "yes"]


@pytest.mark.parametrize(("n", "delta", "alpha"), [(0, 0.05, 0.01), (90, 0.0, 0.01), (90, 1.0, 0.01), (90, 0.05, 0.5)])
def test_what_gives_no_claim_is_refused(n, delta, alpha):
    """No pairs, no limit, no alpha."""
    for call in (worst_paired, critical_alpha):
        with pytest.raises(SpecError):
            call(n, delta, alpha)


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.05), (90, 0.01)])
def test_the_bound_of_a_rate_errs_alpha_at_worst_and_no_more(n, alpha):
    """Just beside a bound it errs by alpha itself: the worst case is found, and it is the claimed one."""
    for size in worst_proportion(n, alpha).values():
        assert alpha - 1e-6 < size.error <= alpha + 1e-9


def every_sequence(limit: float, cap: int, alpha: float, chances: dict[int, float], least: int) -> dict[Side, float]:
    """All sequences of `cap` outcomes, one by one, through the engine."""
    found = {Side.HOLDS: 0.0, Side.VIOLATED: 0.0}
    design = Hybrid(cap)
    for row in itertools.product(chances, repeat=cap):
        chance = math.prod(chances[outcome] for outcome in row)
        bounds = partial(design.difference, limits=Limits(limit, limit)) if least < 0 else design.proportion
        looks = [bounds(row[:n], alpha) for n in range(1, cap + 1)]
        found[Side.HOLDS] += chance * any(high < limit for _, high in looks)
        found[Side.VIOLATED] += chance * any(low > limit for low, _ in looks)
    return found


def test_the_hybrids_error_is_a_sum_over_all_sequences():
    """Seven pairs and nine images at a large alpha, every sequence looked at after every outcome."""
    limit, lost = 0.31, 0.1
    told = every_sequence(limit, 7, 0.4, {-1: lost, 0: 1 - 2 * lost - limit, 1: lost + limit}, -1)
    assert hybrid_error(limit, 7, 0.4, lost=lost) == pytest.approx(told, abs=1e-9)
    told = every_sequence(0.37, 9, 0.3, {0: 0.63, 1: 0.37}, 0)
    assert hybrid_error(0.37, 9, 0.3) == pytest.approx(told, abs=1e-9)
    assert min(told.values()) > 0


@pytest.mark.parametrize("lost", [None, 0.0, 0.02])
def test_the_hybrid_errs_at_most_alpha(lost):
    """At its default cap."""
    found = hybrid_error(0.05 if lost is not None else 0.10, 500, 0.01, lost=lost)
    assert all(0.003 < error <= 0.01 for error in found.values())


@pytest.mark.parametrize("values", [(1, 1, 0, 0, 0, 0, 0), (1, -1, 1, 0, 0, 0)])
def test_orders_are_all_orders(values):
    """Against every permutation, repeated ones included, through `e_value`."""
    mean, least = sum(values) / len(values), min(values)
    for side, error in order_error(values, 0.4).items():
        refuted = [
            e_value(row, mean=mean, least=least, grid=len(values), at_least=side is Side.HOLDS) >= 1 / 0.4
            for row in itertools.permutations(values)
        ]
        assert error == pytest.approx(sum(refuted) / len(refuted))
        assert error <= 0.4
