"""The check lets the honest engines pass and catches the wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.statistics import FIXED, Hybrid, Shuffled
from resurgence_harness.statistics.betting import _Paths
from resurgence_harness.statistics.designs import Limits
from resurgence_harness.validation.edges import (
    Peeked,
    check_level,
    check_order,
    check_rise,
    ever,
    independent,
    seeded,
    shuffled_grid,
)
from resurgence_harness.validation.report import Must

pytestmark = pytest.mark.slow

MEASURED = {"alphas": (0.05,), "replicates": 300, "seed": 0}


@pytest.mark.parametrize("design", [Shuffled(500), Hybrid(500)], ids=str)
def test_honest_engines_pass(design):
    """At D = delta, both sides, and at the level's limit."""
    case = (10, 35) if isinstance(design, Shuffled) else (0.02, 0.07)
    rows = check_rise(design, [case], 500, delta=0.05, **MEASURED)
    rows += check_level(design, (500,), limit=0.10, **MEASURED)
    assert len(rows) == 4
    assert all(row.passed for row in rows)


def test_fixed_numbers_of_images_pass_at_the_edge():
    """Clopper and Pearson's bounds, and Tango's at the nominal alpha whose size is alpha."""
    assert all(row.passed for row in check_level(FIXED, (90, 250), limit=0.10, **MEASURED))
    rows = check_rise(FIXED, [(0.005, 0.055)], 125, delta=0.05, alphas=(0.01,), replicates=4000, seed=0)
    assert {row.must for row in rows} == {Must.AT_MOST}
    assert all(row.passed for row in rows)


def test_an_engine_that_peeks_is_caught():
    """The same check, and the row passes because the error is too large."""
    (row,) = check_rise(Peeked(), [(0.02, 0.07)], 500, delta=0.05, **MEASURED)
    assert row.must is Must.EXCEED
    assert row.passed
    assert row.value > 0.15


def test_a_wrong_bet_is_caught(monkeypatch):
    """Evidence ten times too large fails the check of the very engine that makes it."""
    honest = _Paths.evidence
    monkeypatch.setattr(_Paths, "evidence", lambda paths, means: 10 * honest(paths, means))
    rows = check_rise(Shuffled(500), [(100, 125)], 500, delta=0.05, **MEASURED)
    assert not any(row.passed for row in rows)


def test_concepts_one_after_the_other_deceive_the_bets():
    """In random order both sides err at most alpha; concept by concept both err far more often."""
    rows = check_order(total=500, concepts=20, risen=2, delta=0.05, alpha=0.05, replicates=300, seed=0)
    assert [row.must for row in rows] == [Must.AT_MOST, Must.AT_MOST, Must.EXCEED, Must.EXCEED]
    assert all(row.passed for row in rows)


def test_truths_lie_on_the_limit():
    """A grid holds it exactly, independent outcomes on average."""
    x = shuffled_grid(10, 35, 500)(20, seeded(0, "x"))
    assert x.mean(axis=1) == pytest.approx(0.05)
    assert len({row.tobytes() for row in x}) == 20
    y = independent(0.02, 0.07, 1000)(400, seeded(0, "y"))
    assert [float((y == v).mean()) for v in (-1, 1)] == pytest.approx([0.02, 0.07], abs=0.002)


def test_the_same_seed_draws_the_same():
    """And another one, or another check, something else."""
    draws = [seeded(seed, what).random() for seed, what in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_one_look_through_the_design_itself():
    """Fixed's bounds, row by row."""
    x = independent(0.02, 0.3, 60)(30, seeded(0, "z"))
    called = ever(FIXED, x, limit=0.2, least=-1, alphas=(0.1,))[0.1]
    bounds = [FIXED.difference([int(v) for v in row], 0.1, limits=Limits(0.2, 0.2)) for row in x]
    assert called.holds.tolist() == [high < 0.2 for _, high in bounds]
    assert called.broken.tolist() == [low > 0.2 for low, _ in bounds]
    assert np.any(called.broken)
