"""The table of benchmarks.lives: a row for each stage, and what a second call does not run again."""

from __future__ import annotations

from pathlib import Path

from benchmarks import lives
from tests.reporting.records import record
from tests.reporting.test_lives import BACK, LEVEL

CELL = record(
    "yearly-3-full", by_stage=BACK, findings=[LEVEL, {"name": "rise", "low": 0.31, "high": 0.52}], outcome="unlearned"
)


def test_a_cell_has_a_row_for_each_stage(tmp_path: Path) -> None:
    """Counts of what there was to count; a second cell is added, and the first stays as it was."""
    table = tmp_path / "lives.csv"
    assert lives.read(table) == []
    lives.append(table, list(lives.rows(CELL, "micro → uce → lora", "cpu")))
    first = table.read_text(encoding="utf-8")
    lives.append(table, list(lives.rows({**CELL, "id": "other"}, "micro", "cpu")))
    assert table.read_text(encoding="utf-8").startswith(first) and not list(tmp_path.glob("*.new"))
    read = lives.read(table)
    assert [row["cell"] for row in read] == ["yearly-3-full"] * 5 + ["other"] * 5
    assert [row["erased_hits"] for row in read[:5]] == ["", "0", "60", "90", "92"]
    assert read[1]["waiting_hits"] == "148" and read[2]["came_back"] == "True" and read[3]["erases"] == "1"
    assert (read[4]["verdict"], read[4]["rise_low"], read[4]["of"]) == ("VIOLATED", "0.31", "5")


def test_the_run_is_read_from_the_node_id() -> None:
    """The last part, if there is one."""
    assert [lives.run_of(f"a.py::t[{cell}]") for cell in ("x-5-lora", "x-5-lora-run2", "x-5-lora-run12")] == [0, 2, 12]
