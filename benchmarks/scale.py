"""How a build scales: `python -m benchmarks.scale PART --out DIR`, rows into DIR/scale.csv.

    gpus       one Ray actor against two on two GPUs: the same plan at the size of SD v1.4, random weights; ≤ 9 minutes
    overhead   Ray against processes and this process on a plan that is stored already, and artifacts scheduled a second
    memory     the driver's memory while 100,000 keys pass through it

*gpus:* `resurgence build suites/celebrity --engine ray --workers N` for UCE of 1, 5 and 10 names, LoRA and
cross-attention fine-tuning of each, a fixed number of images, CLIP ViT-B/32 of random weights as the judge; reduced
are the optimiser steps (`--updates`), the sampler's steps (`--sampler-steps`) and the benign images. Efficiency =
seconds of one worker / (N × seconds of N). "working" is from the first build that was begun to the last that ended (the
build log), "whole" the command with its imports, Ray's start and the workers' cold starts. Every artifact of the second
store that has the same key as one of the first is compared by digest.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.random_bases import write_base
from benchmarks.sd_path import ROOT, call, device, versions, write_judge
from resurgence_harness.executing.jobs import Done, Job, Order
from resurgence_harness.executing.running import Worker, run
from resurgence_harness.executing.schedule import Schedule
from resurgence_harness.storing import Store
from tests.executing.light_work import ABOUT

COLUMNS = ("part", "what", "value", "unit", "workers", "device", "versions", "commit", "cpus")
TINY = ("sampler.height=64", "sampler.width=64", "sampler.arithmetic=float32")


class Table:
    """DIR/scale.csv; rows are added."""

    def __init__(self, args: argparse.Namespace, *, where: str) -> None:
        """`where`: the device of the rows."""
        args.out.mkdir(parents=True, exist_ok=True)
        self._path, self._args, self._where = args.out / "scale.csv", args, where

    def put(self, part: str, what: str, value: float, unit: str, *, workers: int = 1) -> None:
        """Add a row, and print it."""
        new = not self._path.exists()
        row = (part, what, f"{value:.6g}", unit, workers, self._where, versions(), self._args.commit, os.cpu_count())
        with self._path.open("a", newline="", encoding="utf-8") as file:
            out = csv.writer(file, lineterminator="\n")
            if new:
                out.writerow(COLUMNS)
            out.writerow(row)
        print(*row[:5], sep="  ", flush=True)


# Two GPUs


class Ran(NamedTuple):
    """One build."""

    whole: float
    working: float
    artifacts: int
    processes: int
    idle: float
    """Share of the workers' time between the first build and the last in which they built nothing."""


def gpus(args: argparse.Namespace) -> None:
    """The same plan with one worker and with two."""
    table = Table(args, where=device("cpu" if args.tiny else "cuda"))
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        write_base(work / "base", device="cpu" if args.tiny else "cuda", tiny=args.tiny)
        settings = write_judge(work, tiny=args.tiny)
        runs = {}
        for workers in args.workers:
            store = work / f"store-{workers}"
            runs[workers] = ran = _build(args, work, settings._replace(store=str(store)), store, workers)
            for what, value, unit in (
                ("whole", ran.whole, "s"),
                ("working", ran.working, "s"),
                ("artifacts", ran.artifacts, ""),
                ("processes that built", ran.processes, ""),
                ("idle", ran.idle, "share"),
            ):
                table.put("gpus", what, value, unit, workers=workers)
        first = min(args.workers)
        for workers in sorted(set(args.workers) - {first}):
            for what in ("whole", "working"):
                one, many = getattr(runs[first], what) * first, getattr(runs[workers], what) * workers
                table.put("gpus", f"efficiency, {what}", one / many, "", workers=workers)
            same, shared = _same(Store(work / f"store-{first}"), Store(work / f"store-{workers}"))
            table.put("gpus", "artifacts of equal bytes", same / max(shared, 1), "share", workers=workers)


def _build(args: argparse.Namespace, work: Path, settings: Any, store: Path, workers: int) -> Ran:
    log = work / f"builds-{workers}.log"
    options = [f"--resurgence-base={work / 'base'}", "--resurgence-methods=uce", "--resurgence-counts=1,5,10"]
    options += ["--resurgence-finetune=lora,xattn", "--resurgence-engine=fixed", f"--resurgence-store={store}"]
    changed = [f"sampler.steps={args.sampler_steps}", "benign.names=16", "benign.seeds=2"]
    changed += [f"{name}.steps={args.updates}" for name in ("lora", "xattn")] + list(TINY if args.tiny else ())
    options += [f"--resurgence-set={one}" for one in changed]
    options += [f"--resurgence-device={'cpu' if args.tiny else 'cuda'}"]
    command, environment = call(work, settings, options)
    place = command.index("suites/celebrity")
    build = [sys.executable, "-m", "resurgence_harness.cli", "build", "--engine", "ray", "--workers", str(workers)]
    environment["RESURGENCE_BUILD_LOG"] = str(log)
    began = time.monotonic()
    subprocess.run([*build, *command[place:]], cwd=ROOT, env=environment, check=True)
    whole = time.monotonic() - began
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
    first, last = min(float(line[3]) for line in lines), max(float(line[3]) for line in lines)
    processes = {line[2] for line in lines}
    busy = sum(_busy([line for line in lines if line[2] == one]) for one in processes)
    built = sum(line[0] == "built" for line in lines)
    return Ran(whole, last - first, built, len(processes), 1 - busy / (len(processes) * (last - first)))


