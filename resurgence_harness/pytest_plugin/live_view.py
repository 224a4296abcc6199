"""The view of a run in the controller: cells of suites and groups of a gate, over all workers.

The work of cells that have not begun is planned by a thread beside the run, from the store's manifests alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from resurgence_harness.diffusion.devices import resolved_device
from resurgence_harness.pytest_plugin.state import engine_in, gating_in, options_of
from resurgence_harness.watching import Course, EventFiles, Screen, View, word

if TYPE_CHECKING:
    import pytest

    from resurgence_harness.storing import Store
    from resurgence_harness.watching import ToPlan


class RunView:
    """Shows a run from its workers' events, and plans its cells."""

    def __init__(self, config: pytest.Config, folder: Path, planned: Sequence[Mapping[str, Any]]) -> None:
        """`folder`: where the workers write their events. `planned`: every cell that needs a verdict."""
        self._config, self._planned = config, planned
        workers = getattr(config.option, "numprocesses", None) or 1
        course = Course(dict.fromkeys(map(word, planned)), workers=int(workers), began=time.monotonic())
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        quiet = getattr(config.option, "verbose", 0) < 0
        file = None if quiet else past_capture(terminal)
        self._view = View(Screen(course, file, events=EventFiles(folder), fresh=lambda: _fresh(terminal), owned=True))
        self._shown = file is not None

    def start(self) -> None:
        """Start to show and to plan; does nothing for a quiet run."""
        self._view.start()
        if self._shown:
            if not all(entry.get("gate") for entry in self._planned):
                engine = engine_in(self._config)  # made here, since two threads would make two
                _ = engine.base, engine.store
            device = resolved_device(options_of(self._config).device)
            self._view.plan(self._cells(), store=self._store, device=device)

    def erase(self) -> None:
        """Erase the view before other output is written."""
        self._view.screen.erase()

    def stop(self) -> None:
        """Stop to show and to plan."""
        self._view.stop()

    def _store(self) -> Store:
        if any(entry.get("gate") for entry in self._planned):
            return gating_in(self._config).gate.store
        return engine_in(self._config).store

    def _cells(self) -> Iterator[ToPlan]:
        """Every planned cell with the function that plans its work."""
        from resurgence_harness.selection import cells

        options = options_of(self._config)
        known: dict[str, dict[str, Any]] = {}
        for entry in self._planned:
            if entry.get("gate"):
                yield from (one for one in gating_in(self._config).gate.to_plan if one[0] == word(entry))
                continue
            task = options.tasks[entry["task"]]
            if entry["task"] not in known:
                known[entry["task"]] = {cell.id: cell for cell in cells(task, options.selection)}
            cell = known[entry["task"]].get(entry["id"])
            if cell is None:
                continue  # a marker's own recipe: it is expected to cost as much as the others
            yield word(entry), partial(engine_in(self._config).expected, cell, task)


def past_capture(terminal: Any) -> TextIO | None:
    """A duplicate of pytest's terminal that is not captured while a test of this process runs."""
    if terminal is None:
        return None
    try:
        encoding = terminal._tw._file.encoding or "utf-8"
        return open(os.dup(terminal._tw._file.fileno()), "w", encoding=encoding, errors="replace")
    except (AttributeError, OSError, ValueError):
        return None


def _fresh(terminal: Any) -> str:
    """A line end if pytest has left a line unfinished."""
    return "\n" if terminal is not None and terminal._tw.width_of_current_line else ""
