"""Evidence is complete, or it is an error."""

from __future__ import annotations

import dataclasses

import pytest

from resurgence_harness.errors import HarnessError, JudgeError
from resurgence_harness.statistics import Evidence, Judgment, Outcome, agreement, check_paired, pairs


def judgment(**changes):
    """One ordinary judgment."""
    values = dict(
        concept="Ada Quill", prompt="A sketch of Ada Quill", seed=0, outcome=Outcome.CLEAR, score=0.5, answer="x"
    )
    return Judgment(**{**values, **changes})


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_refused(score):
    """A NaN from a judge is an error, never a clear image."""
    with pytest.raises(JudgeError, match="score"):
        judgment(score=score)


@pytest.mark.parametrize("outcome", ["hit", True, None])
def test_an_outcome_is_one_of_three(outcome):
    """A bool or a loose string is no outcome."""
    with pytest.raises(JudgeError, match="outcome"):
        judgment(outcome=outcome)


@pytest.mark.parametrize(
    ("rows", "planned", "words"),
    [
        ((), 0, "no image"),
        ((), 10, "no image"),
        ((judgment(),), 2, "lacks rows: 1"),
        ((judgment(), judgment(seed=1)), 1, "too many rows: 1"),
        ((judgment(), judgment(score=0.7)), 2, "same image twice"),
        ((judgment(),), -1, "no image"),
    ],
)
def test_incomplete_evidence_is_an_error(rows, planned, words):
    """Empty, missing, surplus and repeated rows are errors of the harness."""
    with pytest.raises(HarnessError, match=words):
        Evidence(judgments=rows, planned=planned, recipe="micro", judge="micro-a")


def test_evidence_is_paired_row_by_row(make):
    """Another length, order, seed or concept cannot be paired."""
    one = make.evidence("hhcc", "micro → esd")
    check_paired(one, make.evidence("cccc", "micro → esd → lora"))
    shuffled = dataclasses.replace(one, judgments=one.judgments[::-1])
    others = [make.evidence("hhccc", "longer"), shuffled, make.evidence("hhcc", "other concept", kind="other")]
    for other in others:
        with pytest.raises(HarnessError, match="cannot be paired"):
            check_paired(one, other)
        with pytest.raises(HarnessError, match="cannot be paired"):
            pairs(one, other)


def test_pairs_leave_out_what_could_hide_a_hit(make):
    """Only an abstained second image leaves the judged pairs; an abstained first one counts as no hit."""
    everything, judged = pairs(make.evidence("hhcah", "before"), make.evidence("hachc", "after"))
    assert (everything.lost, everything.gained, everything.total) == (2, 1, 5)
    assert judged is not None
    assert (judged.lost, judged.gained, judged.total) == (1, 1, 4)
    assert pairs(make.evidence("hc", "before"), make.evidence("aa", "after"))[1] is None


def test_swapping_the_arms_negates_the_difference(make):
    """What was gained is lost when read backwards."""
    one, other = make.evidence("hhccc", "before"), make.evidence("chhhc", "after")
    assert pairs(one, other)[0].difference == -pairs(other, one)[0].difference == 0.2


def test_agreement_counts_equal_outcomes(make):
    """An abstention agrees with an abstention only."""
    one, other = make.evidence("hcah", "x"), make.evidence("hcch", "x", judge="micro-b")
    assert agreement(one, other) == (3, 4)
