"""What a limit is read as, and how many pictures would be enough."""

from __future__ import annotations

import pytest

from resurgence_harness.statistics import JudgeAccuracy
from resurgence_harness.statistics.calibration_size import account, enough, multiplied, read_as
from resurgence_harness.statistics.judge_error import youden


def accuracy(recognised: int, subjects: int, alarms: int, others: int) -> JudgeAccuracy:
    """From the four counts."""
    return JudgeAccuracy.of_counts(recognised=recognised, subjects=subjects, false_alarms=alarms, others=others)


def test_more_pictures_bring_the_limit_nearer_to_what_the_judge_allows() -> None:
    """J_low · δ rises with the pictures at the same rates, never beyond J · δ; `enough` is the first that is near."""
    found = accuracy(95, 100, 2, 200)
    read = [read_as(0.05, multiplied(found, factor), 0.01) for factor in (1, 3, 10, 100)]
    assert all(one is not None for one in read) and read == sorted(read)  # type: ignore[type-var]
    index = youden(found, 0.01).estimate
    assert read[-1] is not None and read[-1] < 0.05 * index
    factor = enough(found, 0.01)
    assert factor is not None and youden(multiplied(found, factor), 0.01).low >= 0.95 * index
    assert enough(accuracy(99_000, 100_000, 10, 100_000), 0.01) == 1


def test_the_sentence_names_both_numbers() -> None:
    """With these and with more pictures; and for a judge that is not better than chance."""
    found = accuracy(95, 100, 2, 200)
    text = account(found, pictures=300, judge="gcd", delta=0.05, alpha=0.01)
    assert text.startswith("With 300 pictures, gcd's δ of .05 is read as .04") and "would give .0" in text
    assert f"at most {0.05 * 0.94:.3f}".replace("0.", ".").rstrip("0") in text
    few = account(accuracy(3, 4, 0, 4), pictures=8, judge="gcd", delta=0.05, alpha=0.01)
    assert "not shown to be better than chance, so no cell can hold" in few and "would give" in few
    never = account(accuracy(1, 10, 9, 10), pictures=20, judge="gcd", delta=0.05, alpha=0.01)
    assert "no number of pictures changes that" in never


@pytest.mark.parametrize("counts", [(0, 10, 0, 10), (5, 10, 5, 10)])
def test_a_judge_like_chance_is_never_enough(counts: tuple[int, int, int, int]) -> None:
    """J of zero stays zero."""
    assert enough(accuracy(*counts), 0.01) is None
