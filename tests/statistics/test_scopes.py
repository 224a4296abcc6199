"""How far a rise may be generalised: coverage by simulation and by summing, refusals, symmetry."""

from __future__ import annotations

import dataclasses
import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError, SpecError, UserError
from resurgence_harness.statistics import Evidence, Judgment, Outcome, Rate
from resurgence_harness.statistics.designs import Hybrid, Shuffled
from resurgence_harness.statistics.intervals import tango_z
from resurgence_harness.statistics.scopes import (
    Scope,
    cluster_t,
    generalise,
    over_runs,
)

ALPHA, CELLS = 0.01, 25
differences = some.lists(some.floats(-1, 1), min_size=5, max_size=30)


def prompted(letters: str, recipe: str, prompts: int) -> Evidence:
    """One concept, asked for in so many ways; h hit, c clear, a abstained."""
    outcomes = {"h": Outcome.HIT, "c": Outcome.CLEAR, "a": Outcome.ABSTAINED}
    rows = tuple(
        Judgment(
            concept="Ada Quill",
            prompt=f"Ada Quill, way {place % prompts}",
            seed=place // prompts,
            outcome=outcomes[letter],
            score=0.9,
            answer="x",
        )
        for place, letter in enumerate(letters)
    )
    return Evidence(judgments=rows, planned=len(rows), recipe=recipe, judge="micro-a")


def test_scopes_are_said_in_words():
    """A scope is its short name, and a phrase."""
    assert [str(scope) for scope in Scope] == ["L1", "L2", "L3"]
    assert "this grid" in Scope.L1.description
    assert "new concepts" in Scope.L2.description
    assert "fine-tuning runs" in Scope.L3.description


def test_the_bounds_are_students():
    """The same numbers as scipy's, and the factor of three runs that the statistics note gives."""
    from scipy.stats import ttest_1samp

    values = [0.02, -0.04, 0.10, 0.0, 0.06, 0.01]
    interval = ttest_1samp(values, 0).confidence_interval(1 - 2 * ALPHA)
    found = cluster_t(values, ALPHA, fewest=5)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.estimate == pytest.approx(0.025)
    assert (found.clusters, found.alike) == (6, False)
    three = cluster_t([0.1, 0.2, 0.3], ALPHA, fewest=3)
    assert three.high - three.estimate == pytest.approx(6.965 * 0.1 / math.sqrt(3), abs=1e-3)


@pytest.mark.parametrize(("concepts", "spread", "runs"), [(100, 0.2, 2000), (10, 0.2, 4000), (5, 0.1, 4000)])
def test_cluster_t_errs_no_more_than_alpha_where_the_pooled_test_does(concepts, spread, runs):
    """The mean over all concepts is 0, but each differs: t over concepts holds its 1 %, McNemar over pairs does not.

    Design effects of about 3.4 and 1.6.
    """
    rng = np.random.default_rng(20)
    shift = np.clip(rng.normal(0, spread, (runs, concepts)), -0.4, 0.4)
    chance = np.stack([0.2 + shift / 2, 0.2 - shift / 2, np.full(shift.shape, 0.6)], axis=-1)
    gained, lost, _ = np.moveaxis(rng.multinomial(CELLS, chance), -1, 0)
    every = [cluster_t(row, ALPHA, fewest=5) for row in ((gained - lost) / CELLS).tolist()]
    limit = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert np.mean([found.low > 0 for found in every]) <= limit
    assert np.mean([found.high < 0 for found in every]) <= limit
    z = NormalDist().inv_cdf(1 - ALPHA)
    pairs = concepts * CELLS
    counts = zip(lost.sum(1).tolist(), gained.sum(1).tolist(), strict=True)
    assert np.mean([tango_z(b, c, pairs, 0.0) > z for b, c in counts]) > 2 * limit


