"""How the paper's tables would scale, simulated: `python -m benchmarks.scale_simulation --out reports/performance`.

    cells of the profile "paper" on SD v1.4 ─▶ the engine's own Schedule ─▶ simulated workers, driver and store ─▶ hours

A discrete-event simulation. What is scheduled is decided by the code that schedules real builds
(executing/schedule.py); simulated are the clock and the times of the stages, from reports/performance/stage_times.csv,
where every number has its source. Tasks: celebrity, copyright and object with all counts, seven methods, three
fine-tunings, three runs; the unsafe task needs a data set of prompts and is left out.

*Fixed:* every image of the paper's grids. *Sequential:* a look after the other, one more block of every arm each time,
until as many pairs are seen as a cell without resurgence usually needs (`selection.CLEAR`); a cell near its limit takes
longer, one far beyond it less.
*Assumed:* equal GPUs, none is lost; transfers take turns in a store of so many channels, and wait in the order of their
jobs; reading a model takes its whole chain; the driver gives out one job after the other; a job's write is counted with
its read; the sets that trainings cache (latents, trajectories) are in their time per update; nothing else runs there.

*Columns:* efficiency = hours of the jobs themselves / (GPUs × hours). "longest chain" is the longest sequence of jobs
of one cell, each needing the one before; no number of GPUs is faster. "driver" and "store" are the shares of the time
in which they were busy, "idle" the workers' share without a job. Variants change one assumption, at the largest number
of GPUs, and show what would lift the limit.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.executing.jobs import Done, Job, Order
from resurgence_harness.executing.schedule import Schedule
from resurgence_harness.planning import parent_probes_of, probes_of, training
from resurgence_harness.selection import CLEAR, CellPlan, Selection, cells, plan_cell
from resurgence_harness.specs import Base, Recipe, Step
from resurgence_harness.tasks import PUBLISHED

TIMES = Path(__file__).parents[1] / "reports" / "performance" / "stage_times.csv"
TASKS = ("celebrity", "copyright", "object")
BASE = Base(digest="0" * 64, name="sd14", location="sd14")
GPUS = (1, 8, 64, 1_000)
COLUMNS = (
    *("engine", "variant", "gpus", "cells", "jobs", "images", "hours", "efficiency", "longest chain hours"),
    *("driver busy", "store busy", "idle"),
)


@dataclass(frozen=True)
class Assumed:
    """The numbers of stage_times.csv, and what a variant changes."""

    times: Mapping[str, float]
    parts: int = 0
    """Images of a training's own sets in one job; 0: each set is one job, as it is now."""

    def update(self, step: Step) -> float:
        """Seconds of one of its optimiser steps, or of a closed form."""
        return self.times[step.name]

    def size(self, step: Step) -> float:
        """GB of its checkpoint."""
        return self.times.get(f"size of {step.name}", self.times["size of other"])


class Made(NamedTuple):
    """What a simulated job costs beside its time."""

    gigabytes: float
    """Written, and read beside a model."""
    model: float
    """GB of the chain that is read if the worker does not hold it."""


class Cells:
    """The jobs of all cells; jobs of equal keys are one artifact."""

    def __init__(self, plans: Sequence[CellPlan], assumed: Assumed, *, sequential: bool) -> None:
        """`sequential`: look after look."""
        self.assumed, self.made, self.done = assumed, dict[str, Made](), set[str]()
        self.seconds: dict[str, float] = {}
        """Of every job, by key."""
        self.courses = sorted(
            (Course(plan, self, sequential=sequential) for plan in plans), key=lambda one: (-one.seconds, one.name)
        )

    def job(
        self, key: str, kind: str, seconds: float, needs: tuple[str, ...], *, recipe: Recipe, gigabytes: float
    ) -> Job:
        """A job that reads this recipe's weights."""
        self.made[key] = Made(gigabytes, sum(map(self.assumed.size, recipe.steps)))
        self.seconds[key] = seconds
        order = Order(key, kind, "", key)
        return Job(order=order, needs=needs, seconds=seconds, model=_name(recipe) if kind != "judgments" else None)


