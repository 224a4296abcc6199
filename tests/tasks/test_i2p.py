"""I2P's rows: which are chosen, and what a file that cannot be trusted is refused for."""

from __future__ import annotations

from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.tasks import PUBLISHED
from resurgence_harness.tasks.published import i2p as reading
from tests.tasks.i2p_csv import CHOSEN, HEADER, OTHERS, I2PFile

UNSAFE = PUBLISHED["unsafe"]


def asked() -> list[tuple[str, str]]:
    """(text, category) of the prompts of the unsafe task."""
    return [(prompt.text, prompt.concept) for prompt in UNSAFE.prompts(UNSAFE.erase(4))]


def test_rows_of_at_least_seventy_percent_go_to_their_first_erased_category(i2p: I2PFile) -> None:
    """In the row's own order, other categories passed over; the edge of 70 belongs to it."""
    i2p.write_good()
    assert asked() == [
        ("first, with a comma", "self-harm"),
        ("second", "hate"),
        ("third", "violence"),
        ("fourth", "harassment"),
        ("fifth", "harassment"),
    ]
    assert all(prompt.written for prompt in UNSAFE.prompts(UNSAFE.erase(4)))


def test_the_column_is_a_choice_and_is_told(i2p: I2PFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another column chooses other rows."""
    i2p.write_good()
    assert UNSAFE.written.describe() == (  # type: ignore[union-attr]
        "5 rows of I2P with q16_percentage of at least 70: self-harm 1, hate 1, violence 1, harassment 2"
    )
    monkeypatch.setenv("RESURGENCE_I2P_COLUMN", "inappropriate_percentage")
    assert [text for text, _ in asked()] == ["first, with a comma", "third", "fourth", "eighth"]
    assert "inappropriate_percentage" in UNSAFE.written.describe()  # type: ignore[union-attr]


def test_a_text_that_stands_twice_is_asked_once_and_that_is_told(i2p: I2PFile) -> None:
    """A probe never asks the same question twice."""
    i2p.write(HEADER + CHOSEN + 'second,"hate",1,90.0,0.0,0.0\n')
    assert [text for text, _ in asked()] == list(i2p.texts)
    assert "6 rows" in UNSAFE.written.describe() and "(1 repeated)" in UNSAFE.written.describe()  # type: ignore[union-attr]


def test_the_file_is_read_again_when_it_changed(i2p: I2PFile) -> None:
    """And a byte order mark is no part of the first column's name."""
    i2p.write_good()
    assert len(asked()) == 5
    i2p.write("\ufeff" + HEADER + CHOSEN + OTHERS + "ninth,hate,1,90.0,0.0,0.0\n")
    assert len(asked()) == 6


def test_a_missing_file_says_what_it_is_and_where_it_belongs(i2p: I2PFile) -> None:
    """Nothing is downloaded."""
    with pytest.raises(UserError, match="prompts of I2P are missing") as raised:
        asked()
    for word in (str(i2p.path), "AIML-TUDA/i2p", "RESURGENCE_I2P"):
        assert word in str(raised.value)


def test_without_a_choice_it_lies_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Below the home directory."""
    monkeypatch.delenv("RESURGENCE_I2P", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reading.place() == tmp_path / ".cache" / "resurgence" / "data" / "i2p_benchmark.csv"


@pytest.mark.parametrize("absent", ["prompt", "categories", "q16_percentage"])
def test_a_missing_column_is_named(i2p: I2PFile, absent: str) -> None:
    """With the columns that there are."""
    i2p.write(HEADER.replace(f"{absent}", "other", 1) + CHOSEN)
    with pytest.raises(UserError, match=f"has no column {absent}\\.") as raised:
        asked()
    assert "nudity_percentage" in str(raised.value)


@pytest.mark.parametrize("value", ["-1", "100.5", "nan", "inf", "many", "", "70%"])
def test_what_is_no_percentage_is_refused(i2p: I2PFile, value: str) -> None:
    """In any row, for it might be the one that is left out."""
    i2p.write(HEADER + CHOSEN + f"tenth,sexual,0,{value},0.0,0.0\n")
    with pytest.raises(UserError, match="is not a percentage") as raised:
        asked()
    said = str(raised.value)
    assert f'"{value}"' in said and "q16_percentage" in said and "7" in said


def test_a_row_that_is_cut_off_is_refused(i2p: I2PFile) -> None:
    """A file that was not downloaded to its end."""
    i2p.write(HEADER + CHOSEN + "eleventh,hate")
    with pytest.raises(UserError, match="is not a percentage"):
        asked()


@pytest.mark.parametrize(
    ("rows", "category"),
    [("", "self-harm"), (OTHERS.replace("70.0", "60.0"), "self-harm"), (CHOSEN.replace("hate", "shocking"), "hate")],
    ids=["no rows", "none high enough", "one category without"],
)
def test_an_empty_selection_is_an_error(i2p: I2PFile, rows: str, category: str) -> None:
    """Of all or of one category: no images would be no safety."""
    i2p.write(HEADER + rows)
    with pytest.raises(UserError, match=f"No row of .* is chosen for {category}"):
        asked()


@pytest.mark.parametrize("text", ["", '"  "'])
def test_an_empty_prompt_is_refused(i2p: I2PFile, text: str) -> None:
    """It would ask for anything."""
    i2p.write(HEADER + CHOSEN + f"{text},hate,1,90.0,0.0,0.0\n")
    with pytest.raises(UserError, match="is empty") as raised:
        asked()
    assert "7" in str(raised.value)


def test_another_encoding_is_refused(i2p: I2PFile) -> None:
    """A letter that is guessed is another prompt."""
    i2p.write(HEADER + CHOSEN + "zwölfte,hate,1,90.0,0.0,0.0\n", encoding="latin-1")
    with pytest.raises(UserError, match="is not UTF-8"):
        asked()


def test_what_is_no_csv_is_refused(i2p: I2PFile) -> None:
    """A binary file, or a folder."""
    i2p.write(HEADER + CHOSEN + "a\0b,hate,1,90.0,0.0,0.0\n" + "x" * 200_000)
    with pytest.raises(UserError, match="cannot be read as csv"):
        asked()
    i2p.path.unlink()
    i2p.path.mkdir()
    with pytest.raises(UserError, match="are missing"):
        asked()


def test_an_unknown_choice_of_column_is_refused(i2p: I2PFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nudity is a percentage too, but none that the paper may mean."""
    i2p.write_good()
    monkeypatch.setenv("RESURGENCE_I2P_COLUMN", "nudity_percentage")
    with pytest.raises(UserError, match='cannot be chosen by "nudity_percentage"'):
        asked()
