"""How long a run still takes: a model of its work, corrected by what was measured.

    left = makespan over the processes of  Σ over the missing artifacts  units × seconds per unit,  × (1 + overhead)

*Seconds per unit* of a group of work (images of one size, optimiser steps of one method): measured in this run, the
piece of work that is running included; else recorded in the store; else the declared default times the ratio of
measured to declared seconds of measured groups of the same kind (drawing, judging, training, closed forms), else of
drawing.

*Blocks that sequential sampling still needs*, per image group of a cell: before its first look the usual number
(`selection.CLEAR`), times the ratio of drawn to usual blocks in the finished cells; after look k, the geometric mean of
m, the number that would settle the open criteria if the rates stay (at most what is left of the grid), and u, what is
left of the usual number, with weights k and `PRIOR`; none for groups whose criteria are settled.

*Overhead*: time of the processes outside artifacts, such as loading a model or writing a report, relative to the time
of the artifacts. What happens before a process builds its first artifact, such as importing torch, is not counted.

An artifact that several cells need is counted once. Cells that were not planned one by one cost the average of those
that were.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp, log
from statistics import fmean
from typing import Any, NamedTuple

LEAST = 0.02
"""Share of the expected work that must be done before an estimate is given."""
FORGETS = 0.8
"""Weight of what was measured before, relative to the last measurement: a machine's load changes during a run."""
PRIOR = 2
"""The usual number of blocks counts as much as this many looks."""
OVERHEAD = 1.0
"""Largest overhead that is extrapolated."""


class Work(NamedTuple):
    """A missing artifact."""

    key: str
    """Beginning of its key."""
    group: str
    """Work whose cost per unit is comparable; see `planning.Work`."""
    units: int
    seconds: float
    """Expected seconds before anything was measured."""
    learned: bool
    """Whether these come from builds recorded in the store."""


class Pace(NamedTuple):
    """Measured work of one group."""

    seconds: float
    units: float


@dataclass
class Running:
    """The piece of work that a process is doing."""

    key: str
    since: float
    nested: float = 0.0
    """Seconds of other artifacts built meanwhile."""
    share: float = 0.0
    """Finished fraction."""
    at: float = 0.0
    """Seconds inside this work when it had reached that fraction."""
    first: tuple[float, float] | None = None
    """The first (share, at): what happens before, such as encoding training images, is not extrapolated."""

    @property
    def whole(self) -> float | None:
        """Seconds of the whole work by its own progress; None until it has made some."""
        if self.first is None or self.share - self.first[0] < 0.05:
            return None
        pace = (self.at - self.first[1]) / (self.share - self.first[0])
        return self.at + (1 - self.share) * pace


@dataclass
class Process:
    """One process of the run."""

    cell: str = ""
    stack: list[Running] = field(default_factory=list)
    """What it is building, nested builds last."""
    first: float | None = None
    """When it began its first artifact."""
    built: float = 0.0
    """Seconds of finished artifacts."""


@dataclass
class Group:
    """The blocks of one image group of a cell."""

    blocks: list[list[Work]]
    usual: int
    asked: int = 0
    looks: int = 0
    more: float | None = 0.0
    """Further blocks that would settle it; None if that is unknown."""
    open: bool = True

    def expected(self, factor: float) -> float:
        """Blocks in all, those already drawn included."""
        usual = self.usual * factor
        if not self.looks:
            return usual
        if not self.open:
            return float(self.asked)
        left = max(usual - self.asked, 1.0)
        more = left if self.more is None else max(self.more, 1.0)
        return self.asked + exp((self.looks * log(more) + PRIOR * log(left)) / (self.looks + PRIOR))


@dataclass
class CellState:
    """The expected work of one cell."""

    fixed: list[Work] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    planned: bool = False
    begun: bool = False
    ended: bool = False