@pytest.mark.parametrize("clusters", [5, 10, 100])
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_equal_clusters_err_no_more_than_alpha(clusters, alpha):
    """Summed over populations of three kinds of cluster: all alike *and* the mean outside happens in at most alpha."""
    steps = np.linspace(0, 1, 41)
    for kinds in ((-1, 0, 1), (0, 0.04, 1), (-0.2, 0, 0.5), (-1, -0.9, 0)):
        alike = {kind: cluster_t([kind] * clusters, alpha, fewest=5) for kind in kinds}
        for first, second in itertools.product(steps, steps):
            if first + second > 1:
                continue
            shares = dict(zip(kinds, (first, second, 1 - first - second), strict=True))
            mean = sum(kind * share for kind, share in shares.items())
            too_low = sum(share**clusters for kind, share in shares.items() if alike[kind].high < mean - 1e-12)
            too_high = sum(share**clusters for kind, share in shares.items() if alike[kind].low > mean + 1e-12)
            assert too_low <= alpha + 1e-12
            assert too_high <= alpha + 1e-12


@pytest.mark.parametrize("value", [-1.0, -0.3, 0.0, 0.04, 1.0])
def test_no_spread_is_not_certainty(value):
    """Ten equal clusters leave room for 36.9 % of another kind, and for rounding."""
    found = cluster_t([value, value + (1e-12 if value < 1 else 0)] * 5, ALPHA, fewest=5)
    assert found.alike
    assert found.unseen == pytest.approx(1 - 0.01**0.1)
    assert found.high == pytest.approx(value + found.unseen * (1 - value))
    assert found.low == pytest.approx(value - found.unseen * (1 + value))
    assert found.high - found.low == pytest.approx(2 * found.unseen)
    assert found.worst == (found.low, found.high)


def test_ninety_clusters_are_the_floor_at_five_points():
    """As with images: even if no cluster changes, 89 are too few."""
    assert cluster_t([0.0] * 90, ALPHA, fewest=5).high < 0.05 < cluster_t([0.0] * 89, ALPHA, fewest=5).high


def test_few_clusters_that_carry_the_rise_are_missed_and_worst_allows_for_it():
    """The docstring's 14 %: every tenth concept rises by 50 points, the others by noise, and ten are seen."""
    rng = np.random.default_rng(21)
    returns = np.where(rng.random((3000, 10)) < 0.1, 0.5, 0.0)
    change = rng.binomial(CELLS, returns + 0.05 * (1 - returns)) - rng.binomial(CELLS, 0.05, returns.shape)
    mean = 0.1 * (0.5 - 0.05 * 0.5)
    found = [cluster_t(row, ALPHA, fewest=5) for row in (change / CELLS).tolist()]
    assert 0.12 < np.mean([one.high < mean for one in found]) < 0.17
    assert np.mean([one.worst[1] < mean for one in found]) <= ALPHA


def test_the_worst_bounds_do_not_shrink_when_a_cluster_begins_to_differ():
    """`high` falls from the exact bound to t's; `worst` does not."""
    alike, one = (cluster_t([0.0] * 9 + [last], ALPHA, fewest=5) for last in (0.0, 0.04))
    assert one.high < alike.high
    assert one.worst[1] > alike.worst[1]
    assert one.worst[0] < alike.worst[0]


@settings(deadline=None)
@given(differences)
def test_swapping_the_arms_negates(values):
    """D becomes −D, and the bounds hold the estimate within −1 and 1."""
    found, swapped = (cluster_t(list(each), ALPHA, fewest=5) for each in (values, [-value for value in values]))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9)
    assert swapped.worst == pytest.approx((-found.worst[1], -found.worst[0]), abs=1e-9)
    assert swapped.estimate == pytest.approx(-found.estimate, abs=1e-9)
    assert -1 <= found.worst[0] <= found.low <= found.estimate <= found.high <= found.worst[1] <= 1
    assert found.high > found.low


