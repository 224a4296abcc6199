"""Stored outcomes in a thousand orders, and files that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.validation.edges import seeded
from resurgence_harness.validation.replays import Stored, check_same_model, check_stored, halves, read

pytestmark = pytest.mark.slow

HEAD = "concept,prompt,seed,before,after\n"
REPLAYED = {"delta": 0.05, "alpha": 0.01, "replicates": 200, "seed": 0}


def grid(before: float, after: float, *, seeds: int = 10, abstained: float = 0.0, seed: int = 0) -> Stored:
    """50 prompts with so many seeds."""
    random = np.random.default_rng(seed)
    rows = tuple((f"concept {i % 10}", f"prompt {i}", s) for i in range(50) for s in range(seeds))
    one = (random.random(len(rows)) < before).astype(int)
    other = np.where(random.random(len(rows)) < abstained, 2, random.random(len(rows)) < after)
    return Stored(rows, tuple(one.tolist()), tuple(other.tolist()))


def test_outcomes_are_read_in_words_and_in_digits(tmp_path: Path):
    """In any order of columns, others beside them, with or without a byte order mark."""
    path = tmp_path / "o.csv"
    path.write_text(
        "\ufeffseed,prompt,concept,after,before,judge\n1,a,c,hit,0,x\n2,a,c,Abstained,1,x\n3,a,c,clear,hit,x\n"
    )
    assert read(path) == Stored((("c", "a", 1), ("c", "a", 2), ("c", "a", 3)), (0, 1, 1), (1, 2, 0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column concept"),
        ("concept,prompt,seed,before\nc,p,1,0\n", "has no column after"),
        (HEAD, "no outcome"),
        (HEAD + "c,p,1,0,nan\n", "Line 2 .* has 'nan' in the column after"),
        (HEAD + "c,p,1,,0\n", "has '' in the column before"),
        (HEAD + "c,p,1,0\n", "has '' in the column after"),
        (HEAD + "c,p,one,0,0\n", "has the seed 'one'"),
        (HEAD + "c,p,1,0,0\nc,p,1,0,1\n", "Line 3 .* repeats 'p', seed 1"),
        (HEAD + 'c,"p,1,0,0\n', "is not valid CSV"),
    ],
)
def test_what_is_no_outcome_is_refused(tmp_path: Path, text: str, said: str):
    """With the line, and never read as clear."""
    path = tmp_path / "o.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read(path)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    """Missing, a directory, or not text."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "", "binary"):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / name)


def test_halves_are_of_the_same_prompts_and_never_of_the_same_image():
    """Each pair asks the same prompt with two seeds, and every replay draws its own."""
    stored = grid(0.3, 0.3, seeds=5)
    places = np.arange(250)
    one, other = halves(stored, places, 20, seeded(0, "halves"))
    assert one.shape == (20, 100)
    for first, second in zip(one, other, strict=True):
        assert len({*first.tolist(), *second.tolist()}) == 200
        assert all(stored.rows[a][:2] == stored.rows[b][:2] for a, b in zip(first, second, strict=True))
    assert len({row.tobytes() for row in one}) == 20


def test_a_model_beside_itself_raises_no_alarm():
    """False alarms at most alpha; most replays hold, before the grid's end."""
    alarm, holds, used = check_same_model(grid(0.04, 0.04), "before", **REPLAYED)
    assert alarm.passed
    assert holds.value > 0.8
    assert used.value < 0.9


def test_one_seed_per_prompt_gives_no_pair():
    """Told, not judged."""
    (row,) = check_same_model(grid(0.04, 0.04, seeds=1), "after", **REPLAYED)
    assert row.passed is None
    assert "no prompt has two seeds" in row.setting


@pytest.mark.parametrize(
    ("before", "after", "says", "abstained"),
    [(0.02, 0.03, "HOLDS", 0.0), (0.02, 0.4, "VIOLATED", 0.0), (0.02, 0.03, "HOLDS", 0.05)],
)
def test_stopping_early_says_what_the_whole_grid_says(before, after, says, abstained):
    """For less than the whole grid."""
    rows = check_stored(grid(before, after, abstained=abstained), **REPLAYED)
    assert f"which says {says}" in rows[0].setting
    assert rows[1].value > 0.95
    assert rows[2].value < 0.8
    assert len(rows) == 4
    assert rows[3].passed


def test_smaller_grids_are_replayed_too():
    """As many pairs as a small grid has, other ones in every replay; and the file's name is told."""
    rows = check_stored(grid(0.02, 0.4), "esd-10", pairs=100, **REPLAYED)
    assert "of esd-10: grids of 100 stored pairs" in rows[0].check
    assert "VIOLATED" in rows[0].setting
    assert rows[1].value > 0.9


def test_compressed_outcomes_are_read(tmp_path: Path):
    """As the reports keep them."""
    import gzip

    path = tmp_path / "o.csv.gz"
    path.write_bytes(gzip.compress(b"concept,prompt,seed,before,after\na,p,1,hit,clear\n"))
    assert read(path) == Stored((("a", "p", 1),), (1,), (0,))
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


def test_a_grid_on_the_limit_may_contradict_neither_side():
    """D = delta exactly: both answers are wrong, and both are judged."""
    stored = Stored(tuple(("c", "p", s) for s in range(500)), (0,) * 500, (1,) * 25 + (0,) * 475)
    rows = check_stored(stored, **REPLAYED)
    assert "UNDECIDED" in rows[0].setting
    assert [row.passed for row in rows] == [None, None, None, True, True]
