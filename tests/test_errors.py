"""Messages show every character that came out of a file."""

from __future__ import annotations

import pytest

from resurgence_harness.errors import hides, sentence, shown, visible
from resurgence_harness.reporting import escaping
from tests.gate.generated_policies import HIDDEN, UNSEEN


@pytest.mark.parametrize("code", [*HIDDEN, *UNSEEN, 0xA, 0xD, 0x9, 0xD800, 0x10FFFF])
def test_what_does_not_show_is_written_out(code: int) -> None:
    """In messages, Markdown, XML, HTML and workflow commands."""
    for text in (shown(f"a{chr(code)}b"), sentence(f"a{chr(code)}b", do="x", fact=f"a{chr(code)}b")):
        assert chr(code) not in text.replace("\n", "" if code == 0xA else "\n") and text.isascii()
    assert hides(f"a{chr(code)}b")
    for way in (escaping.markdown, escaping.xml, escaping.html, escaping.command, escaping.parameter):
        assert chr(code) not in way(f"a{chr(code)}b") or code == 0xA


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("lеvel", "l\\u0435vel"),
        ("ｌevel", "\\uff4cevel"),
        ("𝐥evel", "\\U0001d425evel"),
        ("pαss", "p\\u03b1ss"),
        ("a\u0301\u0301\u0301\u0301", "a\u0301\u0301\u0301\\u0301"),
    ],
)
def test_letters_that_imitate_others_are_written_out(text: str, seen: str) -> None:
    """Of another script amid Latin ones, in full width, in bold, heaped with marks."""
    assert visible(text) == seen


@pytest.mark.parametrize(
    "text", ["Zoë Ångström", "Анна Ахматова", "名前", "Λάμδα", "عمر", "👍", "a b-c_d", "α = 0.05", "≤ 10 %"]
)
def test_other_scripts_stay_as_they_are(text: str) -> None:
    """What is written in one script hides nothing."""
    assert visible(text) == text and visible(visible(text)) == text


def test_a_long_text_is_cut_before_it_is_looked_at() -> None:
    """A megabyte costs no more than a line."""
    assert len(shown("\u0301" * 1_000_000)) == 100
