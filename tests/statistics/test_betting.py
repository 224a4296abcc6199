"""Bounds that may be looked at after every image: their error is summed over all orders, not hoped for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics.betting import STAKES, _Paths, betting_bounds, e_value
from resurgence_harness.statistics.intervals import paired


def orders(values: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every order of a grid, each distinct one once; all are equally likely."""
    return sorted(set(itertools.permutations(values)))


def longhand(values: tuple[int, ...], mean: float, *, least: int, grid: int, whole: bool = True) -> float:
    """The largest evidence against "at least `mean`", bet by bet, as the module's docstring has it."""
    fortunes, seen, best = [1.0] * len(STAKES), 0, 1.0
    for place, x in enumerate(values):
        left = grid - place
        covered = (grid * mean - seen) / left
        if covered > 1 + 1e-12:
            return math.inf
        bets = covered > least and (whole or seen <= mean * place + 1e-12)
        if bets and covered < 1 - 1e-12:
            fortunes = [
                fortune * (1 + c * (covered - x) / (1 - covered)) for fortune, c in zip(fortunes, STAKES, strict=True)
            ]
        elif bets and x < 1:  # only ones could make up such a mean, and this is none
            return math.inf
        best, seen = max(best, sum(fortunes) / len(fortunes)), seen + x
    return math.inf if grid * mean - seen > grid - len(values) + 1e-9 else best


@given(
    st.sampled_from([-1, 0]).flatmap(
        lambda least: st.tuples(
            st.just(least), st.lists(st.sampled_from([-1, 0, 0, 0, 0, 1][1 + least :]), min_size=1, max_size=30)
        )
    ),
    st.integers(0, 30),
    st.floats(0.01, 0.99),
)
@settings(max_examples=150, deadline=None)
def test_the_evidence_is_the_product_of_its_bets(drawn, more, share):
    """Against the bets one after the other, on both sides, hits and differences."""
    least, values = drawn
    mean = least + share * (1 - least)
    grid = len(values) + more
    told = longhand(tuple(values), mean, least=least, grid=grid)
    assert e_value(values, mean=mean, least=least, grid=grid, at_least=True) == pytest.approx(told, rel=1e-6)
    mirrored = longhand(tuple(least + 1 - v for v in values), least + 1 - mean, least=least, grid=grid)
    assert e_value(values, mean=mean, least=least, grid=grid, at_least=False) == pytest.approx(mirrored, rel=1e-6)


@pytest.mark.parametrize(("least", "p"), [(-1, (0.05, 0.9, 0.05)), (-1, (0.3, 0.3, 0.4)), (0, (0, 0.9, 0.1))])
def test_bounds_are_the_first_mean_that_the_bets_refute(least, p):
    """From outside and to within .00013, as the module says."""
    random = np.random.default_rng(8)
    for images, grid in ((20, 30), (60, 61), (60, 400), (140, 150), (140, 5000)):
        values = tuple(int(v) for v in random.choice([-1, 0, 1], p=p, size=images))
        low, high = betting_bounds(values, least=least, grid=grid, alpha=0.05)
        mirrored = tuple(least + 1 - value for value in values)
        for row, bound in ((values, high), (mirrored, least + 1 - low)):
            if bound < 1:
                assert longhand(row, bound, least=least, grid=grid) >= 20
            assert longhand(row, bound - 1.3e-4, least=least, grid=grid) < 20


@pytest.mark.parametrize(("least", "p"), [(-1, (0.05, 0.9, 0.05)), (-1, (0.3, 0.3, 0.4)), (0, (0, 0.9, 0.1))])
def test_in_an_unknown_part_bets_are_placed_where_every_size_allows_them(least, p):
    """The evidence is that of the bets placed while the outcomes seen lie at or under the mean, and of no others."""
    random = np.random.default_rng(9)
    means = np.linspace(least + 0.02, 0.98, 25)
    for images, grid in ((5, 5), (20, 30), (60, 61), (60, 400)):
        values = tuple(int(v) for v in random.choice([-1, 0, 1], p=p, size=images))
        found = _Paths(np.array([values], dtype=float), least=least, grid=grid, whole=False).evidence(means[None])[0]
        told = [longhand(values, float(mean), least=least, grid=grid, whole=False) for mean in means]
        assert found == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize(
    ("least", "p"), [(-1, (0.01, 0.95, 0.04)), (-1, (0.05, 0.65, 0.3)), (-1, (0.3, 0.3, 0.4)), (0, (0, 0.9, 0.1))]
)
def test_every_mean_above_the_bound_of_an_unknown_part_is_refuted(least, p):
    """Its evidence may fall as the mean grows, so one refuted mean says nothing of larger ones: all must be.

    Just below the bound one is not refuted: there the evidence crosses, or falls where a mean of what was seen is.
    """
    random, falls = np.random.default_rng(6), 0
    for images, grid in ((20, 30), (60, 61), (110, 120), (150, 2500)):
        for _ in range(12):
            values = tuple(int(v) for v in random.choice([-1, 0, 1], p=p, size=images))
            low, high = betting_bounds(values, least=least, grid=grid, alpha=0.05, whole=False)
            mirrored = tuple(least + 1 - value for value in values)
            for row, bound in ((values, high), (mirrored, least + 1 - low)):
                paths = _Paths(np.array([row], dtype=float), least=least, grid=grid, whole=False)
                above = np.linspace(bound, 1, 400)
                assert bound == 1 or np.all(paths.evidence(above[None]) >= 20)
                reached = [sum(row[:n]) / n for n in range(1, images)]
                below = [mean for mean in (*reached, bound - 1.3e-4) if bound - 1.3e-4 <= mean <= bound]
                assert min(longhand(row, mean, least=least, grid=grid, whole=False) for mean in below) < 20
                evidence = paths.evidence(np.linspace(least, bound, 200)[None])[0]
                falls += bool(np.any(np.diff(evidence) < -1e-9))
    assert falls > 5


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


@pytest.mark.slow
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
