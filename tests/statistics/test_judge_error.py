"""The judge's own error: hand values, coverage by enumeration and simulation, and what must never make a gate laxer."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError, JudgeError, SpecError
from resurgence_harness.statistics import Judgment, Outcome, clopper_pearson, paired
from resurgence_harness.statistics.judge_error import (
    AtThreshold,
    JudgeAccuracy,
    apparent_rate,
    corrected_difference,
    hits_at,
    observed_delta,
    rogan_gladen,
    threshold_curve,
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


def judged(answer: str, score: float, seed: int, outcome: Outcome = Outcome.CLEAR) -> Judgment:
    """One judgment of a picture that asks for Ada."""
    return Judgment(concept="Ada", prompt="Ada", seed=seed, outcome=outcome, score=score, answer=answer)


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
        partial(rogan_gladen, 3, 90, good),
        partial(youden, good),
        partial(observed_delta, 0.05, good),
        partial(corrected_difference, (3, 90), (3, 90), good, good),
    ):
        with pytest.raises(SpecError, match="alpha"):
            call(alpha=alpha)


@pytest.mark.parametrize(
    ("hits", "images"), [(3, 2), (-1, 2), (0, 0), (float("nan"), 10), (2, float("nan")), (0.5, 10)]
)
def test_impossible_counts_are_errors_of_the_harness(hits, images):
    """They never become a rate."""
    with pytest.raises(HarnessError, match="impossible"):
        rogan_gladen(hits, images, accuracy(0.9, 0.95), ALPHA)


def test_rogan_gladen_by_hand():
    """q = .05 with Se .9 and Sp .99 is p = .04/.89; below the false alarms p is 0, above Se it is 1."""
    found = rogan_gladen(50, 1000, accuracy(0.9, 0.99), ALPHA)
    assert found.estimate == pytest.approx(0.04 / 0.89)
    assert found.low < 0.04 / 0.89 < found.high
    share = ALPHA / 3
    q_high, se_low = clopper_pearson(50, 1000, share)[1], clopper_pearson(900, 1000, share)[0]
    sp_high = clopper_pearson(990, 1000, share)[1]
    assert found.high == pytest.approx((q_high + sp_high - 1) / (se_low + sp_high - 1))
    assert rogan_gladen(0, 1000, accuracy(0.9, 0.9), ALPHA).estimate == 0.0
    assert rogan_gladen(1000, 1000, accuracy(0.9, 0.9), ALPHA).estimate == 1.0


def test_no_hits_are_not_certainty():
    """0 hits by a judge that overlooks much leave more room than 0 hits by a good one, and never none."""
    blind, sharp = (rogan_gladen(0, 90, accuracy(seen, 1.0), ALPHA) for seen in (0.5, 1.0))
    assert blind.low == sharp.low == blind.estimate == 0.0
    assert blind.high > 1.9 * sharp.high > 1.9 * clopper_pearson(0, 90, ALPHA)[1]


def test_few_calibration_pictures_leave_everything_open():
    """Two pictures of each kind could have been guessed right: the bounds are 0 and 1."""
    found = rogan_gladen(45, 90, accuracy(1.0, 1.0, pictures=2), ALPHA)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.5, 0.5), (0.3, 0.6), (0.0, 1.0)])
def test_a_judge_that_guesses_is_not_corrected(sensitivity, specificity):
    """Se + Sp of 1 or less is an error, not a division."""
    with pytest.raises(JudgeError, match="better than chance"):
        rogan_gladen(3, 90, accuracy(sensitivity, specificity), ALPHA)


def test_the_corrected_bounds_err_no_more_than_alpha():
    """Enumerated over every outcome of 10 images and 8 + 8 calibration pictures; a judge that guesses says nothing."""
    from scipy.stats import binom

    alpha, images, pictures = 0.2, 10, 8
    lows, highs = np.zeros((2, images + 1, pictures + 1, pictures + 1))
    for hits, found, spared in itertools.product(range(images + 1), range(pictures + 1), range(pictures + 1)):
        counts = JudgeAccuracy(true_positives=found, positives=pictures, true_negatives=spared, negatives=pictures)
        if found + spared <= pictures:
            lows[hits, found, spared], highs[hits, found, spared] = 0.0, 1.0
            continue
        corrected = rogan_gladen(hits, images, counts, alpha)
        lows[hits, found, spared], highs[hits, found, spared] = corrected.low, corrected.high
    rates = (0.0, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0)
    for p, se, sp in itertools.product(rates, (0.4, 0.7, 0.9, 1.0), (0.3, 0.7, 0.9, 1.0)):
        weights = (
            binom.pmf(np.arange(images + 1), images, apparent_rate(p, se, sp))[:, None, None]
            * binom.pmf(np.arange(pictures + 1), pictures, se)[:, None]
            * binom.pmf(np.arange(pictures + 1), pictures, sp)
        )
        assert weights[highs < p - 1e-12].sum() <= alpha + 1e-9
        assert weights[lows > p + 1e-12].sum() <= alpha + 1e-9


def test_ignoring_the_calibration_s_own_error_misses_too_often():
    """600 images and 50 + 50 pictures: an exact bound of q alone, with Se and Sp as estimated, misses too often."""
    rng = np.random.default_rng(22)
    p, se, sp, images, pictures, alpha, runs = 0.04, 0.9, 0.95, 600, 50, 0.05, 1500
    missed = {"plugged in": 0, "corrected": 0}
    counts = zip(
        rng.binomial(images, apparent_rate(p, se, sp), runs).tolist(),
        rng.binomial(pictures, se, runs).tolist(),
        rng.binomial(pictures, sp, runs).tolist(),
        strict=True,
    )
    for hits, found, spared in counts:
        seen = JudgeAccuracy(true_positives=found, positives=pictures, true_negatives=spared, negatives=pictures)
        q_high = clopper_pearson(hits, images, alpha)[1]
        missed["plugged in"] += (q_high + seen.specificity - 1) / (seen.sensitivity + seen.specificity - 1) < p
        missed["corrected"] += rogan_gladen(hits, images, seen, alpha).high < p
    assert missed["corrected"] <= alpha * runs
    assert missed["plugged in"] > 4 * alpha * runs


accuracies = some.builds(
    lambda positives, negatives, overlooked, alarms: JudgeAccuracy.of_counts(
        recognised=positives - min(overlooked, positives // 3),
        subjects=positives,
        false_alarms=min(alarms, negatives // 3),
        others=negatives,
    ),
    some.integers(3, 300),
    some.integers(3, 300),
    some.integers(0, 100),
    some.integers(0, 100),
)
arms = some.integers(1, 300).flatmap(lambda images: some.tuples(some.integers(0, images), some.just(images)))


@settings(deadline=None)
@given(arms, accuracies)
def test_one_more_hit_never_helps(arm, seen):
    """The bounds hold the estimate within 0 and 1, and another hit lowers none of the three."""
    hits, images = arm
    found = rogan_gladen(hits, images, seen, ALPHA)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    if hits < images:
        more = rogan_gladen(hits + 1, images, seen, ALPHA)
        assert more.low >= found.low - 1e-12
        assert more.estimate >= found.estimate - 1e-12
        assert more.high >= found.high - 1e-12


@settings(deadline=None)
@given(arms, accuracies)
def test_a_judge_that_overlooks_more_allows_for_more(arm, seen):
    """One more overlooked picture of the concept never lowers the upper bound."""
    if seen.true_positives * 2 <= seen.positives + 2:
        return
    blinder = JudgeAccuracy(
        true_positives=seen.true_positives - 1,
        positives=seen.positives,
        true_negatives=seen.true_negatives,
        negatives=seen.negatives,
    )
    assert rogan_gladen(*arm, blinder, ALPHA).high >= rogan_gladen(*arm, seen, ALPHA).high - 1e-12


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
def test_a_limit_or_a_rate_is_a_fraction(wrong):
    """Limits that allow nothing or everything are spec errors."""
    with pytest.raises(SpecError, match="delta"):
        observed_delta(wrong, accuracy(0.9, 0.95), ALPHA)
    if not 0 <= wrong <= 1:
        for rates in ((wrong, 0.9, 0.9), (0.04, wrong, 0.9), (0.04, 0.9, wrong)):
            with pytest.raises(SpecError, match="is"):
                apparent_rate(*rates)


@pytest.mark.parametrize(
    ("first", "second", "points"), [((0.6, 1.0), (0.9, 1.0), 1.2), ((0.9, 0.99), (0.9, 0.96), 2.9)]
)
def test_a_judge_that_sees_better_afterwards_invents_a_rise(first, second, points):
    """The true rate is 4 % in both arms: pairs read as a rise, counts corrected per arm do not."""
    images, pictures = 20_000, 50_000
    reads = [apparent_rate(0.04, *rates) for rates in (first, second)]
    assert 100 * (reads[1] - reads[0]) == pytest.approx(points, abs=0.05)
    hits = [round(images * read) for read in reads]
    assert paired(0, hits[1] - hits[0], images, ALPHA)[0] > 0.01
    arms_seen = [accuracy(*rates, pictures) for rates in (first, second)]
    found = corrected_difference((hits[0], images), (hits[1], images), *arms_seen, ALPHA)
    assert found.estimate == pytest.approx(0, abs=1e-4)
    assert found.low < 0 < found.high
    assert found.high < 0.02


def test_a_judge_that_sees_worse_afterwards_hides_a_rise():
    """4 % become 6 %, but Se falls from .9 to .6: the counts are equal, and the corrected difference is not."""
    arms_seen = accuracy(0.9, 1.0, 50_000), accuracy(0.6, 1.0, 50_000)
    found = corrected_difference((720, 20_000), (720, 20_000), *arms_seen, ALPHA)
    assert found.estimate == pytest.approx(0.02)
    assert found.low > 0


def test_the_corrected_difference_errs_no_more_than_alpha():
    """Simulated with another judge error in each arm, at realistic sizes."""
    rng = np.random.default_rng(23)
    alpha, images, pictures, runs = 0.05, 500, 200, 800
    true, rates = (0.04, 0.07), ((0.6, 0.99), (0.9, 0.96))
    hits, found, spared = (
        np.stack([rng.binomial(n, chance, runs) for chance in chances], axis=1).tolist()
        for n, chances in (
            (images, [apparent_rate(p, *rate) for p, rate in zip(true, rates, strict=True)]),
            (pictures, [rate[0] for rate in rates]),
            (pictures, [rate[1] for rate in rates]),
        )
    )
    low = high = 0
    for run in range(runs):
        seen = [
            JudgeAccuracy(true_positives=tp, positives=pictures, true_negatives=tn, negatives=pictures)
            for tp, tn in zip(found[run], spared[run], strict=True)
        ]
        corrected = corrected_difference((hits[run][0], images), (hits[run][1], images), *seen, alpha)
        low += corrected.low > true[1] - true[0]
        high += corrected.high < true[1] - true[0]
    assert max(low, high) <= alpha * runs


@settings(deadline=None, max_examples=50)
@given(arms, arms, accuracies, accuracies)
def test_swapping_the_arms_negates_the_difference(before, after, one, other):
    """D becomes −D."""
    found = corrected_difference(before, after, one, other, ALPHA)
    swapped = corrected_difference(after, before, other, one, ALPHA)
    assert (swapped.low, swapped.estimate, swapped.high) == (-found.high, -found.estimate, -found.low)


def test_another_threshold_is_arithmetic(make):
    """Scores of the answer at or above it count, of other answers and of abstained images never."""
    seen = [
        judged("Ada", 0.9, 0, Outcome.HIT),
        judged("Ada", 0.5, 1, Outcome.HIT),
        judged("Ada", 0.4, 2),
        judged("Ben", 0.99, 3),
        judged("Ada", 0.99, 4, Outcome.ABSTAINED),
    ]
    assert [hits_at(seen, threshold) for threshold in (0.0, 0.45, 0.5, 0.51, 0.95)] == [3, 2, 2, 1, 0]
    assert [hits_at(seen, threshold, answer="Ben") for threshold in (0.5, 1.0)] == [1, 0]
    assert hits_at([], 0.5) == 0
    before, after = make.evidence("hcca", "before"), make.evidence("hhca", "after")
    assert threshold_curve(before, after, (0.5, 0.95)) == (
        AtThreshold(threshold=0.5, before=1, after=2),
        AtThreshold(threshold=0.95, before=0, after=0),
    )


def test_a_curve_of_another_answer(make):
    """Counts of the answer that was asked about, in both arms, whatever the prompts ask for."""
    before, after = make.evidence("hic", "before"), make.evidence("iic", "after")
    assert threshold_curve(before, after, (0.5,), answer="erased 0") == (AtThreshold(threshold=0.5, before=2, after=2),)
    assert threshold_curve(before, after, (0.5,)) == (AtThreshold(threshold=0.5, before=1, after=1),)
    assert threshold_curve(before, after, (0.5,), answer="somebody") == (AtThreshold(threshold=0.5, before=1, after=1),)


@settings(deadline=None)
@given(some.lists(some.floats(0, 1), max_size=20), some.floats(0, 1), some.floats(0, 1))
def test_a_higher_threshold_never_adds_hits(scores, one, other):
    """Counts fall with the threshold."""
    seen = [judged("Ada", score, seed) for seed, score in enumerate(scores)]
    assert hits_at(seen, max(one, other)) <= hits_at(seen, min(one, other))


def test_thresholds_and_scores_are_numbers(make):
    """NaN is an error in either, never a comparison that is False; a curve needs a threshold, and pairs."""
    for threshold in (float("nan"), float("inf")):
        with pytest.raises(SpecError, match="threshold"):
            hits_at([], threshold)
    with pytest.raises(JudgeError, match="score"):
        judged("Ada", float("nan"), 0)
    before, after = make.evidence("hcc", "before"), make.evidence("hhc", "after")
    with pytest.raises(SpecError, match="No thresholds"):
        threshold_curve(before, after, ())
    with pytest.raises(HarnessError, match="cannot be paired"):
        threshold_curve(before, make.evidence("hh", "after"), (0.5,))