def _busy(lines: Sequence[Sequence[str]]) -> float:
    """Seconds in which one process had at least one build begun; builds inside a build count once."""
    total, depth, since = 0.0, 0, 0.0
    for what, _, _, moment, _ in lines:
        if what == "begun":
            since = float(moment) if depth == 0 else since
            depth += 1
        else:
            depth -= 1
            total += float(moment) - since if depth == 0 else 0.0
    return total


def _same(one: Store, other: Store) -> tuple[int, int]:
    """How many artifacts of both stores have equal bytes, of how many. Losses and times of training are facts."""
    pairs = [(one.find(key), other.find(key)) for key in set(one.keys()) & set(other.keys())]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return sum(a.digest == b.digest for a, b in both), len(both)


# Overhead and rate


class Keys:
    """A course of jobs that build nothing, each after the one before, or all at once."""

    def __init__(self, name: str, jobs: int) -> None:
        """`jobs` keys of this course alone."""
        self.name, self.seconds, self._jobs = name, 0.0, jobs

    def look(self) -> list[Job]:
        """All of them, once."""
        jobs, self._jobs = self._jobs, 0
        return [Job(order=Order(f"{self.name}-{one}", "images", self.name, "nothing")) for one in range(jobs)]

    def done(self, result: Done) -> None:
        """Nothing follows."""


class Nothing:
    """A worker that has always built it already."""

    def __init__(self) -> None:
        """Ready."""
        from resurgence_harness.executing.builder import Seen

        self.about, self.seen = ABOUT, Seen("", 0, 0)
        self.on_progress = lambda seen: None

    def build(self, order: Order) -> Done:
        """Nothing to do."""
        return Done(order.key)

    def stop(self) -> None:
        """Nothing to stop."""


class Resident:
    """The driver's memory, as the build goes."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self.seen: list[tuple[int, float]] = []

    def show(self, workers: list[Worker], schedule: Schedule) -> None:
        """Resident MiB after so many jobs."""
        import psutil

        self.seen.append((schedule.built, psutil.Process().memory_info().rss / 2**20))

    def note(self, line: str) -> None:
        """Print it."""
        print(line, flush=True)


def _timed(pool: Any, courses: Sequence[Keys], jobs: int, watch: Resident) -> tuple[float, float]:
    """(seconds until the end, seconds from the first job to the last)."""
    start = time.monotonic()
    schedule = Schedule(courses)
    first = [0.0]
    original = schedule.done

    def done(result: Done) -> None:
        first[0] = first[0] or time.monotonic()
        original(result)

    schedule.done = done  # type: ignore[method-assign]
    outcome = run(pool, schedule, watch, mine=None)
    end = time.monotonic()
    assert outcome.built == jobs, outcome
    return end - start, end - first[0]


def overhead(args: argparse.Namespace) -> None:
    """A plan that is stored, and jobs that take no time."""
    from resurgence_harness.executing.pool import LocalPool
    from resurgence_harness.executing.ray_pool import RayPool, Resources

    table = Table(args, where=device("cpu"))
    for name, pool in (
        ("processes", LocalPool(Nothing, workers=2)),
        ("Ray", RayPool(Nothing, address=None, device="cpu", resources=Resources(workers=2))),
    ):
        whole, working = _timed(pool, [Keys(f"cell-{one}", 40) for one in range(300)], 12_000, Resident())
        table.put("overhead", f"{name}: 300 cells, 12,000 jobs that take no time", whole, "s", workers=2)
        table.put("overhead", f"{name}: until the first job has ended", whole - working, "s", workers=2)
        table.put("overhead", f"{name}: jobs a second", 12_000 / working, "1/s", workers=2)


def memory(args: argparse.Namespace) -> None:
    """100,000 keys through one driver on Ray."""
    from resurgence_harness.executing.ray_pool import RayPool, Resources

    table, watch = Table(args, where=device("cpu")), Resident()
    courses = [Keys(f"cell-{one}", 100) for one in range(args.keys // 100)]
    pool = RayPool(Nothing, address=None, device="cpu", resources=Resources(workers=2))
    _, working = _timed(pool, courses, args.keys, watch)
    at = {share: next(mib for done, mib in watch.seen if done >= share * args.keys) for share in (0.1, 0.5)}
    at[1.0] = watch.seen[-1][1]
    for share, mib in at.items():
        table.put("memory", f"driver's resident memory after {share * args.keys:,.0f} keys", mib, "MiB", workers=2)
    table.put("memory", "jobs a second", args.keys / working, "1/s", workers=2)


PARTS = {"gpus": gpus, "overhead": overhead, "memory": memory}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one part; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--out", type=Path, required=True, help="folder for scale.csv; rows are added")
    parser.add_argument("--commit", default="", help="recorded with every row")
    parser.add_argument("--tiny", action="store_true", help="gpus: a very small model on the CPU, to try the script")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="gpus: compared with the least")
    parser.add_argument("--sampler-steps", type=int, default=10, help="gpus: of 50")
    parser.add_argument("--updates", type=int, default=60, help="gpus: optimiser steps of each fine-tuning, of 1,000")
    parser.add_argument("--work", type=Path, default=None, help="gpus: where base and stores are written")
    parser.add_argument("--keys", type=int, default=100_000, help="memory: how many")
    args = parser.parse_args(argv)
    PARTS[args.part](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
