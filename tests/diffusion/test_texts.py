"""Whether a base can read a text, told by its tokenizer's files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.random_bases import tokenizer
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.errors import UserError
from resurgence_harness.selection import resolve_base

pytestmark = pytest.mark.slow


def test_a_tokenizer_whose_unknown_token_is_the_end_token_reads_every_name(tmp_path: Path) -> None:
    """SD's own: saved as tokenizer.json, every encoded text holds the end token, and that says nothing."""
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()

    assert check_texts(tmp_path, ["A portrait of Aaron Paul", "Zoë Žofie", ""]) == (0, 77)


def test_the_length_counts_begin_and_end(tmp_path: Path) -> None:
    """75 words fit between them; one more is refused, or counted where it may be cut."""
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    fits, long = " ".join(["dog"] * 75), " ".join(["dog"] * 76)

    assert check_texts(tmp_path, [fits]) == (0, 77)
    assert check_texts(tmp_path, [long], may_be_cut=[long]) == (1, 77)
    with pytest.raises(UserError, match="has 78 tokens; the base reads 77"):
        check_texts(tmp_path, [long])


def test_padding_is_not_counted() -> None:
    """The embedded model's tokenizer pads to its 16 places by itself; a name is as long as its words."""
    base = Path(resolve_base("micro").location)
    assert check_texts(base, ["A portrait of Alba Drummond"]) == (0, 16)
    with pytest.raises(UserError, match="has 17 tokens; the base reads 16"):
        check_texts(base, ["a " * 15])