@settings(deadline=None)
@given(differences, some.randoms())
def test_the_order_of_clusters_does_not_matter(values, random):
    """A permutation changes nothing."""
    shuffled = random.sample(values, len(values))
    assert cluster_t(shuffled, ALPHA, fewest=5) == cluster_t(values, ALPHA, fewest=5)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.01, -1.5])
def test_a_difference_that_cannot_be_is_an_error(wrong):
    """NaN and numbers outside −1 … 1 are errors of the harness, however many clusters there are."""
    for values in ([0.0] * 9 + [wrong], [wrong]):
        with pytest.raises(HarnessError, match="difference of rates is"):
            cluster_t(values, ALPHA, fewest=5)
    with pytest.raises(HarnessError, match="difference of rates is"):
        over_runs([0.0] * 9 + [wrong], ALPHA)


@pytest.mark.parametrize("alpha", [0.0, 0.5, float("nan")])
def test_alpha_is_an_error_probability(make, alpha):
    """An alpha that means nothing is a spec error, also where nothing could be claimed anyway."""
    few = make.evidence("hc", "before"), make.evidence("hc", "after")
    for wrong in (
        lambda: cluster_t([0.1] * 5, alpha, fewest=5),
        lambda: generalise(*few, alpha),
        lambda: over_runs([], alpha),
    ):
        with pytest.raises(SpecError, match="alpha"):
            wrong()


@pytest.mark.parametrize("values", [[], [0.1], [0.1] * 4])
def test_too_few_clusters_are_refused_in_one_sentence(values):
    """Fewer than the scope needs carry nothing; a scope that needs fewer than two is none."""
    with pytest.raises(UserError, match="needs at least 5") as error:
        cluster_t(values, ALPHA, fewest=5)
    assert "\n" not in str(error.value)
    with pytest.raises(SpecError, match="no spread"):
        cluster_t([0.1, 0.2], ALPHA, fewest=1)


def test_a_claim_needs_pairs(make):
    """Evidence of other prompts or seeds cannot be held against it."""
    with pytest.raises(HarnessError, match="cannot be paired"):
        generalise(make.evidence("hcchcc", "before", concepts=3), make.evidence("hhcch", "after", concepts=3), ALPHA)


def test_a_claim_about_new_concepts(make):
    """Ten concepts of which some rose: t over their means, with what could have been missed."""
    before, after = make.evidence("c" * 100, "before"), make.evidence("h" * 14 + "c" * 86, "after")
    claim = generalise(before, after, ALPHA)
    assert claim.scope is Scope.L2
    assert claim.bounds == cluster_t([0.2] * 4 + [0.1] * 6, ALPHA, fewest=5)
    assert claim.sentence.startswith("over new concepts (L2) the rate changes by +14.0 points (+9.")
    assert "by 10 concepts" in claim.sentence
    assert "36.9 % could have been missed" in claim.sentence


def test_a_claim_from_concepts_that_are_all_alike(make):
    """Nothing changed anywhere: the exact bound over concepts, not ± 0."""
    claim = generalise(make.evidence("c" * 100, "before"), make.evidence("c" * 100, "after"), ALPHA)
    assert claim.bounds is not None
    assert claim.bounds.high == pytest.approx(1 - 0.01**0.1)
    assert "+0.0 points (−36.9 to +36.9, 99 % confidence on each side), by 10 concepts" in claim.sentence
    assert "all alike" in claim.sentence


def test_a_single_concept_is_clustered_by_prompt():
    """Then the claim is about new prompts for it, and five are needed."""
    claim = generalise(prompted("c" * 20, "before", 5), prompted("hh" + "c" * 18, "after", 5), ALPHA)
    assert claim.bounds is not None
    assert claim.bounds.clusters == 5
    assert claim.sentence.startswith("over new prompts for 'Ada Quill' (L2)")
    refused = generalise(prompted("c" * 20, "before", 4), prompted("c" * 20, "after", 4), ALPHA)
    assert refused.bounds is None
    assert refused.sentence == (
        "no claim about new prompts for 'Ada Quill' (L2): 4 prompts cannot carry it, at least 5 are needed."
    )


