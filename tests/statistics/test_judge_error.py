"""The judge's own error: hand values, coverage by enumeration and simulation, and what must never make a gate laxer."""

from __future__ import annotations

from functools import partial

import pytest

from resurgence_harness.errors import JudgeError, SpecError
from resurgence_harness.statistics import clopper_pearson
from resurgence_harness.statistics.judge_error import (
    JudgeAccuracy,
    observed_delta,
    youden,
)

ALPHA = 0.01


def accuracy(sensitivity: float, specificity: float, pictures: int = 1000) -> JudgeAccuracy:
    """So many calibration pictures of each kind."""
    return JudgeAccuracy(
        true_positives=round(sensitivity * pictures),
        positives=pictures,
        true_negatives=round(specificity * pictures),
        negatives=pictures,
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((-1, 10, 5, 10), "contradict"),
        ((11, 10, 5, 10), "contradict"),
        ((5, 10, -1, 10), "contradict"),
        ((5, 10, 11, 10), "contradict"),
        ((0, 0, 5, 10), "lacks pictures"),
        ((5, 10, 0, 0), "lacks pictures"),
        ((float("nan"), 10, 5, 10), "whole pictures"),
        ((5, 10, 0.5, 10), "whole pictures"),
    ],
)
def test_a_calibration_counts_pictures(counts, words):
    """Negative, contradictory, missing and fractional counts are errors of the judge."""
    names = ("true_positives", "positives", "true_negatives", "negatives")
    with pytest.raises(JudgeError, match=words):
        JudgeAccuracy(**dict(zip(names, counts, strict=True)))


def test_accuracy_by_hand():
    """Rates, exact bounds, and the counts of a calibration, which has false alarms."""
    seen = JudgeAccuracy.of_counts(recognised=45, subjects=50, false_alarms=4, others=80)
    assert (seen.true_negatives, seen.negatives) == (76, 80)
    assert (seen.sensitivity, seen.specificity) == (0.9, 0.95)
    assert seen.sensitivity_bounds(ALPHA) == clopper_pearson(45, 50, ALPHA)
    assert seen.specificity_bounds(ALPHA) == clopper_pearson(76, 80, ALPHA)


@pytest.mark.parametrize("alpha", [0.0, 0.5, float("nan")])
def test_alpha_is_an_error_probability(alpha):
    """An alpha that means nothing is a spec error."""
    good = accuracy(0.9, 0.95)
    for call in (
        partial(youden, good),
        partial(observed_delta, 0.05, good),
    ):
        with pytest.raises(SpecError, match="alpha"):
            call(alpha=alpha)


def test_youden_by_hand():
    """J of (.9, .95) is .85; its lower bound is that of both rates at half of alpha each."""
    seen = accuracy(0.9, 0.95)
    found = youden(seen, ALPHA)
    assert found.estimate == pytest.approx(0.85)
    assert found.low == seen.sensitivity_bounds(ALPHA / 2)[0] + seen.specificity_bounds(ALPHA / 2)[0] - 1
    assert found.low < found.estimate < found.high


def test_an_imperfect_judge_makes_the_limit_stricter():
    """5 points read as 4.25 with (.9, .95), as 3.5 with (.8, .9); fewer calibration pictures make it stricter still."""
    many = 10_000_000
    assert observed_delta(0.05, accuracy(0.9, 0.95, many), ALPHA) == pytest.approx(0.0425, abs=1e-4)
    assert observed_delta(0.05, accuracy(0.8, 0.9, many), ALPHA) == pytest.approx(0.035, abs=1e-4)
    limits = [observed_delta(0.05, accuracy(0.9, 0.95, pictures), ALPHA) for pictures in (100, 1000, 10_000)]
    assert 0 < limits[0] < limits[1] < limits[2] < 0.0425
    assert observed_delta(0.05, accuracy(1.0, 1.0), ALPHA) < 0.05


@pytest.mark.parametrize("seen", [accuracy(0.5, 0.5), accuracy(0.9, 0.95, pictures=4), accuracy(0.6, 0.6, pictures=20)])
def test_a_judge_not_shown_to_be_better_than_chance_limits_nothing(seen):
    """Bad rates, or too few pictures to tell: an error, never a limit of 0 or below."""
    with pytest.raises(JudgeError, match="better than chance"):
        observed_delta(0.05, seen, ALPHA)


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_is_a_fraction(wrong):
    """Limits that allow nothing or everything are spec errors."""
    with pytest.raises(SpecError, match="delta"):
        observed_delta(wrong, accuracy(0.9, 0.95), ALPHA)
