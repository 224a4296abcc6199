"""Which worker builds what next: the longest critical path first, near its parent's weights, each key once.

The rank of a job is its own time and that of the longest chain of jobs that wait for it (HEFT's upward rank:
H. Topcuoglu et al., "Performance-effective and low-complexity task scheduling for heterogeneous computing", IEEE TPDS
2002). Of the jobs of at least `NEAR` of the highest rank, a free worker takes one whose model it holds, else one of the
model that the fewest workers hold: reading weights can take longer than a block of images.
Cells are admitted while workers could become idle, so memory does not grow with the plan.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Protocol

from resurgence_harness.executing.jobs import Done, Job

NEAR = 0.5
"""A job of at least this share of the highest rank is preferred if its model is loaded."""
TRIES = 4
"""How often a job is started before it counts as failed, each time on a worker that was lost."""
AHEAD = 4
"""Ready jobs for each worker that are kept by admitting further cells."""


class Course(Protocol):
    """A cell, or anything else whose jobs become known look by look."""

    name: str
    seconds: float
    """Estimated time of all its jobs, for what is left."""

    def look(self) -> list[Job]:
        """The jobs for its next look, inputs first; empty if it is complete."""

    def done(self, result: Done) -> None:
        """Take note of a job's result."""


@dataclass(slots=True, eq=False)
class _Entry:
    job: Job
    missing: int = 0
    rank: float = 0.0
    tries: int = 0
    running: bool = False
    offered: bool = False
    """Whether it is ready and waits for a worker."""
    after: list[str] = field(default_factory=list)
    """Keys of the jobs that wait for it."""
    courses: list[Course] = field(default_factory=list)


