"""The driver: joins workers, gives them jobs, starts the jobs of lost workers again, and stops them all at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.executing.builder import About, Seen
from resurgence_harness.executing.pool import Finished, Joined, Lost, Pool, Refused, Showing
from resurgence_harness.executing.schedule import TRIES, Schedule

TICK = 0.5
"""Longest wait for an event, in seconds."""
GATHERING = 30.0
"""Seconds after the first worker has joined in which others may join before it is decided which compute alike."""
PATIENCE = 600.0
"""Seconds without any worker after which a build is given up."""


class Worker(NamedTuple):
    """A worker in the table."""

    name: str
    about: About
    seen: Seen
    built: int
    """Jobs that it has done."""


class Watching(Protocol):
    """Shows how a build goes."""

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """Called at least once in `TICK` seconds."""

    def note(self, line: str) -> None:
        """A fact that a person should know, once."""


class Outcome(NamedTuple):
    """How a build ended."""

    built: int
    """Jobs done."""
    lost: int
    """Workers that died."""
    failed: dict[str, str]
    """Why a cell is not complete, by its name."""


def run(pool: Pool, schedule: Schedule, watching: Watching, *, mine: About | None) -> Outcome:
    """Build everything in the schedule.

    `mine`: the driver; workers must have its version, plan and store key. UserError for a mistake that a worker finds,
    HarnessError if the store cannot be used or no worker is left. Whatever ends it, every worker is stopped.
    """
    try:
        pool.start()
        driver = Driver(pool, schedule, watching, mine=mine)
        driver.work_until(lambda: schedule.finished)
        return driver.outcome
    finally:
        pool.close()


class Driver:
    """Keeps the workers of a started pool busy with the jobs of a schedule."""

    def __init__(self, pool: Pool, schedule: Schedule, watching: Watching, *, mine: About | None) -> None:
        """`mine` as for `run`."""
        self._pool, self._schedule, self._watching, self._mine = pool, schedule, watching, mine
        self._workers: dict[str, About] = {}
        self._seen: dict[str, Seen] = {}
        self._built = Counter[str]()
        self._models: dict[str, str] = {}
        self._running: dict[str, str] = {}
        """Key of each busy worker's job."""
        self._kind = ""
        """Of the workers that are used; empty until it is decided."""
        self._first = 0.0
        self._last = time.monotonic()
        """When there was a worker last."""
        self._lost = self._never_joined = self._lost_in_a_row = 0

    @property
    def outcome(self) -> Outcome:
        """What was built and lost so far."""
        return Outcome(self._schedule.built, self._lost, dict(self._schedule.failed))

    def work_until(self, reached: Callable[[], bool]) -> None:
        """Give jobs to free workers and handle events until `reached()`; errors as for `run`."""
        while True:
            self._give_jobs()
            if reached():
                return
            for event in self._pool.events(TICK):
                self._handle(event)
            self._check_alive()
            self._watching.show(self._table(), self._schedule)

    def _handle(self, event: object) -> None:
        match event:
            case Joined(worker, about):
                self._join(worker, about)
            case Refused(_, why, mistake):
                raise (UserError if mistake else HarnessError)(why)
            case Finished(worker, done):
                self._running.pop(worker, None)
                self._lost_in_a_row = 0
                self._seen[worker] = Seen("", 0, 0)
                if done.cause == "mistake":
                    raise UserError(done.problem)
                if done.cause == "store":
                    raise HarnessError(done.problem)
                self._built[worker] += not done.problem
                self._schedule.done(done)
            case Lost(worker, why):
                self._lose(worker, why)
            case Showing(worker, seen):
                self._seen[worker] = seen

    def _join(self, worker: str, about: About) -> None:
        self._check_same(worker, about)
        self._workers[worker] = about
        self._first = self._first or time.monotonic()
        if self._kind and about.kind != self._kind:
            self._set_aside()

    def _lose(self, worker: str, why: str) -> None:
        joined = self._workers.pop(worker, None)
        self._schedule.left(self._models.pop(worker, ""))
        self._seen.pop(worker, None)
        self._lost += joined is not None
        self._lost_in_a_row += joined is not None
        self._never_joined += joined is None
        if key := self._running.pop(worker, ""):
            self._watching.note(f"{worker} was lost ({why}); its job is started again.")
            self._schedule.lost(key, why)
        if self._never_joined > 3 * max(1, self._pool.expected):
            raise HarnessError(
                sentence("Workers end before they are ready.", last=why, do="See the log of the worker's machine.")
            )

        if self._lost_in_a_row > TRIES * max(1, self._pool.expected):
            raise HarnessError(
                sentence(
                    f"{self._lost_in_a_row} workers ended one after the other, and none has finished a job.",
                    last=why,
                    do="Use fewer workers if memory is short: the kernel kills with SIGKILL.",
                )
            )

    def _check_same(self, worker: str, about: About) -> None:
        """UserError for a worker that would build other artifacts than the driver has planned."""
        mine = self._mine
        if mine is None:
            return
        if about.package != mine.package:
            raise UserError(
                sentence(
                    f"{about.host} has another version of resurgence-harness than this machine.",
                    there=about.package,
                    here=mine.package,
                    do="Install the same version on every node: two versions must not write one store.",
                )
            )
        if about.sealed != mine.sealed:
            known = {"": "not set"}
            raise UserError(
                sentence(
                    f"RESURGENCE_STORE_KEY is not the same on {about.host} as on this machine.",
                    there=known.get(about.sealed, f"fingerprint {about.sealed}"),
                    here=known.get(mine.sealed, f"fingerprint {mine.sealed}"),
                    do="Set it in the environment in which Ray was started on every node, and here.",
                )
            )
        if about.plan != mine.plan:
            raise UserError(
                sentence(
                    f"{about.host} plans other artifacts for this suite than this machine.",
                    there=about.plan[:12],
                    here=mine.plan[:12],
                    versions=f"{about.versions}; here {mine.versions}",
                    do="Give every node the same suite, base, settings file and judges' weights.",
                )
            )

    def _give_jobs(self) -> None:
        if not self._workers or not self._decided():
            return
        for worker in self._workers:
            if worker in self._running:
                continue
            job = self._schedule.next(self._models.get(worker, ""), workers=len(self._workers))
            if job is None:
                return
            self._running[worker] = job.order.key
            if job.model is not None:
                self._models[worker] = job.model
            self._seen[worker] = Seen(job.order.label, 0, 0)
            self._pool.submit(worker, job.order)

    def _decided(self) -> bool:
        """Whether it is known which workers compute alike: the most frequent kind among those that have joined."""
        if self._kind:
            return True
        if len(self._workers) < self._pool.expected and time.monotonic() - self._first < GATHERING:
            return False
        kinds = Counter(about.kind for about in self._workers.values())
        self._kind = min(kinds, key=lambda kind: (-kinds[kind], kind))
        self._set_aside()
        return True

    def _set_aside(self) -> None:
        """Do without the workers of other kinds: images of one cell must be drawn alike, and cells share the base's."""
        others = {worker: about for worker, about in self._workers.items() if about.kind != self._kind}
        if not others:
            return
        self._watching.note(
            f"{len(others)} of {len(self._workers)} workers are not used, since images that are compared must be drawn "
            f"alike: {'; '.join(sorted({about.kind for about in others.values()}))}. Used: {self._kind}."
        )
        for worker in others:
            del self._workers[worker]
            self._pool.leave(worker)

    def _check_alive(self) -> None:
        now = time.monotonic()
        if self._workers:
            self._last = now
        elif now - self._last > PATIENCE:
            raise HarnessError(
                sentence(
                    f"There was no worker for {PATIENCE / 60:.0f} minutes.",
                    engine=self._pool.name,
                    do="What is built stays in the store; start the same command again when machines are free.",
                )
            )

    def _table(self) -> list[Worker]:
        nothing = Seen("", 0, 0)
        return [
            Worker(name, about, self._seen.get(name, nothing), self._built[name])
            for name, about in sorted(self._workers.items())
        ]
