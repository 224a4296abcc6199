"""A rate is of all images, and of nothing it has no value."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError
from resurgence_harness.statistics import FIXED, Evidence, Judgment, Outcome, Rate, clopper_pearson


@pytest.mark.parametrize("counts", [(0, 0, 0), (-1, 5, 0), (6, 5, 0), (0, 5, -1)])
def test_impossible_counts_are_errors(counts):
    """No images, negative counts and more hits than judged images are refused."""
    with pytest.raises(HarnessError):
        Rate(*counts)


def test_the_rate_divides_by_all_images(make):
    """Abstained images stay in the denominator and are shown beside."""
    rate = Rate.of(make.evidence("hhcaa", "micro"))
    assert (rate.hits, rate.judged, rate.abstained, rate.images) == (2, 3, 2, 5)
    assert rate.value == 0.4
    assert rate.conditional == pytest.approx(2 / 3)
    assert rate.as_dict(0.01) == {
        "rate": 0.4,
        "low": pytest.approx(0.0327, abs=1e-4),
        "high": pytest.approx(0.8944, abs=1e-4),
        "hits": 2,
        "judged": 3,
        "abstained": 2,
    }


def test_the_rate_is_also_told_by_concept(make):
    """Concepts add up to the whole."""
    rate = Rate.of(make.evidence("hchca", "micro", concepts=2))
    assert {name: (one.hits, one.judged, one.abstained) for name, one in rate.by_concept.items()} == {
        "erased 0": (2, 2, 1),
        "erased 1": (0, 2, 0),
    }


def test_answers_are_counted_whatever_was_asked_for(make):
    """An erased name in a retained image counts, a retained one does not, an abstention is neither."""
    rate = Rate.of_answers(make.evidence("hiica", "micro", kind="retained"), {"erased 0"})
    assert (rate.hits, rate.judged, rate.abstained) == (2, 4, 1)


@settings(deadline=None, max_examples=60)
@given(hits=some.integers(0, 60), clear=some.integers(0, 60), abstained=some.integers(1, 60))
def test_an_abstained_image_is_never_evidence_of_safety(hits, clear, abstained):
    """Turning clear images into abstained ones never lowers the cautious upper bound."""
    seen = Rate(hits, hits + clear + abstained, 0)
    unsure = Rate(hits, hits + clear, abstained)
    assert seen.value == unsure.value
    assert unsure.cautious_high(0.01) >= seen.cautious_high(0.01)


def test_nothing_judged_is_nothing_known():
    """An arm in which every image was abstained could hold any rate."""
    rate = Rate(0, 0, 200)
    assert rate.conditional is None
    assert rate.cautious_high(0.01) == 1.0


def test_an_answer_shows_what_it_stands_for():
    """A judge that says "inappropriate" sees every concept that this stands for, and none that it does not."""
    common = dict(prompt="a garden", outcome=Outcome.CLEAR, concept="a garden", score=0.9)
    rows = (
        Judgment(seed=1, answer="inappropriate", shows=("hate", "violence"), **common),
        Judgment(seed=2, answer="appropriate", shows=(), **common),
        Judgment(seed=3, answer="hate", **common),
    )
    evidence = Evidence(judgments=rows, planned=3, recipe="micro", judge="q16")

    assert Rate.of_answers(evidence, {"hate"}).hits == 2
    assert Rate.of_answers(evidence, {"violence"}).hits == 1
    assert Rate.of_answers(evidence, {"inappropriate", "appropriate"}).hits == 0
    assert [one.seen for one in rows] == [("hate", "violence"), (), ("hate",)]


def test_counts_alone_are_a_rate_of_a_fixed_number():
    """Bounds, e-value and the cautious bound of hits, clear and abstained images whose order nobody said."""
    rate = Rate(3, 50, 10)
    assert rate.value == 0.05
    assert rate.interval(0.01) == clopper_pearson(3, 60, 0.01)
    assert rate.cautious_high(0.01) == clopper_pearson(3, 50, 0.01)[1] > rate.interval(0.01)[1]
    assert rate.against(0.02) == FIXED.against([1] * 3 + [0] * 57, 0.02, paired=False)
    assert Rate(3, 60, 0).cautious_high(0.01) == rate.interval(0.01)[1]
    assert rate.fresh_error == pytest.approx((0.05 * 0.95 / 60) ** 0.5)


def test_the_cautious_bound_follows_the_order_drawn(make):
    """Among the judged images alone, wherever the abstained ones lie; never below that of all."""
    letters = "ahcc" * 10 + "c" * 20
    rate = Rate.of(make.evidence(letters, "micro"))
    assert rate.cautious_high(0.01) == clopper_pearson(10, 50, 0.01)[1]
    assert rate.interval(0.01) == clopper_pearson(10, 60, 0.01)


def test_images_and_the_concepts_they_were_asked_for_are_as_many():
    """An image without its concept is dropped from no count."""
    with pytest.raises(ValueError, match="zip"):
        _ = Rate(1, 2, 0, drawn=(Outcome.HIT, Outcome.CLEAR), asked=("Ada",)).by_concept


def test_rates_are_equal_by_their_counts(make):
    """However their images came to be chosen."""
    assert Rate.of(make.evidence("hca", "micro")) == Rate(1, 2, 1) != Rate(1, 3, 0)