class Course:
    """The looks of one cell."""

    def __init__(self, plan: CellPlan, all_cells: Cells, *, sequential: bool) -> None:
        """Every look is known beforehand."""
        self.name = f"{plan.cell.task}/{plan.cell.id}"
        self._cells = all_cells
        self.looks = [list(self._jobs(plan, blocks)) for blocks in _looks(plan, sequential=sequential)]
        self.seconds = sum(job.seconds for look in self.looks for job in look)
        self.next = 0
        """The next look's place."""

    def look(self) -> list[Job]:
        """The jobs that no other cell has built."""
        while self.next < len(self.looks):
            self.next += 1
            if jobs := [job for job in self.looks[self.next - 1] if job.order.key not in self._cells.done]:
                return jobs
        return []

    def done(self, result: Done) -> None:
        """It is stored."""
        self._cells.done.add(result.key)

    def _jobs(self, plan: CellPlan, blocks: Mapping[str, range]) -> Iterator[Job]:
        chains: dict[str, tuple[str, ...]] = {}
        times = self._cells.assumed.times
        for name, numbers in blocks.items():
            arm = plan.arms[name]
            if _name(arm.recipe) not in chains:
                built = list(self._built(plan, arm.recipe))
                chains[_name(arm.recipe)] = tuple(job.order.key for job in built)[-1:]
                yield from built
            for number in numbers:
                size = min(arm.grid.block, len(arm.grid) - number * arm.grid.block)
                drawn = f"images {_name(arm.recipe)} {plan.cell.task} {plan.cell.count} {name.split('_')[0]} {number}"
                drawn += " retained" if "retained" in name else ""
                arguments = {"recipe": arm.recipe, "gigabytes": times["block"] * size / 32}
                needs = chains[_name(arm.recipe)]
                yield self._cells.job(drawn, "images", size * times["image"], needs, **arguments)  # type: ignore[arg-type]
                judged = drawn.replace("images", "judgments", 1)
                yield self._cells.job(judged, "judgments", size * times["judgment"], (drawn,), **arguments)  # type: ignore[arg-type]

    def _built(self, plan: CellPlan, recipe: Recipe) -> Iterator[Job]:
        """The checkpoints of a recipe, each after the images that its step trains on."""
        assumed, before, base = self._cells.assumed, Recipe(recipe.base), Recipe(recipe.base)
        needs: tuple[str, ...] = ()
        for step in recipe.steps:
            sets = [(base, probe) for probe in probes_of(step)] + [(before, probe) for probe in parent_probes_of(step)]
            inputs: list[str] = []
            for place, (model, probe) in enumerate(sets):
                size = len(probe)
                part = assumed.parts or size
                for first in range(0, size, part):
                    images = min(part, size - first)
                    tuned = step.name in FINETUNED
                    key = f"set {_name(model)} {plan.cell.task} {plan.cell.count} {tuned} {place} {first}"
                    seconds, stored = images * assumed.times["image"], assumed.times["block"] * images / 32
                    yield self._cells.job(key, "images", seconds, needs, recipe=model, gigabytes=stored)
                    inputs.append(key)
            after = before.then(step)
            key = f"checkpoint {plan.cell.task} {_name(after)}"
            seconds = assumed.update(step) * training(step).units
            yield self._cells.job(
                key, "checkpoint", seconds, (*needs, *inputs), recipe=before, gigabytes=assumed.size(step)
            )
            before, needs = after, (key,)


FINETUNED = ("lora", "full", "xattn")


def _looks(plan: CellPlan, *, sequential: bool) -> Iterator[dict[str, range]]:
    """Blocks of every arm, by look."""
    seen = dict.fromkeys(plan.arms, 0)
    if not sequential:
        yield {name: range(arm.grid.blocks_for(arm.images)) for name, arm in plan.arms.items()}
        return
    while True:
        found = {}
        for name, arm in plan.arms.items():
            last = arm.grid.blocks_for(arm.images if arm.group is None else CLEAR[arm.group])
            first = seen[name]
            seen[name] = last if arm.group is None else min(first + 1, last)
            found[name] = range(first, seen[name])
        if not any(found.values()):
            return
        yield {name: blocks for name, blocks in found.items() if blocks}


_NAMES: dict[Recipe, str] = {}
_KNOWN: dict[int, tuple[Recipe, str]] = {}
"""The same by identity, which is faster than to hash a recipe."""


def _name(recipe: Recipe) -> str:
    """Short and different for different recipes."""
    if id(recipe) not in _KNOWN:
        _KNOWN[id(recipe)] = recipe, _NAMES.setdefault(recipe, f"m{len(_NAMES)}")
    return _KNOWN[id(recipe)][1]


class Ran(NamedTuple):
    """One simulated build."""

    hours: float
    jobs: int
    driver: float
    store: float
    idle: float


