"""Progress of a run: workers write what they build and for which cell, the controller shows one line.

    [resurgence] 3 of 8 cells · celebrity/esd-10-lora: building micro → esd(10) 64/150 · about 2 min left

On a terminal the line is rewritten in place; elsewhere a new line appears at most every ten seconds; -q shows none.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO


def word(cell: Mapping[str, Any]) -> str:
    """ "celebrity/esd-10-lora": a cell's name, unique across tasks."""
    return f"{cell['task']}/{cell['id']}"


def costs(planned: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Relative cost of each cell, for the estimate of the remaining time."""
    from resurgence_harness.selection import cost

    return {word(cell): cost(cell["method"], cell["concepts"]) for cell in planned}


class ProgressWriter:
    """Writes a worker's progress, by overwriting one small file."""

    def __init__(self, path: Path | None) -> None:
        """Write to this file; nothing is written if it is None."""
        self._path, self._cell, self._written = path, "", 0.0
        self._before = self._share = self._fraction = 0.0

    def cell(self, cell: str) -> None:
        """A cell begins; `cell` is its name from `word`."""
        self._cell, self._before, self._share, self._fraction = cell, 0.0, 0.0, 0.0
        self._write("reading the store", 0, 0, now=True)

    def stage(self, share: float) -> None:
        """The next stage begins; `share`: its approximate fraction of the cell's time."""
        self._before, self._share = self._before + self._share, share
        self._fraction = max(self._fraction, self._before)

    def update(self, label: str, done: int, total: int, loss: float | None = None) -> None:
        """`done` of `total` units of the current work are finished; called by the bench."""
        self._write(label, done, total, now=done in (0, total))

    def finish(self) -> None:
        """The cell has ended."""
        self._cell = ""
        self._write("", 0, 0, now=True)

    def _write(self, label: str, done: int, total: int, *, now: bool) -> None:
        moment = time.monotonic()
        if self._path is None or (not now and moment - self._written < 0.25):
            return
        self._written = moment
        within = done / total if total else 0.0
        self._fraction = max(self._fraction, min(self._before + self._share * within, 0.99))  # never back
        state = {"cell": self._cell, "label": label, "done": done, "total": total, "fraction": self._fraction}
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(state), encoding="utf-8")
            os.replace(draft, self._path)
        except OSError:
            self._path = None  # progress is optional; a full disk is reported elsewhere


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """The current progress of every worker."""
    found = []
    for path in sorted(folder.glob("progress-*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if entry["cell"]:
            found.append(entry)
    return found


def describe(entries: list[dict[str, Any]], *, finished: int, total: int, left: float | None, width: int = 0) -> str:
    """The progress line, cut at `width` columns (0: not cut)."""
    parts = [f"[resurgence] {finished} of {total} cells"]
    for entry in entries:
        count = f" {entry['done']}/{entry['total']}" if entry["total"] else ""
        parts.append(f"{entry['cell']}: {entry['label']}{count}")
    if left is not None:
        parts.append(f"about {_duration(left)} left")
    line = " · ".join(parts)
    return line if not width or len(line) < width else f"{line[: max(width - 2, 0)]}…"


def seconds_left(
    elapsed: float, costs: Mapping[str, float], finished: set[str], running: Mapping[str, float]
) -> float | None:
    """Remaining seconds, extrapolated from the finished share of all costs; None until enough is finished."""
    total = sum(costs.values())
    done = sum(cost * (1.0 if cell in finished else running.get(cell, 0.0)) for cell, cost in costs.items())
    if total <= 0 or done <= 0.02 * total or elapsed < 2:
        return None
    return max(0.0, elapsed * (total - done) / done)


class ProgressLine:
    """Shows progress in the controller: a thread that reads the workers' files."""

    def __init__(
        self, folder: Path, terminal: Any, *, costs: Mapping[str, float], finished: Callable[[], set[str]], quiet: bool
    ) -> None:
        """Read `folder`, write to pytest's terminal reporter. Nothing happens before `start`."""
        self._folder, self._terminal, self._costs, self._finished = folder, terminal, costs, finished
        self._file = _past_capture(terminal)
        self._live = bool(self._file is not None and self._file.isatty())
        self._quiet = quiet or self._file is None
        self._shown = False
        self._last = ""
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._began = self._printed = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if not self._quiet:
            self._thread = threading.Thread(target=self._watch, name="resurgence-progress", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and erase the line."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self.erase()
        if self._file is not None and not self._file.closed:
            self._file.close()

    def erase(self) -> None:
        """Erase the line before other output is written."""
        with self._lock:
            if self._shown and self._file is not None and not self._file.closed:
                self._write("\r\x1b[2K")
                self._shown = False

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            with self._lock:
                self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._printed < (0.5 if self._live else 10):
            return
        entries, finished = read_progress(self._folder), self._finished()
        if not entries:
            return
        running = {entry["cell"]: entry["fraction"] for entry in entries}
        left = seconds_left(now - self._began, self._costs, finished, running)
        width = self._terminal._tw.fullwidth if self._live else 0
        line = describe(entries, finished=len(finished), total=len(self._costs), left=left, width=width)
        if line == self._last and self._shown == self._live:
            return
        self._last, self._printed = line, now
        if self._live:
            self._write(("\r\x1b[2K" if self._shown else self._fresh()) + line)
            self._shown = True
        else:
            self._write(f"{self._fresh()}{line}\n")

    def _fresh(self) -> str:
        """A line end if pytest has left a line unfinished."""
        return "\n" if self._terminal._tw.width_of_current_line else ""

    def _write(self, text: str) -> None:
        """Write without pytest's own writer, which counts the columns it wrote."""
        assert self._file is not None
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):
            self._stop.set()


def _past_capture(terminal: Any) -> TextIO | None:
    """A duplicate of pytest's terminal that is not captured while a test of this process runs."""
    if terminal is None:
        return None
    try:
        encoding = terminal._tw._file.encoding or "utf-8"
        return open(os.dup(terminal._tw._file.fileno()), "w", encoding=encoding, errors="replace")
    except (AttributeError, OSError, ValueError):
        return None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
