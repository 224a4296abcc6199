"""The celebrity path on a real base's terms, end to end, at a very small size: benchmarks/sd_path.py as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks.sd_path import COLUMNS, Ran, check, main

pytestmark = pytest.mark.slow


def test_the_whole_path_runs_by_the_command_line_and_passes_nothing(tmp_path: Path) -> None:
    """Unlearning, LoRA, images and CLIP's judgments are made once, timed by stage, and leave the cell undecided."""
    small = ["--steps", "1", "--lora-steps", "2", "--methods", "uce", "--set", "benign.seeds=1"]
    main(["--tiny", "--device", "cpu", *small, "--to", str(tmp_path / "path.csv"), "--work", str(tmp_path / "work")])

    with (tmp_path / "path.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    seconds = {row["stage"]: float(row["seconds"]) for row in rows}
    number = {row["stage"]: int(row["number"]) for row in rows}
    assert (number["unlearn"], number["LoRA"], number["benign images"]) == (1, 2, 10)
    assert (number["sample base"], number["sample before"], number["sample after"]) == (50, 24, 24)
    assert number["judge"] == sum(count for stage, count in number.items() if stage.startswith("sample "))
    assert seconds["the same again, everything in the store"] < seconds["the whole run"]

    told = json.loads((tmp_path / "work" / "out" / "verdict.json").read_text(encoding="utf-8"))
    (cell,) = told["cells"]
    assert (cell["id"], cell["verdict"], cell["judge"]) == ("uce-10-lora", "UNDECIDED", "clip-names")
    assert cell["before"]["judged"] == 24 and told["exit_code"] == 10
    cell["verdict"] = "HOLDS"
    with pytest.raises(SystemExit, match="uce is HOLDS"):
        check(Ran(10, 1.0, 1.0, {}, told), ["uce"])
    with pytest.raises(SystemExit, match="exit code 0 where 10 was due; esd has no verdict"):
        check(Ran(0, 1.0, 1.0, {}, {"cells": []}), ["esd"])
