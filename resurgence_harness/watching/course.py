"""The state of a run as it is shown: cells, what each process does, rates and bounds, images per second, time left."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from resurgence_harness.watching.forecast import Forecast

WINDOW = 30.0
"""Seconds over which images per second are counted."""


class Bound(NamedTuple):
    """One criterion of a cell at its last look."""

    name: str
    estimate: float
    low: float
    high: float
    limit: float


@dataclass
class Shown:
    """One cell."""

    name: str
    verdict: str = ""
    """Its verdict once it has ended."""
    ended: bool = False
    rates: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Arm → (hits, images)."""
    bounds: tuple[Bound, ...] = ()
    images: int = 0

    @property
    def bound(self) -> Bound | None:
        """The criterion to show: the rise where it is claimed, else the level."""
        by_name = {one.name: one for one in self.bounds}
        return by_name.get("rise") or by_name.get("level")


@dataclass
class Activity:
    """What one process does."""

    cell: str = ""
    label: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    images: int = 0
    gpu: tuple[int, int] | None = None


class Course:
    """The events of a run so far."""

    def __init__(self, cells: Iterable[str] = (), *, workers: int = 1, began: float = 0.0) -> None:
        """`cells`: names in their order. `began`: the time of the run's start, by the monotonic clock."""
        names = list(cells)
        self.began = began
        self.cells: dict[str, Shown] = {name: Shown(name) for name in names}
        self.processes: dict[str, Activity] = {}
        self.forecast = Forecast(names, workers=workers)
        self._drawn: deque[tuple[float, int]] = deque()

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take an event into account; one that cannot be read is left out."""
        try:
            self._apply(event)
        except (KeyError, TypeError, ValueError, AttributeError):
            return

    def _apply(self, event: Mapping[str, Any]) -> None:
        self.forecast.apply(event)
        kind = event["e"]
        if kind == "plan":
            return
        process = self.processes.setdefault(str(event["w"]), Activity())
        if kind == "cell":
            process.cell, process.label, process.done, process.total = event["cell"], "", 0, 0
            self.cells.setdefault(event["cell"], Shown(event["cell"]))
        elif kind == "doing":
            process.label, process.done, process.total = event["label"], int(event["done"]), int(event["total"])
            process.loss, process.images = event.get("loss"), int(event["images"])
            process.gpu = tuple(event["gpu"]) if event.get("gpu") else process.gpu
            self._drawn.append((float(event["t"]), self.images))
        elif kind == "look":
            cell = self.cells.setdefault(event["cell"], Shown(event["cell"]))
            cell.rates = {name: (int(hits), int(images)) for name, (hits, images) in event["rates"].items()}
            cell.bounds, cell.images = tuple(Bound(*one) for one in event["bounds"]), int(event["images"])
        elif kind == "end":
            cell = self.cells.setdefault(event["cell"], Shown(event["cell"]))
            cell.verdict, cell.ended = event["verdict"], True
            process.cell, process.label = "", ""

    @property
    def images(self) -> int:
        """Images drawn by all processes."""
        return sum(process.images for process in self.processes.values())

    @property
    def ended(self) -> int:
        """Number of cells that have ended."""
        return sum(cell.ended for cell in self.cells.values())

    @property
    def verdicts(self) -> Counter[str]:
        """How many ended cells have each verdict; "" for those that ended by an error."""
        return Counter(cell.verdict for cell in self.cells.values() if cell.ended)

    @property
    def gpu(self) -> tuple[int, int] | None:
        """(used, total) bytes of the fullest GPU; None without one."""
        known = [process.gpu for process in self.processes.values() if process.gpu is not None]
        return max(known, key=lambda one: one[0] / one[1]) if known else None

    def images_per_second(self, now: float) -> float | None:
        """Over the last `WINDOW` seconds; None if nothing was drawn in them."""
        while self._drawn and now - self._drawn[0][0] > WINDOW:
            self._drawn.popleft()
        if len(self._drawn) < 2:
            return None
        (first, before), last = self._drawn[0], self._drawn[-1]
        drawn = last[1] - before
        return drawn / (now - first) if drawn > 0 and now - first >= 2 else None

    def left(self, now: float) -> float | None:
        """Remaining seconds; None until enough is done to say."""
        return self.forecast.left(now)
