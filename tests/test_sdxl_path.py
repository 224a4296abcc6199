"""Images per second at SDXL's size, at a very small size: benchmarks/sdxl_path.py as it is, twice."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.random_bases import random_xl
from benchmarks.sdxl_path import COLUMNS, OURS, THEIRS, VAES, main


@pytest.mark.slow
def test_every_measurement_is_a_row_and_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways and both VAEs; a second run measures nothing and gives the same ratios."""
    to = tmp_path / "speed.csv"
    small = ["speed", "--out", str(to), "--tiny", "--device", "cpu", "--steps", "1", "--batch", "1", "--seconds", "0"]
    assert main(small) == 0
    first = to.read_text(encoding="utf-8")
    ratios = capsys.readouterr().out.splitlines()[-len(VAES) :]
    assert main(small) == 0

    assert to.read_text(encoding="utf-8") == first and capsys.readouterr().out.splitlines() == ratios
    rows = list(csv.DictReader(first.splitlines()))
    assert tuple(rows[0]) == COLUMNS and {(row["way"], row["vae"]) for row in rows} == {
        (way, vae) for way in (OURS, THEIRS) for vae in VAES
    }
    assert all("times diffusers'" in line for line in ratios)


def test_the_base_has_sdxls_size() -> None:
    """Millions of weights as published, counted without memory for them."""
    model = random_xl("meta")
    parts = (model.unet, model.vae, *model.encoders)
    assert [round(sum(value.numel() for value in part.parameters()) / 1e6) for part in parts] == [2567, 84, 123, 695]