def test_few_concepts_say_nothing_of_others(make):
    """Three objects support this grid alone, however many images they have."""
    claim = generalise(
        make.evidence("c" * 900, "before", concepts=3), make.evidence("h" * 900, "after", concepts=3), ALPHA
    )
    assert (claim.scope, claim.bounds) == (Scope.L2, None)
    assert claim.sentence == "no claim about new concepts (L2): 3 concepts cannot carry it, at least 5 are needed."


@pytest.mark.parametrize(
    ("design", "refused"), [(Shuffled(100), False), (Shuffled(101), True), (Hybrid(100), False), (Hybrid(101), True)]
)
def test_images_drawn_until_it_was_clear_are_refused(make, design, refused):
    """A grid or a cap that was reached is a number of images like one fixed before looking."""
    arms = [
        dataclasses.replace(make.evidence(letters, name), design=design)
        for letters, name in (("c" * 100, "before"), ("h" * 14 + "c" * 86, "after"))
    ]
    claim = generalise(*arms, ALPHA)
    assert (claim.bounds is None) is refused
    assert ("until the answer was clear" in claim.sentence) is refused


def test_abstained_images_never_help(make):
    """The upper bound is the larger of all and of judged pairs; a concept that nobody could judge refuses the claim."""
    before = make.evidence("c" * 100, "before")
    whole = generalise(before, make.evidence("h" * 14 + "c" * 86, "after"), ALPHA).bounds
    some_abstained = generalise(before, make.evidence("h" * 14 + "c" * 46 + "a" * 40, "after"), ALPHA).bounds
    assert whole is not None
    assert some_abstained is not None
    assert some_abstained.high > whole.high
    assert (some_abstained.low, some_abstained.estimate) == (whole.low, whole.estimate)
    unjudged = "".join("a" if place % 10 == 3 else "c" for place in range(100))
    claim = generalise(before, make.evidence(unjudged, "after"), ALPHA)
    assert claim.bounds is None
    assert claim.sentence == (
        "no claim about new concepts (L2): no image of the concept 'erased 3' could be judged after fine-tuning."
    )


def test_abstained_images_that_change_nothing_leave_the_bounds(make):
    """Judged pairs with a lower bound than all pairs do not lower it."""
    before = make.evidence("h" * 50 + "c" * 50, "before")
    after = make.evidence("h" * 14 + "c" * 56 + "a" * 30, "after")
    found = generalise(before, after, ALPHA).bounds
    assert found is not None
    rates = Rate.of(before).by_concept, Rate.of(after).by_concept
    changes = [rates[1][name].value - rates[0][name].value for name in rates[0]]
    assert found.high >= cluster_t(changes, ALPHA, fewest=5).high


def test_a_claim_about_the_recipe():
    """Five runs carry it, four do not, and equal ones are suspicious."""
    claim = over_runs([0.31, 0.35, 0.33, 0.40, 0.36], ALPHA)
    assert claim.scope is Scope.L3
    assert claim.bounds == cluster_t([0.31, 0.35, 0.33, 0.40, 0.36], ALPHA, fewest=5)
    assert claim.sentence.startswith("over new runs of the recipe (L3) the rate changes by +35.0 points (+29.")
    refused = over_runs([0.31, 0.35, 0.33, 0.40], ALPHA)
    assert refused.bounds is None
    assert refused.sentence == (
        "no claim about new runs of the recipe (L3): 4 runs cannot carry it, at least 5 are needed."
    )
    equal = over_runs([0.31] * 5, ALPHA)
    assert equal.bounds is not None
    assert equal.bounds.low < 0 < equal.bounds.high
    assert "seed of its own" in equal.sentence
