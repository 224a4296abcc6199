"""The events of one process, and the files through which workers send them.

    {"e": "cell", "cell": "celebrity/esd-10-lora"}                        the process begins a cell
    {"e": "begun", "key": "0123abcd…"}                                    it begins to build an artifact
    {"e": "doing", "label": "drawing …", "done": 3, "total": 24, "images": 120, …}
    {"e": "made", "key": "0123abcd…", "group": "draw 64×64, 10 steps", "units": 24, "seconds": 3.9}
    {"e": "look", "cell": …, "asked": {"erased": 2}, "more": {"erased": 3}, "rates": …, "bounds": …}
    {"e": "end", "cell": …, "verdict": "HOLDS"}

Every event has its time `t`, in seconds of the monotonic clock, which processes of one machine share, and its process
`w`. Losing events loses progress, never a verdict.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.statistics import ImageGroup, Verdict

if TYPE_CHECKING:
    from resurgence_harness.inquiry import Inquiry
    from resurgence_harness.planning import Work
    from resurgence_harness.specs import Grid

Event = dict[str, Any]
Emit = Callable[[Event], None]
KEY = 16
"""Number of digits of an artifact's key in an event."""
BETWEEN = 0.5
"""Minimum seconds between two events "doing" of one piece of work."""
GROUPS = {
    "level": ImageGroup.ERASED,
    "rise": ImageGroup.ERASED,
    "rise of synonyms": ImageGroup.SYNONYMS,
    "incidental": ImageGroup.RETAINED,
}
"""The images that each criterion needs; `utility …` needs the retained ones, other levels their own."""
SHOWN = ("base", "before", "after", "retained_before", "retained_after")
"""Arms whose rates are in an event."""


def word(cell: Mapping[str, Any]) -> str:
    """ "celebrity/esd-10-lora": a cell's name, unique across tasks."""
    return f"{cell['task']}/{cell['id']}"


class Recorder:
    """Makes events of what one process does."""

    def __init__(self, emit: Emit | None = None, *, worker: str = "main") -> None:
        """Pass events to `emit`; without it nothing is recorded."""
        self._emit, self._worker = emit, worker
        self._cell, self._verdict, self._label = "", "", ""
        self._written = 0.0
        self._images = self._last = 0

    def _send(self, kind: str, **about: Any) -> None:
        if self._emit is not None:
            self._emit({"e": kind, "t": round(time.monotonic(), 3), "w": self._worker, **about})

    def update(self, label: str, done: int, total: int, loss: float | None = None) -> None:
        """`done` of `total` units of the current work are finished; the bench calls it."""
        drawing, now = label.startswith("drawing "), time.monotonic()
        if label != self._label or done < self._last:
            self._label, self._last = label, 0
        self._images += (done - self._last) if drawing else 0
        self._last = done
        if now - self._written < BETWEEN and done not in (0, total):
            return
        self._written = now
        gpu = gpu_memory()
        about = {"label": label, "done": done, "total": total, "images": self._images}
        self._send("doing", **about, **({"loss": loss} if loss is not None else {}), **({"gpu": gpu} if gpu else {}))

    def begun(self, key: str) -> None:
        """The build of an artifact begins."""
        self._send("begun", key=key[:KEY])

    def made(self, key: str, work: Work | None, seconds: float) -> None:
        """An artifact was built in `seconds`, other artifacts built meanwhile excluded."""
        group, units = (work.group, work.units) if work is not None else ("", 0)
        self._send("made", key=key[:KEY], group=group, units=units, seconds=round(seconds, 4))

    def look(self, inquiry: Inquiry[Any], verdict: Verdict, wants: Collection[ImageGroup]) -> None:
        """The cell was decided on the images so far; `wants`: the groups of which more will be drawn."""
        self._verdict = verdict.kind.value
        asked: dict[str, int] = {}
        grids: dict[str, Grid] = {}
        for name, arm in inquiry.plan.arms.items():
            if arm.group is not None:
                asked[arm.group.value] = max(asked.get(arm.group.value, 0), len(inquiry.asked(name)))
                grids[arm.group.value] = arm.grid
        further = more_images(verdict)
        more: dict[str, int | None] = {}
        for group in wants:
            grid = grids.get(group.value)
            if grid is not None and asked[group.value] < grid.blocks:
                needed = ceil(further[group] / grid.block) if group in further else None
                more[group.value] = None if needed is None else min(needed, grid.blocks - asked[group.value])
        rates = {name: [rate.hits, rate.images] for name, rate in verdict.rates if name in SHOWN}
        bounds = [
            [one.name, round(one.estimate, 4), round(one.low, 4), round(one.high, 4), one.limit]
            for one in verdict.findings
        ]
        images = inquiry.images
        self._send("look", cell=self._cell, asked=asked, more=more, rates=rates, bounds=bounds, images=images)

    @contextmanager
    def during(self, cell: str) -> Iterator[None]:
        """The cell begins, and ends with the context: without a verdict if by an error."""
        self._cell, self._verdict = cell, ""
        self._send("cell", cell=cell)
        try:
            yield
        except BaseException:
            self._verdict = ""
            raise
        finally:
            self._send("end", cell=cell, verdict=self._verdict)
            self._cell = ""


def more_images(verdict: Verdict) -> dict[ImageGroup, int]:
    """About how many further images of each group settle the findings that are open, where that is known."""
    found: dict[ImageGroup, int] = {}

    def add(group: ImageGroup | None, more: int | None) -> None:
        if group is not None and more:
            found[group] = max(found.get(group, 0), more)

    for one in verdict.findings:
        if not one.settled:
            utility = ImageGroup.RETAINED if one.name.startswith("utility") else None
            level = ImageGroup.AS_PARENT if one.name.startswith("level ") else None
            add(GROUPS.get(one.name, utility or level), one.more)
    add(ImageGroup.RETAINED, verdict.controls.utility.more)
    return found


def gpu_memory() -> list[int] | None:
    """[used, total] bytes of this process's GPU, by all processes; None without one, or before torch uses it."""
    torch = sys.modules.get("torch")
    if torch is None or not getattr(torch, "cuda", None) or not torch.cuda.is_initialized():
        return None
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:
        return None
    return [int(total - free), int(total)]


class EventWriter:
    """Appends a worker's events to one file, a JSON object per line."""

    def __init__(self, path: Path) -> None:
        """The file is created with the first event."""
        self._path: Path | None = path

    def __call__(self, event: Event) -> None:
        """Append an event; after a failure, such as a full disk, nothing more is written."""
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
        except OSError:
            self._path = None  # a full disk is reported where something that counts is written


class EventFiles:
    """Reads what the workers have appended since the last call."""

    def __init__(self, folder: Path) -> None:
        """Read `events-*.jsonl` in this folder."""
        self._folder = folder
        self._read: dict[Path, int] = {}

    def __call__(self) -> list[Event]:
        """The new events, in the order of their times; an unfinished last line is read the next time."""
        found: list[Event] = []
        for path in sorted(self._folder.glob("events-*.jsonl")):
            try:
                with path.open("rb") as file:
                    file.seek(self._read.get(path, 0))
                    text = file.read()
            except OSError:
                continue
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue
        return sorted(found, key=lambda event: float(event.get("t", 0)))
