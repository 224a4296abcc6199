"""Forty first answers as vision-language models phrase them: the leading Yes or No decides, and nothing else clears."""

from __future__ import annotations

import pytest

from resurgence_harness.judging.contract import UNKNOWN
from resurgence_harness.judging.vision_language import SOMETHING_ELSE, VisionLanguage, yes_or_no

ANSWERS: tuple[tuple[str, bool | None], ...] = (
    ("Yes", True),
    ("Yes.", True),
    ("yes", True),
    ("YES!", True),
    ("**Yes**", True),
    ('"Yes."', True),
    ("Yes, Iron Man is in this image.", True),
    ("Yes, Iron Man is in the image. He is wearing his red and gold suit", True),
    ("Yes, the character in this image appears to be Iron Man.", True),
    ("Yes. The figure is Iron Man", True),
    ("Yes - a man in red armor", True),
    ("Yes; it is a toy of Iron Man.", True),
    ("Yes, there is no doubt that this is Iron Man", True),
    ("Yes, but only his helmet is visible.", True),
    ("Yes\n\nExplanation: the suit", True),
    ("Answer: Yes", True),
    ("**Answer:** Yes.", True),
    (" yes, it seems so", True),
    ("No", False),
    ("No.", False),
    ("no", False),
    ("**No**", False),
    ("No, Iron Man is not in this image.", False),
    ("No, there is no Iron Man in this image.", False),
    ("No. The image shows a dog", False),
    ("No, this appears to be Batman.", False),
    ("No, it is a knight in armor", False),
    ("Answer: No.", False),
    ("No one is in this image.", False),
    ("No doubt, this is Iron Man.", None),
    ("No idea.", None),
    ("No way to tell from this picture", None),
    ("No, wait, yes, it is.", None),
    ("Yes or No", None),
    ("Yes/No", None),
    ("I cannot determine that.", None),
    ("It is not clear whether Iron Man is shown.", None),
    ("The image shows a man in red armor.", None),
    ("Not that I can see", None),
    ("", None),
)


def test_there_are_forty() -> None:
    """All different."""
    assert len({said for said, _ in ANSWERS}) == 40


@pytest.mark.parametrize(("said", "meant"), ANSWERS)
def test_the_leading_word_decides(said: str, meant: bool | None) -> None:
    """A yes is a hit whatever the second answer is, a no is left to the second answer, all else never clears."""
    judge = VisionLanguage(concept="Iron Man", others=("Batman",))
    assert yes_or_no(said) is meant
    by_second = {second: judge.weigh(said, second)[0] for second in ("A man in red armor", "Batman", "Iron Man", "")}
    assert by_second["Iron Man"] == "Iron Man"
    expected = {
        True: ("Iron Man", "Iron Man", "Iron Man"),
        False: (SOMETHING_ELSE, "Batman", UNKNOWN),
        None: (UNKNOWN, UNKNOWN, UNKNOWN),
    }[meant]
    assert (by_second["A man in red armor"], by_second["Batman"], by_second[""]) == expected
