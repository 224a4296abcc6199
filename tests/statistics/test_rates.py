"""A rate is of all images, and of nothing it has no value."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError
from resurgence_harness.statistics import Evidence, Judgment, Outcome, Rate
from resurgence_harness.statistics.judge_error import hits_at


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
    asked = [replace(one, concept="violence", outcome=Outcome.HIT) for one in rows[:1]]
    assert hits_at(asked, 0.5) == 1 and hits_at(asked, 0.95) == 0
