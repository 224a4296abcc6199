"""What a verdict costs and sees, against the numbers of the statistics note."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.validation import expected_pairs, fixed_pairs
from resurgence_harness.validation.edges import seeded
from resurgence_harness.validation.power import check_costs, check_power, costs_of_a_claim, plant

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("psi", "numbers"),
    [
        (0.01, (16, 64, 395, 1578)),
        (0.02, (32, 127, 789, 3155)),
        (0.05, (79, 316, 1972, 7886)),
        (0.095, (150, 600, 3746, 14982)),
        (0.20, (316, 1262, 7886, 31541)),
        (0.50, (789, 3155, 19714, 78853)),
    ],
)
def test_the_table_of_fixed_numbers(psi, numbers):
    """At D = 0, for delta of 10, 5, 2 and 1 points: as in the note, which rounds."""
    found = [fixed_pairs(psi, 0.0, delta) for delta in (0.10, 0.05, 0.02, 0.01)]
    assert found == pytest.approx(numbers, abs=1)


@pytest.mark.parametrize("wrong", [(0.1, 0.2, 0.05), (0.1, 0.05, 0.05), (1.5, 0.0, 0.05), (0.1, 0.0, 0.05, 0.01, 1.0)])
def test_what_no_number_answers_is_refused(wrong):
    """More difference than discordance, none from delta, more than all pairs, certainty."""
    with pytest.raises(SpecError):
        fixed_pairs(*wrong)


@pytest.mark.parametrize(
    ("before", "after", "r", "noted"),
    [(0.042, 0.391, 0.7, 36), (0.042, 0.042, 0.5, 235), (0.023, 0.030, 0.5, 252), (0.045, 0.033, 0.5, 143)],
)
def test_expected_pairs_are_those_of_the_note(before, after, r, noted):
    """On the paper's grid: as in the note, but for looks every 25 pairs (half a block on average) and 8 stakes."""
    cost = expected_pairs(before, after, r, 0.05, 2500, replicates=200)
    assert noted - 5 < cost.mean < noted + 0.12 * noted + 15
    assert cost.median <= cost.p95
    assert (cost.broken if after > 0.1 else cost.holds) > 0.99
    assert cost == expected_pairs(before, after, r, 0.05, 2500, replicates=200)


def test_a_smaller_grid_never_costs_more():
    """The grid's end is an answer."""
    means = [expected_pairs(0.55, 0.55, 0.7, 0.05, grid, replicates=100).mean for grid in (100, 250, 500)]
    assert means == sorted(means)
    assert all(mean <= grid for mean, grid in zip(means, (100, 250, 500), strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        (0.5, 0.1, 0.9, 0.05, 250),
        (1.2, 0.5, 0.5, 0.05, 250),
        (0.0, 0.1, 0.0, 0.0, 250),
        (0.0, 0.1, 0.0, 0.05, 0),
        (0.0, 0.1, 0.0, 0.05, 250, 0.7),
    ],
)
def test_truths_that_cannot_be_are_refused(wrong):
    """More kept than there are, rates beyond 1, no limit, no grid, no alpha."""
    with pytest.raises(SpecError):
        expected_pairs(*wrong)


def test_planting_raises_the_stored_rate_by_what_was_planted():
    """Exactly, in every replicate, out of clear images alone, wherever they are."""
    x = plant(50, 35, 500, 50, 30, seeded(0, "plant"))
    assert x.sum(axis=1).tolist() == [50] * 30
    assert set(np.unique(x)) <= {-1, 0, 1}
    lost = (x == -1).sum(axis=1)
    assert lost.max() <= 15
    assert len(set(lost.tolist())) > 1
    nothing = plant(50, 35, 500, 0, 5, seeded(0, "none"))
    assert nothing.sum(axis=1).tolist() == [0] * 5
    assert (nothing == 1).sum(axis=1).tolist() == [15] * 5


def test_a_planted_rise_is_seen():
    """Five points beyond delta, at the declared cap."""
    rows = check_power(rates=(0.0, 0.3), r=0.7, delta=0.05, beyond=0.05, cap=500, alpha=0.01, replicates=100, seed=0)
    assert all(row.passed for row in rows)


def test_a_verdict_seldom_contradicts_its_grid():
    """And the costs stand beside it, one line per truth."""
    rows = check_costs(grid=250, delta=0.05, alpha=0.01, replicates=100, seed=0)
    judged = [row for row in rows if row.passed is not None]
    assert len(judged) == 2
    assert all(row.passed for row in judged)
    assert sum("median" in row.setting for row in rows) == 10


def test_a_claims_costs_are_told_for_four_truths():
    """What is clear costs little; what lies near the limit costs most, and nothing is told wrongly."""
    nothing, same, near, back = (cost for _, cost in costs_of_a_claim(0.05, 0.01, 500))
    assert nothing.holds == 1 and same.holds > 0.97
    assert near.broken > 0.9 and near.holds == 0
    assert back.broken == 1
    assert back.median < nothing.median < same.median < near.median
