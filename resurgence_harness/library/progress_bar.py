"""Progress of builds: a bar on a terminal, otherwise occasional lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resurgence_harness.bench import Progress

EVERY = 30.0
"""Minimum seconds between two lines without a terminal."""


@contextmanager
def shown_progress(set_progress: Callable[[Progress], None], *, cells: int = 0) -> Iterator[Callable[[], None]]:
    """Show progress while the context is open; yields a function to call after each cell.

    `set_progress` gets the progress function. `cells` is their number, for a separate bar; 0 for none.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        set_progress(_lines())
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        whole = bars.add_task("cells", total=cells) if cells else None
        part, stage = bars.add_task("starting", total=None), ""

        def progress(label: str, done: int, total: int, loss: float | None) -> None:
            nonlocal stage
            if label != stage:
                stage = label
                bars.reset(part)
            text = label if loss is None else f"{label}, loss {loss:.4f}"
            bars.update(part, description=text.replace("[", "\\["), completed=done, total=total)

        set_progress(progress)
        yield lambda: bars.advance(whole) if whole is not None else None


def _lines() -> Progress:
    """Progress as lines on stderr, at most one in `EVERY` seconds, so that a long run in CI shows activity."""
    last = time.monotonic()

    def progress(label: str, done: int, total: int, loss: float | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            count = f" {done}/{total}" if total else ""
            print(f"[resurgence] {label}{count}", file=sys.stderr, flush=True)

    return progress
