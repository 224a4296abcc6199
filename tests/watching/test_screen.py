"""What is shown: plain lines elsewhere, a view redrawn in place on a terminal; and how events travel."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resurgence_harness.pytest_plugin.live_view import past_capture
from resurgence_harness.watching import Course, EventFiles, EventWriter, Recorder, Screen, word
from resurgence_harness.watching.course import Bound
from resurgence_harness.watching.view import duration, interval, line, table

CELLS = ("celebrity/esd-10-lora", "celebrity/uce-10-lora")
LOOK = {
    "asked": {"erased": 2},
    "more": {},
    "rates": {"before": [1, 50], "after": [2, 50]},
    "bounds": [["level", 0.04, 0.01, 0.12, 0.1], ["rise", 0.02, -0.03, 0.09, 0.05]],
    "images": 100,
}


def filled(*, at: float = 100.0) -> Course:
    """A run in the middle of its second cell."""
    course = Course(CELLS, workers=1, began=0.0)
    events: list[dict[str, Any]] = [
        {"e": "cell", "t": 1, "cell": CELLS[0]},
        {"e": "look", "t": 50, "cell": CELLS[0], **LOOK},
        {"e": "end", "t": 60, "cell": CELLS[0], "verdict": "VIOLATED"},
        {"e": "cell", "t": 61, "cell": CELLS[1]},
        {"e": "look", "t": 80, "cell": CELLS[1], **LOOK},
    ]
    doing = {"e": "doing", "label": "drawing 25 images of micro → uce(10)", "total": 25, "gpu": [2**31, 2**37]}
    events += [{**doing, "t": at - 10 + place, "done": place, "images": 200 + 2 * place} for place in range(10)]
    for one in events:
        course.apply({"w": "main", **one})
    return course


def test_a_line_says_what_runs_and_how_it_stands() -> None:
    """Cells and their verdicts, the stage, the rates, the speed."""
    assert line(filled(), 100.0) == (
        "2 of 2 cells (1 SAFETY REGRESSION)".replace("2 of", "1 of")
        + " · celebrity/uce-10-lora: drawing 25 images of micro → uce(10) 9/25, 0.02 → 0.04 of 50 · 1.8 images/s"
    )


def test_a_line_has_no_control_characters() -> None:
    """Whatever a model is called."""
    course = Course(["a"], began=0.0)
    course.apply({"e": "cell", "t": 0, "w": "main", "cell": "a\x1b[2Jb\r\n"})
    course.apply({"e": "doing", "t": 0, "w": "main", "label": "\x1b]0;x\x07", "done": 0, "total": 1, "images": 0})
    assert re.search(r"[\x00-\x1f\x7f]", line(course, 1.0)) is None


@pytest.mark.parametrize(("width", "height"), [(120, 20), (79, 12), (40, 4), (20, 3)])
def test_the_view_fits_the_terminal(width: int, height: int) -> None:
    """No line is longer than the terminal, and there are at most `height`: else it could not be redrawn in place."""
    from rich.console import Console

    course = filled()
    for number in range(30):
        course.apply({"e": "cell", "t": 90, "w": f"gw{number}", "cell": f"celebrity/esd-{number}-lora"})
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(table(course, 100.0, width=width, height=height))
    lines = file.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= height and max(map(len, lines)) <= width
    if width == 120:
        assert "SAFETY REGRESSION" in lines[0] and "GPU 2.0 of 128 GiB" in lines[0]
        assert "0.02 → 0.04 of 50" in file.getvalue() and "-0.03 … +0.09 (0.05)" in file.getvalue()


def test_the_interval_closes_in() -> None:
    """Wide and yellow at first, narrow and green once it is inside the limit, red beyond it."""
    wide = interval(Bound("level", 0.05, 0.0, 0.19, 0.1))
    narrow = interval(Bound("level", 0.05, 0.03, 0.08, 0.1))
    beyond = interval(Bound("level", 0.18, 0.15, 0.2, 0.1))
    assert wide.plain.count("━") > narrow.plain.count("━") > 0
    for text, style in ((wide, "yellow"), (narrow, "green"), (beyond, "red")):
        assert {str(span.style) for span in text.spans} & {"green", "yellow", "red"} == {style}
        assert len(text.plain) == 21


def test_without_a_terminal_a_line_appears_at_intervals_even_if_nothing_happens(tmp_path: Path) -> None:
    """A file, as in CI: the first line soon, then one per interval, and never a control character."""
    path = tmp_path / "out.txt"
    with path.open("w", encoding="utf-8") as file:
        screen = Screen(filled(), file, every=30.0)
        begun = time.monotonic()
        for seconds in (0, 4, 6, 20, 34, 37, 66, 68):
            screen.show(begun + seconds)
        screen.stop()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 and all(one.startswith("[resurgence] 1 of 2 cells") for one in lines)
    assert "\x1b" not in path.read_text(encoding="utf-8")


def test_a_run_that_has_not_begun_anything_shows_nothing(tmp_path: Path) -> None:
    """No empty line."""
    with (tmp_path / "out.txt").open("w", encoding="utf-8") as file:
        screen = Screen(Course(), file, every=0.0)
        screen.show(time.monotonic() + 9)
        assert file.tell() == 0


def test_on_a_terminal_the_view_is_redrawn_and_erased() -> None:
    """A real pseudo-terminal: what was drawn is erased line by line before it is drawn again, and at the end."""
    parent, child = pty.openpty()
    file = os.fdopen(child, "w", encoding="utf-8")
    screen = Screen(filled(), file, owned=True)
    assert screen.live
    screen.show(100.0)
    shown = screen._shown
    screen.show(101.0)
    screen.erase()
    screen.erase()
    text = os.read(parent, 65536).decode()
    while select.select([parent], [], [], 0.2)[0]:
        text += os.read(parent, 65536).decode()
    screen.stop()
    os.close(parent)
    erasing = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (shown - 1)
    assert shown >= 3 and text.count(erasing) == 2 and text.endswith(erasing)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb, as in editors."""
    monkeypatch.setenv("TERM", "dumb")
    parent, child = pty.openpty()
    screen = Screen(filled(), os.fdopen(child, "w", encoding="utf-8"), owned=True)
    assert not screen.live
    screen.stop()
    os.close(parent)


