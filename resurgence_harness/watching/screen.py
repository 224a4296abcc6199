"""Shows a run while it goes on: redrawn in place on a terminal, else a plain line at intervals.

On a terminal the lines are erased before anything else is written there. Elsewhere, as in CI, no control character is
ever written: a line after `FIRST` seconds, then one every `EVERY` seconds, whether or not anything has changed, so that
a long run is never silent.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from resurgence_harness.watching.course import Course
from resurgence_harness.watching.planned import ToPlan, publish
from resurgence_harness.watching.recorder import Event, Recorder
from resurgence_harness.watching.view import line, table

if TYPE_CHECKING:
    from rich.console import Console

    from resurgence_harness.storing import Store

FIRST, EVERY = 5.0, 30.0
"""Seconds until the first line without a terminal, and between two lines."""
REDRAWN = 0.5
"""Seconds between two drawings on a terminal."""


class Screen:
    """A thread that shows a course."""

    def __init__(
        self,
        course: Course,
        file: TextIO | None,
        *,
        events: Callable[[], Iterable[Event]] = tuple,
        fresh: Callable[[], str] = str,
        every: float = EVERY,
        owned: bool = False,
    ) -> None:
        """Write to `file`, which is closed at the end if it is `owned`; None shows nothing.

        `events` returns new events of other processes. `fresh` returns a line end if the terminal's last line is
        unfinished. Nothing happens before `start`.
        """
        self.course = course
        self._file, self._events, self._fresh, self._every, self._owned = file, events, fresh, every, owned
        self._console = _console(file) if file is not None else None
        self._shown = 0
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = time.monotonic() + min(FIRST, every)

    @property
    def live(self) -> bool:
        """Whether it is redrawn in place."""
        return self._console is not None

    def apply(self, event: Event) -> None:
        """Take an event of this process into account."""
        with self._lock:
            self.course.apply(event)

    def start(self) -> None:
        """Start the thread."""
        if self._file is not None:
            self._thread = threading.Thread(target=self._watch, name="resurgence-view", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and erase what it has drawn."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self.erase()
        if self._owned and self._file is not None and not self._file.closed:
            self._file.close()

    def erase(self) -> None:
        """Erase what was drawn, before other output is written."""
        with self._lock:
            if self._shown:
                self._write(_erasing(self._shown))
                self._shown = 0

    def _watch(self) -> None:
        while not self._stop.wait(REDRAWN):
            with self._lock:
                for event in self._events():
                    self.course.apply(event)
                self.show(time.monotonic())

    def show(self, now: float) -> None:
        """Draw the view, or write a line if it is time for one."""
        if self._console is not None:
            self._draw(self._console, now)
        elif now >= self._next and (self.course.cells or self.course.processes):
            self._next = now + self._every
            self._write(f"{self._fresh()}[resurgence] {line(self.course, now)}\n")

    def _draw(self, console: Console, now: float) -> None:
        width, height = _size(self._file)
        console.width = width
        with console.capture() as drawn:
            console.print(table(self.course, now, width=width, height=max(min(height // 2, 16), 3)))
        text = drawn.get().rstrip("\n")
        before = _erasing(self._shown) if self._shown else self._fresh()
        self._write(before + text)
        self._shown = text.count("\n") + 1

    def _write(self, text: str) -> None:
        if self._file is None or self._file.closed:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except (OSError, ValueError):
            self._stop.set()


def _erasing(lines: int) -> str:
    """Erase the line of the cursor and those above it."""
    return "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (lines - 1)


def _console(file: TextIO) -> Console | None:
    """rich's console if this is a terminal that can move its cursor."""
    if not file.isatty():
        return None
    from rich.console import Console

    found = Console(file=io.StringIO(), force_terminal=True, highlight=False, legacy_windows=False)
    return None if found.is_dumb_terminal else found


def _size(file: TextIO | None) -> tuple[int, int]:
    try:
        found = os.get_terminal_size(file.fileno()) if file is not None else os.terminal_size((80, 24))
    except (OSError, ValueError):
        found = os.terminal_size((80, 24))
    return max(found.columns - 1, 20) if found.columns else 79, found.lines or 24


class View:
    """The view of a run of this process."""

    def __init__(self, screen: Screen) -> None:
        """Nothing happens before `start`."""
        self.screen = screen
        self.recorder = Recorder(screen.apply)
        self._stop = threading.Event()

    def plan(self, cells: Iterable[ToPlan], *, store: Callable[[], Store], device: str) -> None:
        """Plan the work of the cells in a thread beside the run; see `planned.publish`."""

        def publishing() -> None:
            publish(
                cells,
                store=store,
                device=device,
                emit=self.screen.apply,
                now=time.monotonic,
                stop=self._stop.is_set,
            )

        threading.Thread(target=publishing, name="resurgence-plan", daemon=True).start()

    def start(self) -> None:
        """Start to show."""
        self.screen.start()

    def stop(self) -> None:
        """Stop to show and to plan."""
        self._stop.set()
        self.screen.stop()


@contextmanager
def watched(cells: Iterable[str] = ()) -> Iterator[View]:
    """Show a run of this process on stderr while the context is open."""
    view = View(Screen(Course(cells, began=time.monotonic()), sys.stderr))
    view.start()
    try:
        yield view
    finally:
        view.stop()