class Forecast:
    """The remaining time of a run, from its events."""

    def __init__(self, cells: Iterable[str] = (), *, workers: int = 1) -> None:
        """`cells`: their names in the order in which they begin. `workers`: how many of them run at once."""
        self.cells: dict[str, CellState] = {name: CellState() for name in cells}
        self.workers = max(workers, 1)
        self.processes: dict[str, Process] = {}
        self._made: set[str] = set()
        self._works: dict[str, Work] = {}
        self._paces: dict[str, Pace] = {}

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take an event into account."""
        kind, moment = event["e"], float(event["t"])
        if kind == "plan":
            self._plan(event)
            return
        process = self.processes.setdefault(str(event["w"]), Process())
        if kind == "cell":
            process.cell = event["cell"]
            self.cells.setdefault(event["cell"], CellState()).begun = True
        elif kind == "end":
            self.cells.setdefault(event["cell"], CellState()).ended = True
            process.cell, process.stack = "", []
        elif kind == "begun":
            process.first = moment if process.first is None else process.first
            process.stack.append(Running(event["key"], moment))
        elif kind == "doing" and process.stack and event["total"]:
            top, share = process.stack[-1], min(event["done"] / event["total"], 1.0)
            if share > top.share:
                top.share, top.at = share, self._inside(top, moment)
                top.first = top.first or (top.share, top.at)
        elif kind == "made":
            self._finished(process, event, moment)
        elif kind == "look":
            self._look(event)

    def left(self, now: float) -> float | None:
        """Remaining seconds; None until enough is done to say."""
        claimed: set[str] = set()
        busy = [0.0] * self.workers
        running = [one for one in self.processes.values() if one.cell]
        for place, process in enumerate(running):
            own = self._remaining(self.cells[process.cell], claimed, now)
            if place < len(busy):
                busy[place] += own
            else:
                busy[-1] += own
        heapq.heapify(busy)
        waiting = [state for state in self.cells.values() if not state.begun and not state.ended]
        known = [self._remaining(state, claimed, now) for state in waiting if state.planned]
        average = fmean(known) if known else self._average()
        if average is None and len(known) < len(waiting):
            return None
        for cost in (*known, *([average or 0.0] * (len(waiting) - len(known)))):
            heapq.heappush(busy, heapq.heappop(busy) + cost)
        built = sum(process.built for process in self.processes.values())
        inside = sum(self._inside(one, now) for process in running for one in process.stack)
        total = sum(busy) + built + inside
        if total <= 0 or (built + inside) < LEAST * total:
            return None
        return max(busy) * (1 + self._overhead(now))

    # Events

    def _plan(self, event: Mapping[str, Any]) -> None:
        state = self.cells.setdefault(event["cell"], CellState())
        state.fixed, state.planned = [Work(*work) for work in event["fixed"]], True
        for name, rows in event["blocks"].items():
            blocks = [[Work(*work) for work in block] for block in rows]
            before = state.groups.get(name)
            state.groups[name] = Group(blocks=blocks, usual=len(blocks))
            if before is not None:  # the plan arrives after the first looks
                now = state.groups[name]
                now.asked, now.looks, now.more, now.open = before.asked, before.looks, before.more, before.open
        works = (*state.fixed, *(work for one in state.groups.values() for block in one.blocks for work in block))
        for work in works:
            self._works.setdefault(work.key, work)

    def _finished(self, process: Process, event: Mapping[str, Any], moment: float) -> None:
        seconds = float(event["seconds"])
        while process.stack and process.stack.pop().key != event["key"]:
            pass  # a build that ended in an error left no event
        for outer in process.stack:
            outer.nested += seconds
        process.built += seconds
        self._made.add(event["key"])
        if event["group"] and event["units"]:
            known = self._paces.get(event["group"], Pace(0.0, 0.0))
            self._paces[event["group"]] = Pace(
                FORGETS * known.seconds + seconds, FORGETS * known.units + event["units"]
            )

    def _look(self, event: Mapping[str, Any]) -> None:
        groups = self.cells.setdefault(event["cell"], CellState()).groups
        for name, asked in event["asked"].items():
            group = groups.setdefault(name, Group(blocks=[], usual=asked))
            group.asked, group.looks = asked, group.looks + 1
            group.open, group.more = name in event["more"], event["more"].get(name)

    # The estimate

    def _remaining(self, state: CellState, claimed: set[str], now: float) -> float:
        """Seconds of the cell's missing artifacts that no other cell has claimed yet."""
        found = 0.0
        for work in state.fixed:
            found += self._cost(work, claimed, now)
        for name, group in state.groups.items():
            expected = group.expected(self._factor(name))
            costs: list[float] = []
            for number, block in enumerate(group.blocks):
                weight = min(max(expected - number, 0.0), 1.0)
                costs.append(sum(self._seconds(work) for work in block))
                own = sum(self._cost(work, claimed, now) for work in block) if weight else 0.0
                found += weight * own
            beyond = expected - max(len(group.blocks), group.asked)
            filled = [cost for cost in costs if cost]
            if beyond > 0 and filled:
                found += beyond * fmean(filled)
        return found

    def _cost(self, work: Work, claimed: set[str], now: float) -> float:
        """Seconds left for an artifact; 0 if it was made or is counted already."""
        if work.key in self._made or work.key in claimed:
            return 0.0
        claimed.add(work.key)
        expected = self._seconds(work)
        for process in self.processes.values():
            for one in process.stack:
                if one.key == work.key:
                    return self._rest(one, expected, now)
        return expected

    def _rest(self, running: Running, expected: float, now: float) -> float:
        """Seconds left of a running piece of work: by its own pace, the more of it is done the more so."""
        inside, whole = self._inside(running, now), running.whole
        if whole is None:
            return max(expected - inside, 0.1 * expected)
        trust = running.share if self._measured(running.key) else 1.0
        mixed = trust * whole + (1 - trust) * max(expected, inside)
        return max(mixed - inside, (1 - running.share) * 0.5 * mixed)

    def _measured(self, key: str) -> bool:
        return key in self._works and self._works[key].group in self._paces

    def _inside(self, running: Running, now: float) -> float:
        return max(now - running.since - running.nested, 0.0)

    def _seconds(self, work: Work) -> float:
        """Expected seconds of a whole piece of work."""
        measured = self._pace(work.group)
        if measured is not None:
            return work.units * measured.seconds / measured.units
        return work.seconds if work.learned else work.seconds * self._scale(work)

    def _running_pace(self, group: str) -> Pace | None:
        """The pace of a group of which nothing is finished, but some piece has made progress."""
        for process in self.processes.values():
            for one in process.stack:
                work, whole = self._works.get(one.key), one.whole
                if work is not None and work.group == group and whole is not None and work.units:
                    return Pace(whole, work.units)
        return None

    def _scale(self, like: Work) -> float:
        """Measured / declared seconds, over measured groups of the same kind, else of drawing."""
        pairs: dict[str, tuple[str, float, float]] = {}
        for work in self._works.values():
            pace = None if work.learned or work.group in pairs else self._pace(work.group)
            if pace is not None and work.units:
                pairs[work.group] = (_kind(work), pace.seconds / pace.units * work.units, work.seconds)
        own = [one for one in pairs.values() if one[0] == _kind(like)]
        chosen = own or [one for one in pairs.values() if one[0] == "draw"]
        declared = sum(one[2] for one in chosen)
        return sum(one[1] for one in chosen) / declared if declared > 0 else 1.0

    def _pace(self, group: str) -> Pace | None:
        """Seconds of the measured units of a group, else of the piece that is running; None without either."""
        return self._paces.get(group) or self._running_pace(group)

    def _factor(self, group: str) -> float:
        """Blocks drawn / usual blocks in the finished cells; the usual number counts as one more cell."""
        done = [one.groups[group] for one in self.cells.values() if one.ended and group in one.groups]
        counted = [one for one in done if one.usual and one.looks]
        return (1 + sum(one.asked / one.usual for one in counted)) / (1 + len(counted))

    def _overhead(self, now: float) -> float:
        """Seconds outside artifacts / seconds of artifacts."""
        begun = [process for process in self.processes.values() if process.first is not None]
        inside = {id(one): sum(self._inside(part, now) for part in one.stack) for one in begun}
        made = sum(one.built + inside[id(one)] for one in begun)
        wall = sum(now - (one.first or now) for one in begun if one.cell or one.built)
        return min(max(wall - made, 0.0) / made, OVERHEAD) if made > 0 else 0.0

    def _average(self) -> float | None:
        """Expected seconds of a planned cell, finished ones included, by today's paces."""
        costs = [
            sum(map(self._seconds, state.fixed))
            + sum(
                sum(self._seconds(work) for block in group.blocks for work in block)
                * (group.expected(self._factor(name)) / max(group.usual, 1))
                for name, group in state.groups.items()
            )
            for state in self.cells.values()
            if state.planned
        ]
        return fmean(costs) if costs else None


def _kind(work: Work) -> str:
    """ "draw", "judge", "train" or, of a closed form, "solve"."""
    first = work.group.partition(" ")[0]
    return first if first in ("draw", "judge") else "train" if work.units > 1 else "solve"
