"""A gate's workers: processes of one thread each, which sample and judge the blocks of a look side by side.

    examine ──look──▶ Workers.prepare ──▶ jobs of the missing blocks ──▶ LocalPool ──▶ store ──▶ examine reads, decides

Images of different models and blocks are independent, and a second thread makes one U-Net hardly faster, so processes
use the cores of a CPU better. Workers only fill the store: which images are needed and what they prove is decided in
the gate's own process, in the same code and order as without workers, and what the store lacks is sampled there. The
models are read, compared and made into directories before workers start; each worker loads them from the files that
were hashed, and checks the digest again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.examining import wanted
from resurgence_harness.executing.builder import Index, OrderBuilder, about_process, unknown
from resurgence_harness.executing.capacity import cores, free_memory
from resurgence_harness.executing.jobs import Done, Job, Order
from resurgence_harness.inquiry import Asking, Inquiry
from resurgence_harness.planning import Action, Pace, canaries_key, plan
from resurgence_harness.storing import Condition, Store

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench, Progress
    from resurgence_harness.executing.pool import LocalPool
    from resurgence_harness.executing.running import Driver, Worker
    from resurgence_harness.executing.schedule import Schedule
    from resurgence_harness.judging import Judge
    from resurgence_harness.specs import Recipe

AUTO = "auto"
MOST = 4
"""Maximum number of workers that are started unless a number is given."""
LEAST_SECONDS = 20.0
"""Estimated time of a gate's images below which `auto` starts no workers: they need some seconds to be ready."""
OWN_MEMORY = 2**30
"""Bytes of memory that a worker needs beside its models: libraries, activations, a judge."""
COPIES = 2
"""Memory of a model by the size of its files: weights that are stored in half precision are loaded in float32."""


def read_workers(given: str | int) -> int | None:
    """The value of --workers as a number, None for "auto"; UserError for anything else."""
    text = str(given).strip()
    if text == AUTO:
        return None
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(
        sentence(f"The number of workers is {shown(text)}.", do="Give --workers 2, another number from 1, or auto.")
    )


