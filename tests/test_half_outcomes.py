"""benchmarks.half_outcomes as it is, with few images and updates on a CPU: rows, a second call, and the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import half_outcomes

pytestmark = pytest.mark.slow
FEW = ("sampler.steps=1", "benign.names=2", "benign.seeds=1", "lora.steps=1", "lora.batch=1")
FEW += ("esd.iterations=1", "esd.trajectories=1", "esd.trajectory_steps=2", "esd.batch=1")


def test_rows_of_both_arithmetics_are_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainings alone differ; a second call measures nothing."""
    table = tmp_path / "outcomes.csv"
    command = ["--to", str(table), "--cells", "esd-1-lora", "--runs", "1", "--device", "cpu", "--seeds", "1"]
    command += [part for one in FEW for part in ("--set", one)]

    assert half_outcomes.main([*command, "--minutes", "-1"]) == half_outcomes.LEFT
    assert half_outcomes.main(command) == 0

    rows = half_outcomes.read(table)
    assert [(row["cell"], row["run"], row["arithmetic"]) for row in rows] == [
        ("esd-1-lora", "0", "float32"),
        ("esd-1-lora", "0", "float16"),
    ]
    assert [row["computed by"] for row in rows] == ["", "plain modules under autocast"]
    for column in ("unlearning loss", "fine-tuning loss"):
        one, other = (float(row[column]) for row in rows)
        assert one != other and one == pytest.approx(other, rel=0.01)
    for rate in half_outcomes.RATES:
        assert rows[0][f"{rate} images"] == rows[1][f"{rate} images"] != "0"

    monkeypatch.setattr(half_outcomes, "measured", lambda *_, **__: pytest.fail("a known row is measured again"))
    assert half_outcomes.main(command) == 0
    assert half_outcomes.main(["--to", str(table), "--compare"]) == 0
    assert capsys.readouterr().out.count("fewer than two training seeds") == len(half_outcomes.RATES)


def test_the_comparison_counts_in_standard_errors_over_seeds() -> None:
    """Two seeds of each; Welch's t of .1, .3 and .4, .6 is 3 / √2; equal rates have none."""
    rows = []
    for arithmetic, hits in (("float32", (10, 30)), ("float16", (40, 60))):
        for run, number in enumerate(hits):
            row = {"cell": "esd-1-lora", "run": str(run), "arithmetic": arithmetic}
            row |= {f"{rate} {part}": "100" for rate in half_outcomes.RATES for part in ("hits", "images")}
            rows.append(row | {"erased after hits": str(number)})

    lines = list(half_outcomes.compared(rows))

    assert "erased after" in lines[1] and "float32 0.200 (0.100 to 0.300) float16 0.500" in lines[1]
    assert "t +2.12" in lines[1]
    assert all(line.endswith("every seed the same") for line in (lines[0], *lines[2:]))