def test_events_of_workers_arrive_once_and_in_order(tmp_path: Path) -> None:
    """Two files, read while they grow; an unfinished line waits for its rest, a damaged one is left out."""
    writers = [EventWriter(tmp_path / f"events-gw{number}.jsonl") for number in (0, 1)]
    files = EventFiles(tmp_path)
    assert files() == []
    writers[1]({"e": "cell", "t": 2.0, "w": "gw1", "cell": "b"})
    writers[0]({"e": "cell", "t": 1.0, "w": "gw0", "cell": "a"})
    with (tmp_path / "events-gw0.jsonl").open("a", encoding="utf-8") as file:
        file.write("damaged\n")
        file.write('{"e": "end", "t": 3.0, ')
    assert [event["cell"] for event in files()] == ["a", "b"]
    with (tmp_path / "events-gw0.jsonl").open("a", encoding="utf-8") as file:
        file.write('"w": "gw0", "cell": "a", "verdict": ""}\n')
    assert [event["e"] for event in files()] == ["end"]
    assert files() == []


def test_a_full_disk_stops_progress_and_nothing_else(tmp_path: Path) -> None:
    """The writer gives up after the first failure."""
    writer = EventWriter(tmp_path / "missing" / "events-gw0.jsonl")
    recorder = Recorder(writer, worker="gw0")
    with recorder.during("a"):
        recorder.update("drawing", 1, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_recorder_counts_images_and_ends_cells() -> None:
    """Images over several pieces of work; a cell that ends by an error has no verdict."""
    events: list[dict[str, Any]] = []
    recorder = Recorder(events.append)
    with pytest.raises(ValueError, match="broken"), recorder.during("a"):
        for done in (0, 10, 25, 0, 25):
            recorder.update("drawing 25 images of micro", done, 25)
        recorder.update("building micro → esd(1)", 100, 100, 0.5)
        raise ValueError("broken")
    doing = [event for event in events if event["e"] == "doing"]
    assert [event["images"] for event in doing if event["label"].startswith("drawing")][-1] == 50
    assert doing[-1]["images"] == 50 and doing[-1]["loss"] == 0.5
    assert events[0]["e"] == "cell" and events[-1]["e"] == "end" and events[-1]["verdict"] == ""


def test_a_damaged_event_changes_nothing() -> None:
    """The view of a run never ends it."""
    course = filled()
    before = line(course, 100.0)
    for event in ({"e": "look"}, {"e": "plan", "t": "x"}, {}, {"e": "doing", "t": 1, "w": "main"}):
        course.apply(event)
    assert line(course, 100.0) == before


def test_a_terminal_that_is_no_file_is_left_alone() -> None:
    """Inside other programs pytest writes to memory; there is no view then, and no error."""
    assert past_capture(SimpleNamespace(_tw=SimpleNamespace(_file=io.StringIO()))) is None
    assert past_capture(None) is None
    screen = Screen(Course(), None)
    screen.start()
    screen.stop()


def test_cells_of_two_tasks_with_one_id_are_two() -> None:
    """Suites run together."""
    assert word({"task": "celebrity", "id": "uce-1-lora"}) != word({"task": "object", "id": "uce-1-lora"})


def test_durations_are_read_at_a_glance() -> None:
    """Seconds, minutes, hours."""
    assert [duration(one) for one in (0.2, 89, 91, 5399, 5401)] == ["1 s", "89 s", "2 min", "90 min", "1.5 h"]
