"""Which worker builds what next: the longest critical path first, near its parent's weights, each key once.

The rank of a job is its own time and that of the longest chain of jobs that wait for it (HEFT's upward rank:
H. Topcuoglu et al., "Performance-effective and low-complexity task scheduling for heterogeneous computing", IEEE TPDS
2002). A free worker takes the job of the highest rank; among those of at least `NEAR` of it, one whose model it holds.
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
CONSIDERED = 32
"""How many of the first ready jobs are compared for one worker."""
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
        self._ready: list[tuple[float, int, str]] = []
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
        while not self._exhausted and len(self._ready) < AHEAD * workers:
            course = next(self._waiting, None)
            if course is None:
                self._exhausted = True
            else:
                self._advance(course)
        candidates = self._first()
        if not candidates:
            return None
        enough = NEAR * -candidates[0][0]
        near = (one for one in candidates if -one[0] >= enough and self._entries[one[2]].job.model == model)
        chosen = next(near, candidates[0])
        for one in candidates:
            if one is not chosen:
                heapq.heappush(self._ready, one)
        entry = self._entries[chosen[2]]
        entry.running, entry.tries = True, entry.tries + 1
        return entry.job

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

    def _first(self) -> list[tuple[float, int, str]]:
        """Up to `CONSIDERED` ready jobs, highest rank first, taken from the heap; outdated entries are dropped."""
        found: list[tuple[float, int, str]] = []
        seen: set[str] = set()
        while self._ready and len(found) < CONSIDERED:
            one = heapq.heappop(self._ready)
            entry = self._entries.get(one[2])
            if entry is None or entry.running or one[2] in seen:
                continue
            seen.add(one[2])
            found.append(one)
        return found

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
        if entry.missing == 0 and not entry.running:
            heapq.heappush(self._ready, (-entry.rank, next(self._number), key))

    def _less(self, course: Course) -> None:
        self._open[course.name] -= 1
        if not self._open[course.name]:
            self._advance(course)

    def _complete(self, course: Course) -> None:
        self.complete += 1
        self._open.pop(course.name, None)

    def _fail(self, key: str, why: str) -> None:
        """Give up a job and every course that needs it; jobs that no other course needs are dropped."""
        entry = self._entries.pop(key)
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
            del self._entries[other]