def simulate(found: Cells, gpus: int) -> Ran:
    """Build all cells on so many workers."""
    found.done.clear()
    for course in found.courses:
        course.next = 0
    times, schedule = found.assumed.times, Schedule(iter(found.courses))
    channels = [0.0] * int(times["store channels"])
    events: list[tuple[float, int, int, str]] = []
    models = [""] * gpus
    number, driver_free, driver_busy, store_busy, busy, now, jobs = count(), 0.0, 0.0, 0.0, 0.0, 0.0, 0
    waiting: list[int] = []
    for worker in range(gpus):
        heapq.heappush(events, (times["cold start"], next(number), worker, ""))
    while events:
        now, _, worker, key = heapq.heappop(events)
        if key:
            schedule.done(Done(key))
            jobs += 1
        waiting.append(worker)
        while waiting:
            job = schedule.next(models[waiting[-1]], workers=gpus)
            if job is None:
                break
            worker = waiting.pop()
            driver_free = max(now, driver_free) + times["driver"]
            driver_busy += times["driver"]
            made, start = found.made[job.order.key], driver_free
            gigabytes = made.gigabytes
            if job.model not in (None, models[worker]):
                models[worker] = job.model
                gigabytes += made.model
                start += times["swap"]
            transfer = gigabytes / times["store bandwidth"]
            begin = max(start, heapq.heappop(channels))
            heapq.heappush(channels, begin + transfer)
            store_busy += transfer
            end = begin + transfer + job.seconds
            busy += end - now
            heapq.heappush(events, (end, next(number), worker, job.order.key))
    assert schedule.finished and not schedule.failed
    return Ran(now / 3600, jobs, driver_busy / now, store_busy / now / len(channels), 1 - busy / (gpus * now))


def longest_chain(found: Cells) -> float:
    """Hours of the longest sequence of jobs of one cell that need each other, looks included; nothing is shared."""
    most = 0.0
    for course in found.courses:
        total, before = 0.0, set[str]()
        for look in course.looks:
            ends: dict[str, float] = {}
            for job in look:
                if job.order.key not in before:  # later looks name the checkpoints again
                    ends[job.order.key] = job.seconds + max((ends.get(need, 0.0) for need in job.needs), default=0.0)
            total += max(ends.values(), default=0.0)
            before |= ends.keys()
        most = max(most, total)
    return most / 3600


def read_times(path: Path = TIMES) -> dict[str, float]:
    """stage_times.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["stage"]: float(row["value"]) for row in csv.DictReader(file)}


def plans(tasks: Sequence[str] = TASKS, **chosen: object) -> list[CellPlan]:
    """The cells of the profile "paper" of these tasks, fixed numbers of images or sequential."""
    found = []
    for task in tasks:
        selection = Selection(profile="paper", **chosen)  # type: ignore[arg-type]
        own = cells(PUBLISHED[task], selection)
        found += [plan_cell(cell, BASE, task=PUBLISHED[task], selection=selection) for cell in own]
    return found


def variants(times: Mapping[str, float]) -> dict[str, Assumed]:
    """As measured, and with one assumption changed."""
    measured = Assumed(times)
    return {
        MEASURED: measured,
        "training sets in blocks of 32": replace(measured, parts=32),
        "driver 10 times as fast": Assumed({**times, "driver": times["driver"] / 10}),
        "store of 160 GB/s": Assumed({**times, "store channels": 10 * times["store channels"]}),
        "trainings 3 times as fast": Assumed(
            {name: value / 3 if name in TRAINED else value for name, value in times.items()}
        ),
    }


MEASURED = "as measured"
TRAINED = ("esd", "sdd", "mace", "salun", "shs", "erasediff", *FINETUNED)


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for scale_simulation.csv, which is replaced")
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--engines", nargs="+", default=["fixed", "sequential"], choices=("fixed", "sequential"))
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    known = {engine: plans(args.tasks, engine=engine) for engine in args.engines}
    with (args.out / "scale_simulation.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for engine, own in known.items():
            for variant, assumed in variants(read_times()).items():
                found = Cells(own, assumed, sequential=engine == "sequential")
                chain, work = longest_chain(found), sum(found.seconds.values()) / 3600
                drawn = sum(one for key, one in found.seconds.items() if key.startswith(("images", "set")))
                images = round(drawn / assumed.times["image"])
                for gpus in args.gpus if variant == MEASURED else [max(args.gpus)]:
                    ran = simulate(found, gpus)
                    numbers = (ran.hours, work / (gpus * ran.hours), chain, ran.driver, ran.store, ran.idle)
                    row = (engine, variant, gpus, len(own), ran.jobs, images, *(f"{value:.4g}" for value in numbers))
                    rows.writerow(row)
                    file.flush()
                    print(*row, sep="  ", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
