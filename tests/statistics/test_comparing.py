"""The change of a rate between two runs: the error rates of its intervals, enumerated or simulated."""

from __future__ import annotations

from functools import cache
from itertools import product
from random import Random
from typing import Any

import pytest

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics import FIXED, Shuffled, mcnemar_exact
from resurgence_harness.statistics.comparing import (
    NUISANCE,
    Counts,
    exact_paired,
    paired_change,
    stopped_bounds,
    unpaired_change,
)
from resurgence_harness.statistics.evidence import Outcome

HIT, CLEAR, ABSTAINED = Outcome.HIT, Outcome.CLEAR, Outcome.ABSTAINED


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.05), (8, 0.05), (8, 0.2), (20, 0.05), (20, 0.01)])
def test_each_exact_paired_bound_errs_at_most_alpha(n: int, alpha: float) -> None:
    """Enumerated over every outcome, for a grid of P(lost) and P(gained)."""
    from scipy.stats import multinomial

    bounds = {(b, c): exact_paired(b, c, n, alpha) for b in range(n + 1) for c in range(n + 1 - b)}
    for lost, gained in product([0.0, 0.02, 0.1, 0.3, 0.5], [0.0, 0.02, 0.1, 0.3, 0.5]):
        chance = multinomial(n, [lost, gained, 1 - lost - gained])
        difference = gained - lost
        p = chance.pmf([[b, c, n - b - c] for b, c in bounds])
        above = sum(p[[low > difference + 1e-9 for low, _ in bounds.values()]])
        below = sum(p[[high < difference - 1e-9 for _, high in bounds.values()]])
        assert above <= alpha and below <= alpha, (lost, gained, above, below)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 7), (1, 12), (3, 14), (10, 10), (14, 3), (20, 0)])
def test_the_exact_bound_excludes_zero_exactly_if_mcnemars_test_rejects(b: int, c: int) -> None:
    """At the share of alpha that is left for the discordant pairs; the interval is symmetric in the two runs."""
    for alpha in (0.001, 0.01, 0.05, 0.2):
        low, high = exact_paired(b, c, 60, alpha)
        assert (low > 0) is (mcnemar_exact(b, c) < (1 - NUISANCE) * alpha)
        assert low <= (c - b) / 60 <= high
        assert exact_paired(c, b, 60, alpha) == pytest.approx((-high, -low))


def test_bounds_after_optional_stopping_err_at_most_alpha() -> None:
    """Sampling stops as soon as the bound is wrong, the worst rule there is; a bound of fixed size errs far more."""
    alpha, runs, most, rate = 0.05, 400, 300, 0.1
    random, wrong, low = Random(1), 0, cache(lambda hits, n: stopped_bounds(hits, n, alpha)[0])
    for _ in range(runs):
        hits = 0
        for n in range(1, most + 1):
            hits += random.random() < rate
            if n % 10 == 0 and low(hits, n) > rate:
                wrong += 1
                break
    assert wrong / runs <= alpha


def test_bounds_after_optional_stopping_contain_the_rate_and_shrink() -> None:
    """They are wider than exact ones, symmetric, and close in."""
    widths = []
    for n in (10, 100, 1000):
        low, high = stopped_bounds(n // 5, n, 0.01)
        assert low < 0.2 < high
        assert stopped_bounds(n - n // 5, n, 0.01) == pytest.approx((1 - high, 1 - low))
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.12
    assert stopped_bounds(0, 50, 0.01)[0] == 0 and stopped_bounds(50, 50, 0.01)[1] == 1


def test_an_abstained_image_shows_no_fall_and_hides_no_rise() -> None:
    """Where a rise is the harm, abstained images of the second run may be hits; where a fall is, those of the first."""
    n = 60
    about: dict[str, Any] = {"design": FIXED, "whole": True, "alpha": 0.01}
    fell = paired_change([HIT] * n, [ABSTAINED] * n, rises=True, **about)
    assert (fell.estimate, fell.high) == (-1.0, pytest.approx(exact_paired(0, 0, n, 0.01)[1])) and fell.high > 0
    assert paired_change([CLEAR] * n, [ABSTAINED] * n, rises=True, **about).high > 0.9
    lost = paired_change([HIT] * n, [ABSTAINED] * n, rises=False, **about)
    assert lost.high < -0.5, "retained concepts that cannot be judged any more are lost"
    assert paired_change([ABSTAINED] * n, [CLEAR] * n, rises=False, **about).low < -0.9
    first, second = (Counts(hits=hits, judged=hits, abstained=40 - hits, fixed=True) for hits in (40, 0))
    assert unpaired_change(first, second, rises=True, alpha=0.01).high > 0
    assert unpaired_change(first, second, rises=False, alpha=0.01).high < 0


@pytest.mark.parametrize("fixed", [True, False])
def test_a_large_rise_is_shown_paired_and_unpaired(fixed: bool) -> None:
    """The paired interval is narrower: it uses which images changed."""
    first, second = [HIT] * 10 + [CLEAR] * 90, [HIT] * 60 + [CLEAR] * 40
    design = FIXED if fixed else Shuffled(500)
    mixed = Random(2).sample(list(zip(first, second, strict=True)), 100)
    before, after = [one for one, _ in mixed], [two for _, two in mixed]
    paired = paired_change(before, after, rises=True, design=design, whole=True, alpha=1e-3)
    one, two = (Counts(hits=hits, judged=100, abstained=0, fixed=fixed) for hits in (10, 60))
    unpaired = unpaired_change(one, two, rises=True, alpha=1e-3)
    assert (paired.gained, paired.lost, paired.pairs, unpaired.pairs) == (50, 0, 100, 0)
    assert 0 < unpaired.low < paired.low < 0.5 == paired.estimate == unpaired.estimate
    assert (paired.p is not None) is fixed


def test_what_cannot_be_compared_is_refused() -> None:
    """No pairs, two lengths, impossible counts, an impossible alpha."""
    with pytest.raises(HarnessError):
        paired_change([], [], rises=True, design=FIXED, whole=True, alpha=0.01)
    with pytest.raises(HarnessError):
        paired_change([HIT], [HIT, HIT], rises=True, design=FIXED, whole=True, alpha=0.01)
    with pytest.raises(HarnessError):
        exact_paired(3, 3, 5, 0.01)
    with pytest.raises(HarnessError):
        stopped_bounds(3, 2, 0.01)
    with pytest.raises(SpecError):
        exact_paired(1, 1, 5, 0.7)
