"""Where the time of an image goes: benchmarks/sd_image.py as it is, at a very small size."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.sd_image import COLUMNS, main

pytestmark = pytest.mark.slow


def test_every_part_and_way_is_timed_and_ways_lie_near_the_ordinary_one(tmp_path: Path) -> None:
    """float32 in another order differs in rounding alone, half precision by a few per cent at most."""
    small = ["--tiny", str(tmp_path / "tiny"), "--device", "cpu", "--repeats", "1", "--batch", "1"]
    main(["--to", str(tmp_path / "image.csv"), *small])

    with (tmp_path / "image.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["part"] for row in rows} == {"U-Net step", "decode", "to the host", "noise", "texts"}
    assert all(float(row["milliseconds"]) >= 0 for row in rows)
    far = {(row["part"], row["way"]): float(row["distance"]) for row in rows if row["distance"]}
    assert far["U-Net step", "channels last"] < 1e-4 < far["U-Net step", "bfloat16"] < 0.1
    assert far["decode", "channels last"] < 1e-4 < far["decode", "bfloat16, channels last"] < 0.1
