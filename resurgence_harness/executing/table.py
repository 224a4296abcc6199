"""The progress of a build on many workers: one table on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resurgence_harness.executing.running import Worker
from resurgence_harness.executing.schedule import Schedule

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EVERY = 30.0
"""Seconds between two lines without a terminal."""
SHOWN = 16
"""Workers in the table; of more, those that have jobs."""


class Lines:
    """Progress for a log: one line in `EVERY` seconds, and every note."""

    def __init__(self, cells: int) -> None:
        """`cells`: how many there are."""
        self._cells, self._last = cells, time.monotonic()

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """Print a line if the last one is old enough."""
        if time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self.note(progress_line(workers, schedule, self._cells))

    def note(self, line: str) -> None:
        """Print a line now."""
        print(f"[resurgence] {line}", file=sys.stderr, flush=True)


class Live:
    """Progress on a terminal: a table that is drawn again and again."""

    def __init__(self, cells: int, live: Any, console: Console) -> None:
        """`live` is rich's."""
        self._cells, self._live, self._console = cells, live, console

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """Draw the table."""
        self._live.update(table(workers, schedule, self._cells))

    def note(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(f"[resurgence] {line}", markup=False, highlight=False)


@contextmanager
def watched(cells: int) -> Iterator[Lines | Live]:
    """Progress on stderr while the context is open."""
    from rich.console import Console
    from rich.live import Live as RichLive

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(cells)
        return
    with RichLive(console=console, transient=True, refresh_per_second=2) as live:
        yield Live(cells, live, console)


def table(workers: list[Worker], schedule: Schedule, cells: int) -> Table:
    """The workers with what they do, and the whole build below."""
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=None, caption=progress_line(workers, schedule, cells), caption_justify="left")
    for column in ("worker", "node", "builds", "", "built"):
        made.add_column(column, justify="right" if column in ("", "built") else "left", no_wrap=True)
    busy = [worker for worker in workers if worker.seen.label]
    shown = workers if len(workers) <= SHOWN else busy[:SHOWN]
    for worker in shown:
        seen = worker.seen
        part = f"{seen.done}/{seen.total}" if seen.total else ""
        made.add_row(
            *map(escape, (worker.name, worker.about.host, seen.label or "waits", part, str(worker.built))),
        )
    if len(workers) > len(shown):
        made.add_row(f"… {len(workers) - len(shown)} more", "", "", "", "")
    return made


def progress_line(workers: list[Worker], schedule: Schedule, cells: int) -> str:
    """ "12 of 300 cells, 340 artifacts built, 41 known to be missing, 8 workers, about 12 min for these"."""
    if not workers:
        return f"{schedule.complete} of {cells} cells, {schedule.built:,} artifacts built; waiting for workers"
    left = schedule.seconds / len(workers)
    time_left = f"{left / 3600:.1f} h" if left >= 5400 else f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return (
        f"{schedule.complete} of {cells} cells, {schedule.built:,} artifacts built, {schedule.known:,} known to be "
        f"missing, {len(workers)} worker{'' if len(workers) == 1 else 's'}, about {time_left} for these"
    )