class Workers:
    """The workers of one gate; they are started when a look lacks images."""

    def __init__(
        self,
        plans: Mapping[str, Asking],
        judges: Sequence[Judge],
        *,
        store: Store,
        device: str,
        number: int | None,
        progress: Progress | None = None,
    ) -> None:
        """Starts nothing. `plans` by name; `number`: 1 for no workers, None to choose it.

        UserError for several workers on a GPU, where one process is faster.
        """
        if number is not None and number > 1 and device != "cpu":
            raise UserError(
                sentence(
                    f"A gate on a GPU uses one process, not {number}.",
                    device=device,
                    do="Leave --workers out, or give --device cpu.",
                )
            )
        self._expected = 0, 0
        """Jobs that were done before this look, and the number of its jobs."""
        self._plans, self._judges, self._store, self._device = dict(plans), list(judges), store, device
        self._number = 1 if device != "cpu" else number
        self.progress = progress
        self._pool: LocalPool | None = None
        self._driver: Driver | None = None
        self._schedule: Schedule | None = None
        self._without_canaries: set[str] = set()
        self._pace: Pace | None = None
        self._looks = 0

    def prepare(self, inquiry: Inquiry[Any]) -> None:
        """Have the workers sample and judge the open blocks of a look that the store lacks.

        HarnessError or UserError with the reason for a block that could not be made; the workers are stopped then.
        """
        if self._number == 1:
            return
        jobs = self._jobs(inquiry)
        if not jobs:
            return
        if self._number is None:
            self._number = self._automatic(inquiry, jobs)
        if self._number == 1:
            return
        try:
            self._work(jobs)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers, which leave no incomplete artifact; later looks are sampled in this process."""
        self._number = 1
        pool, self._pool, self._driver = self._pool, None, None
        if pool is not None:
            pool.close()

    def _work(self, jobs: list[Job]) -> None:
        driver, schedule = self._started()
        self._looks += 1
        look = _Look(f"look {self._looks}", jobs, self._judges, self._without_canaries)
        before = schedule.built
        self._expected = before, len(jobs)
        schedule.add(look)
        driver.work_until(lambda: schedule.finished)
        if look.name in schedule.failed:
            raise HarnessError(schedule.failed[look.name])

    def _started(self) -> tuple[Driver, Schedule]:
        if self._driver is None or self._schedule is None:
            from resurgence_harness.executing.pool import LocalPool
            from resurgence_harness.executing.running import Driver
            from resurgence_harness.executing.schedule import Schedule

            store = self._store
            names = tuple(judge.name for judge in self._judges)
            opening = partial(open_worker, self._plans, names, store.name, store.read_only, store.run, self._device)
            self._pool = LocalPool(opening, workers=self._number or 1, one_thread=True)
            mine = about_process(self._device, {name: (one, self._judges) for name, one in self._plans.items()})
            self._schedule = Schedule([])
            self._driver = Driver(self._pool, self._schedule, self, mine=mine)
            self._pool.start()
        return self._driver, self._schedule

    # Progress

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """Report how many jobs of the look are done."""
        if self.progress is not None and self._pool is not None:
            before, total = self._expected
            self.progress(f"drawing and judging on {self._pool.name}", schedule.built - before, total, None)

    def note(self, line: str) -> None:
        """Print a fact, such as the loss of a worker."""
        print(f"[resurgence] {line}", file=sys.stderr, flush=True)

    # Jobs

    def _jobs(self, inquiry: Inquiry[Any]) -> list[Job]:
        """The missing images, judgments and canaries of the open blocks, inputs first."""
        if self._pace is None:
            self._pace = Pace(self._store, device=self._device)
        name = self._name_of(inquiry.plan)
        evidence = list(wanted(inquiry.plan, inquiry, inquiry.open, self._judges))
        needed = plan(self._store, evidence, pace=self._pace).needed
        jobs = [_job(action, name) for action in needed]
        for judge in self._judges:
            place = canaries_key(judge)
            if judge.name not in self._without_canaries and self._store.condition(place) is not Condition.PRESENT:
                jobs.append(Job(order=Order(place, "canaries", name, f"canaries of {judge.name}")))
        return jobs

    def _name_of(self, planned: Asking) -> str:
        return next(name for name, one in self._plans.items() if one is planned)

    def _automatic(self, inquiry: Inquiry[Any], jobs: Sequence[Job]) -> int:
        """The number of workers where none is given; 1 if workers would not find a judge."""
        if usable_cores() < 2 or _of_this_process(self._judges):
            return 1
        usual = wanted(inquiry.plan, inquiry, list(inquiry.expected(clear=False)), self._judges)
        return chosen(
            parts=min(len(inquiry.plan.arms), sum(job.order.kind == "images" for job in jobs)),
            seconds=plan(self._store, usual, pace=self._pace).seconds,
            memory=memory_of_worker(inquiry.plan),
            free=free_memory(),
        )


def start_early(store: Store, *, device: str, number: int | None) -> None:
    """Let the process of which workers are forks import torch while this one reads the models.

    Only if the store is empty, so that all images have to be sampled; else the first look that lacks some starts it.
    """
    if device != "cpu" or number == 1 or (number is None and usable_cores() < 2):
        return
    with suppress(OSError, ValueError):  # a store that cannot be used is reported later
        if not any(store.root.glob("??/*/manifest.json")):
            from resurgence_harness.executing.pool import preload

            preload()


class _Look:
    """The jobs of one look, as the schedule's course."""

    def __init__(self, name: str, jobs: list[Job], judges: Sequence[Judge], without_canaries: set[str]) -> None:
        self.name, self.seconds = name, sum(job.seconds for job in jobs)
        self._jobs, self._judges, self._without = jobs, judges, without_canaries

    def look(self) -> list[Job]:
        """All jobs, once."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def done(self, result: Done) -> None:
        """Remember a judge without canaries, whose result is not stored."""
        if result.canaries == 0:
            self._without |= {judge.name for judge in self._judges if canaries_key(judge) == result.key}


def _job(action: Action, name: str) -> Job:
    assert action.recipe is not None
    order = Order(action.key, action.kind, name, action.label)
    return Job(order=order, needs=action.needs, seconds=action.seconds, model=action.recipe.base.digest)


def chosen(*, parts: int, seconds: float, memory: int, free: int | None) -> int:
    """The number of workers for `auto`.

    `parts`: what can be sampled side by side; `seconds`: estimated time of all images in one process; `memory`: bytes
    for one worker; `free`: bytes that are available, None if unknown.
    """
    number = min(MOST, usable_cores(), parts)
    if seconds < LEAST_SECONDS:
        return 1
    return max(1, int(min(number, inf if free is None else free // memory)))


def usable_cores() -> int:
    """Number of cores for a gate: this process's, and no more than OMP_NUM_THREADS where that is set."""
    set_to = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores(), int(set_to)) if set_to.isascii() and set_to.isdecimal() and int(set_to) else cores()


