"""Bounds that may be looked at after every image: their error is summed over all orders, not hoped for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics.betting import betting_bounds, e_value
from resurgence_harness.statistics.intervals import paired


def orders(values: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every order of a grid, each distinct one once; all are equally likely."""
    return sorted(set(itertools.permutations(values)))


GRIDS = [pytest.param(0, (1,) * hits + (0,) * (8 - hits), id=f"{hits} of 8") for hits in range(9)] + [
    pytest.param(-1, (1,) * gained + (-1,) * lost + (0,) * (7 - gained - lost), id=f"+{gained} -{lost} of 7")
    for gained, lost in ((0, 0), (1, 1), (2, 1), (3, 2), (0, 3), (7, 0))
]


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4])
@pytest.mark.parametrize(("least", "values"), GRIDS)
def test_at_most_alpha_of_all_orders_ever_refute_the_truth(least, values, alpha):
    """Over every order of the grid, the share in which the true mean is refuted at any look is at most alpha."""
    true = sum(values) / len(values)
    every = orders(values)
    for at_least in (True, False):
        refuted = [
            e_value(order, mean=true, least=least, grid=len(values), at_least=at_least) >= 1 / alpha for order in every
        ]
        assert sum(refuted) / len(every) <= alpha


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("judged", [(1, 0, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 0, -1, 0, 0, 1), (1, 1, 1, 0)])
def test_an_unknown_part_of_a_grid_is_bounded_as_safely(judged, alpha):
    """The judged images of a grid of 9, whose number nobody knows: their mean is refuted in at most alpha of orders."""
    least, true = (-1, sum(judged) / 6) if -1 in judged else (0, sum(judged) / len(judged))
    every = orders(judged)
    wrong = 0
    for order in every:
        looks = [
            betting_bounds(order[:n], least=least, grid=9, alpha=alpha, whole=False) for n in range(1, len(order) + 1)
        ]
        wrong += any(high < true for _, high in looks)
    assert wrong / len(every) <= alpha


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60), st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_swapping_the_arms_negates_the_bounds(values, more):
    """D becomes −D."""
    grid = len(values) + more
    low, high = betting_bounds(tuple(values), least=-1, grid=grid, alpha=0.01)
    mirrored = betting_bounds(tuple(-value for value in values), least=-1, grid=grid, alpha=0.01)
    assert mirrored == pytest.approx((-high, -low), abs=3e-4)


@given(st.lists(st.sampled_from([0, 1]), min_size=2, max_size=50), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_one_more_hit_never_helps(values, more):
    """Turning a clear image into a hit never lowers the upper bound."""
    grid = len(values) + more
    _, high = betting_bounds(tuple(values), least=0, grid=grid, alpha=0.01)
    for place, value in enumerate(values):
        if value == 0:
            worse = (*values[:place], 1, *values[place + 1 :])
            assert betting_bounds(worse, least=0, grid=grid, alpha=0.01)[1] >= high - 2e-4
            break


def test_a_grid_seen_to_its_end_is_known():
    """No bound is left around what is known."""
    assert betting_bounds((1, 0, 0, 0), least=0, grid=4, alpha=0.01) == (0.25, 0.25)


def test_bounds_only_tighten():
    """What was refuted at one look stays refuted."""
    draw = np.random.default_rng(5).choice([-1, 0, 1], p=[0.05, 0.85, 0.1], size=200)
    looks = [
        betting_bounds(tuple(int(v) for v in draw[:n]), least=-1, grid=400, alpha=0.01) for n in range(10, 201, 10)
    ]
    for earlier, later in itertools.pairwise(looks):
        assert later[0] >= earlier[0] - 3e-4
        assert later[1] <= earlier[1] + 3e-4


def test_bounds_are_where_the_evidence_says():
    """A bound is the smallest mean that is refuted, from outside, to within .0003."""
    values = (0,) * 60 + (1,) + (0,) * 60
    _, high = betting_bounds(values, least=-1, grid=500, alpha=0.01)
    assert e_value(values, mean=high, least=-1, grid=500, at_least=True) >= 100
    assert e_value(values, mean=high - 3e-4, least=-1, grid=500, at_least=True) < 100


def median_pairs(
    before: float, after: float, r: float, *, delta: float, grid: int, replicates: int, seed: int
) -> float:
    """Pairs until D is told from delta; r = P(detected after | detected before)."""
    draw = np.random.default_rng(seed)
    lost, gained = before * (1 - r), after - before * r
    found = []
    for _ in range(replicates):
        d = tuple(int(v) for v in draw.choice([-1, 0, 1], p=[lost, 1 - lost - gained, gained], size=grid))
        for n in range(8, grid + 1, 4):
            low, high = betting_bounds(d[:n], least=-1, grid=grid, alpha=0.01)
            if high < delta or low > delta:
                break
        found.append(n)
    return float(np.median(found))


@pytest.mark.parametrize(
    ("before", "after", "r", "most"),
    [(0.042, 0.391, 0.7, 40), (0.042, 0.042, 0.5, 300), (0.023, 0.030, 0.5, 300)],
    ids=["MACE-like rise", "A/A", "UCE-like object"],
)
def test_clear_cases_settle_early(before, after, r, most):
    """On the paper's grid of 2,500 pairs, at delta .05 and alpha .01: medians of the pairs that settle it."""
    assert median_pairs(before, after, r, delta=0.05, grid=2500, replicates=31, seed=1) <= most


def test_a_fixed_test_that_is_peeked_at_is_caught():
    """Tango's bound, looked at every ten pairs, far too often calls a true rise of delta smaller; betting does not."""
    draw, delta, alpha, runs = np.random.default_rng(3), 0.05, 0.05, 400
    grid = np.array([1] * 35 + [-1] * 10 + [0] * 455)  # D = .05 exactly
    wrong = {"peeked": 0, "betting": 0}
    for _ in range(runs):
        d = tuple(int(v) for v in draw.permutation(grid))
        looks = range(10, 301, 10)
        wrong["peeked"] += any(paired(d[:n].count(-1), d[:n].count(1), n, alpha)[1] < delta for n in looks)
        wrong["betting"] += e_value(d, mean=delta, least=-1, grid=500, at_least=True) >= 1 / alpha
    allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    assert wrong["betting"] / runs <= allowed < wrong["peeked"] / runs


@pytest.mark.parametrize("values", [(), (0,) * 11, (2,), (0.5,), (math.nan,), (-1,)])
def test_what_cannot_be_is_refused(values):
    """No outcome, more than the grid has, values that are none."""
    with pytest.raises(HarnessError):
        betting_bounds(values, least=0, grid=10, alpha=0.01)


@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0, math.nan])
def test_alpha_must_be_an_error(alpha):
    """Above 0 and below one half."""
    with pytest.raises(SpecError):
        betting_bounds((0,), least=0, grid=10, alpha=alpha)