class Schedule:
    """The jobs that are known and not done, whatever they run on."""

    def __init__(self, courses: Iterable[Course]) -> None:
        """`courses` in the order in which they are admitted."""
        self._waiting: Iterator[Course] = iter(courses)
        self._exhausted = False
        self._entries: dict[str, _Entry] = {}
        self._ready: dict[str | None, list[tuple[float, int, str]]] = {}
        """By model, heaps of (−rank, number, key)."""
        self._every: list[tuple[float, int, str]] = []
        """The same of all models."""
        self._offered = 0
        self._holding = Counter[str]()
        """How many workers hold a model."""
        self._number = count()
        self._open: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        """Why a course is not complete, by its name."""
        self.built = 0
        """Jobs done."""
        self.complete = 0
        """Courses done or failed."""

    def add(self, course: Course) -> None:
        """Add a course, to be admitted after the others."""
        self._waiting, self._exhausted = chain(self._waiting, [course]), False

    @property
    def finished(self) -> bool:
        """Whether every course is complete or failed."""
        return self._exhausted and not self._entries

    @property
    def known(self) -> int:
        """Jobs that are known and not done."""
        return len(self._entries)

    @property
    def seconds(self) -> float:
        """Estimated time of the jobs that are known and not done, for one worker."""
        return sum(entry.job.seconds for entry in self._entries.values())

    def next(self, model: str, *, workers: int = 1) -> Job | None:
        """The next job for a free worker that has this model loaded; None if none is ready."""
        while not self._exhausted and self._offered < AHEAD * workers:
            course = next(self._waiting, None)
            if course is None:
                self._exhausted = True
            else:
                self._advance(course)
        highest = self._highest(self._every)
        if highest is None:
            return None
        chosen = self._nearest(model, NEAR * highest)
        entry = self._entries[heapq.heappop(self._ready[chosen])[2]]
        entry.running, entry.offered, entry.tries = True, False, entry.tries + 1
        self._offered -= 1
        if chosen is not None and chosen != model:
            self.left(model)
            self._holding[chosen] += 1
        return entry.job

    def left(self, model: str) -> None:
        """A worker does not hold this model any more."""
        self._holding[model] = max(0, self._holding[model] - 1)

    def _nearest(self, model: str, enough: float) -> str | None:
        """A model with a ready job of at least this rank: the worker's own, none, or one that few workers hold."""
        ranks = {of: self._highest(self._ready.get(of, [])) for of in (model, None)}
        own = {of: rank for of, rank in ranks.items() if rank is not None and rank >= enough}
        if own:
            return max(own, key=own.__getitem__)
        others: list[tuple[int, float, str]] = []
        for of in list(self._ready):
            rank = self._highest(self._ready[of])
            if rank is None:
                del self._ready[of]
            elif of is not None and rank >= enough:
                others.append((self._holding[of], -rank, of))
        return min(others)[2]

    def done(self, result: Done) -> None:
        """A job has ended. The course of a failed one is given up, with the jobs that only it needs."""
        entry = self._entries.get(result.key)
        if entry is None:
            return
        if result.problem:
            self._fail(result.key, result.problem)
            return
        del self._entries[result.key]
        self.built += 1
        for key in entry.after:
            if (waiting := self._entries.get(key)) is not None:
                waiting.missing -= 1
                self._offer(key, waiting)
        for course in entry.courses:
            if course.name not in self.failed:
                course.done(result)
                self._less(course)

    def lost(self, key: str, why: str) -> None:
        """The worker of a job was lost: another one starts it again, `TRIES` times at most."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.running = False
        if entry.tries >= TRIES:
            self._fail(key, f"{entry.job.order.label} ended {entry.tries} workers; the last one: {why}")
        else:
            self._offer(key, entry)

    def _highest(self, heap: list[tuple[float, int, str]]) -> float | None:
        """The highest rank in a heap, whose outdated entries are dropped; None if nothing in it is ready."""
        while heap and not self._is_ready(heap[0]):
            heapq.heappop(heap)
        return -heap[0][0] if heap else None

    def _is_ready(self, one: tuple[float, int, str]) -> bool:
        entry = self._entries.get(one[2])
        return entry is not None and entry.offered and entry.rank == -one[0]

    def _advance(self, course: Course) -> None:
        """Add the jobs of a course's next look; it is complete without any."""
        jobs = course.look()
        if not jobs:
            self._complete(course)
            return
        self._open[course.name] = len(jobs)
        for job in jobs:
            entry = self._entries.get(job.order.key)
            if entry is None:
                entry = self._entries[job.order.key] = _Entry(job)
                for need in dict.fromkeys(job.needs):
                    if (first := self._entries.get(need)) is not None and first is not entry:
                        first.after.append(job.order.key)
                        entry.missing += 1
            entry.courses.append(course)
        for job in reversed(jobs):
            entry = self._entries[job.order.key]
            longest = max((self._entries[key].rank for key in entry.after if key in self._entries), default=0.0)
            entry.rank = max(entry.rank, job.seconds + longest)
        for job in jobs:
            self._offer(job.order.key, self._entries[job.order.key])

    def _offer(self, key: str, entry: _Entry) -> None:
        if entry.missing or entry.running:
            return
        self._offered += not entry.offered
        entry.offered = True
        one = (-entry.rank, next(self._number), key)
        heapq.heappush(self._ready.setdefault(entry.job.model, []), one)
        heapq.heappush(self._every, one)

    def _less(self, course: Course) -> None:
        self._open[course.name] -= 1
        if not self._open[course.name]:
            self._advance(course)

    def _complete(self, course: Course) -> None:
        self.complete += 1
        self._open.pop(course.name, None)

    def _fail(self, key: str, why: str) -> None:
        """Give up a job and every course that needs it; jobs that no other course needs are dropped."""
        entry = self._removed(key)
        for course in entry.courses:
            if course.name not in self.failed:
                self.failed[course.name] = why
                self._complete(course)
        unneeded = [
            other
            for other, one in self._entries.items()
            if not one.running and all(course.name in self.failed for course in one.courses)
        ]
        for other in unneeded:
            self._removed(other)

    def _removed(self, key: str) -> _Entry:
        entry = self._entries.pop(key)
        self._offered -= entry.offered
        return entry
