"""What is being built, and how long it still takes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from resurgence_harness.pytest_plugin.progress import (
    ProgressLine,
    ProgressWriter,
    costs,
    describe,
    read_progress,
    seconds_left,
    word,
)


def test_workers_tell_and_the_controller_reads(tmp_path: Path) -> None:
    """One small file a worker, overwritten; a finished cell leaves nothing to show."""
    writer = ProgressWriter(tmp_path / "progress-gw0.json")
    writer.cell("celebrity/esd-10-lora")
    writer.stage(0.2)
    writer.update("drawing", 100, 100)
    writer.stage(0.3)
    writer.update("building micro → esd(10)", 0, 150)
    (entry,) = read_progress(tmp_path)
    assert (entry["cell"], entry["label"], entry["fraction"]) == (
        "celebrity/esd-10-lora",
        "building micro → esd(10)",
        0.2,
    )
    assert describe([entry], finished=3, total=8, left=125) == (
        "[resurgence] 3 of 8 cells · celebrity/esd-10-lora: building micro → esd(10) 0/150 · about 2 min left"
    )
    writer.finish()
    assert read_progress(tmp_path) == []


def test_a_line_fits_the_terminal() -> None:
    """It is cut rather than wrapped, for a wrapped line cannot be rewritten."""
    entries = [{"cell": f"celebrity/esd-{k}-lora", "label": "drawing", "done": 1, "total": 2} for k in range(9)]
    assert len(describe(entries, finished=0, total=9, left=None, width=60)) < 60


def test_cells_of_two_tasks_with_one_id_are_two() -> None:
    """Suites run together: neither is finished, nor weighed, for the other."""
    cells = [{"task": task, "id": "uce-1-lora", "method": "uce", "concepts": 1} for task in ("celebrity", "object")]
    weighed = costs(cells)
    assert list(weighed) == ["celebrity/uce-1-lora", "object/uce-1-lora"]
    assert seconds_left(30, weighed, {word(cells[0])}, {}) == pytest.approx(30)


def test_remaining_time_scales_with_cost() -> None:
    """Half of the cost done in a minute leaves a minute; nothing done says nothing."""
    costs = {"a": 3.0, "b": 1.0}
    assert seconds_left(60, costs, {"b"}, {"a": 1 / 3}) == 60
    assert seconds_left(60, costs, set(), {}) is None
    assert seconds_left(60, costs, {"a", "b"}, {}) == 0


def test_without_a_terminal_lines_are_rare_and_a_quiet_run_has_none(tmp_path: Path) -> None:
    """Not on a terminal: a new line at most every ten seconds. -q: none."""
    path = tmp_path / "out.txt"
    ProgressWriter(tmp_path / "progress-gw0.json").cell("celebrity/esd-10-lora")
    with path.open("w", encoding="utf-8") as file:
        terminal = SimpleNamespace(_tw=SimpleNamespace(_file=file, width_of_current_line=3, fullwidth=80))
        line = ProgressLine(tmp_path, terminal, costs={"celebrity/esd-10-lora": 1.0}, finished=set, quiet=False)
        line._printed = time.monotonic() - 11
        line._show()
        line._show()
        line.stop()
    assert (
        path.read_text(encoding="utf-8") == "\n[resurgence] 0 of 1 cells · celebrity/esd-10-lora: reading the store\n"
    )
    quiet = ProgressLine(tmp_path, terminal, costs={}, finished=set, quiet=True)
    quiet.start()
    assert quiet._thread is None


def test_a_terminal_that_is_no_file_is_left_alone() -> None:
    """Inside other programs pytest writes to memory; there is no line then, and no error."""
    terminal = SimpleNamespace(_tw=SimpleNamespace(_file=io.StringIO()))
    line = ProgressLine(Path(), terminal, costs={}, finished=set, quiet=False)
    line.start()
    line.stop()