def memory_of_worker(planned: Asking) -> int:
    """Bytes of memory for a worker that loads every model of a plan."""
    from resurgence_harness.diffusion.model_files import ModelFiles

    places = {recipe.base.location for recipe in planned.models.values()}
    files = [file.path for place in places for file in ModelFiles(place).description.files]
    return OWN_MEMORY + COPIES * sum(path.stat().st_size for path in files)


def _of_this_process(judges: Sequence[Judge]) -> bool:
    """Whether a judge was registered by this process alone, so that workers would not find it."""
    from resurgence_harness.registry import given_parts

    return any(part.origin.of_suite for part in given_parts(("judge", judge.name) for judge in judges))


# In a worker


def open_worker(
    plans: Mapping[str, Asking], judges: tuple[str, ...], store: str, read_only: bool, run: str, device: str
) -> GateBuilder:
    """A worker of a gate with these plans; the judges are those that it finds by name itself."""
    from resurgence_harness.judging import check_ready, judge_by_name

    found = [judge_by_name(name) for name in judges]
    for judge in found:
        check_ready(judge)
    return GateBuilder(plans, found, store=Store(store, read_only=read_only, run=run), device=device)


class GateBuilder(OrderBuilder):
    """Samples and judges a gate's blocks in one process; each model is loaded once, on first use."""

    def __init__(self, plans: Mapping[str, Asking], judges: Sequence[Judge], *, store: Store, device: str) -> None:
        """Loads no model."""
        super().__init__()
        self._judges, self._store, self._device = list(judges), store, device
        self._indices = {name: Index(one, self._judges) for name, one in plans.items()}
        self._benches: dict[str, Bench] = {}
        self.about = about_process(device, {name: (one, self._judges) for name, one in plans.items()})

    def _make(self, order: Order) -> int | None:
        if order.kind == "canaries":
            judge = next((judge for judge in self._judges if canaries_key(judge) == order.key), None)
            if judge is None:
                raise unknown(order)
            return self._bench("").canaries(judge)[1]
        action = self._indices[order.cell].find(order.key) if order.cell in self._indices else None
        if action is None or action.recipe is None or action.probe is None:
            raise unknown(order)
        bench = self._bench_of(action.recipe)
        if action.judge is None:
            bench.drawn(action.recipe, action.probe)
        else:
            named = {judge.name: judge for judge in self._judges}
            bench.evidence(action.recipe, action.probe, named[action.judge.name])
        return None

    def _bench_of(self, recipe: Recipe) -> Bench:
        return self._bench(recipe.base.digest)

    def _bench(self, digest: str) -> Bench:
        from resurgence_harness.bench import Bench

        if digest not in self._benches:
            self._benches[digest] = Bench(self._store, device=self._device, progress=self._progress)
        return self._benches[digest]
