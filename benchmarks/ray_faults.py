"""What is left of a build on a Ray cluster whose parts are killed: `python -m benchmarks.ray_faults --out DIR`.

    head + nodes on this machine ─▶ driver, a process of its own ─▶ kill an actor at work, a node, the driver, in a
    random order, each at a random moment ─▶ a killed driver is started again ─▶ what does the store hold?

Ray's own cluster utility starts real GCS servers and raylets. What is built is light: real files in a real store, a
tenth of a second each, without torch (tests/executing/light_work.py); so a seed takes seconds.

A row for each seed: how many artifacts there are, how often one was begun again, was built more than once, is missing,
cannot be read, or differs from what an undisturbed run makes. A build that is killed has to be begun again, so "begun
again" is at most the number of builds that ran when something was killed. "leftovers" are folders of killed builds,
which the next build of the same key, or `resurgence store gc`, removes.

Exit codes: 0 every seed as it should be · 1 a seed is not.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.executing.jobs import Job
from resurgence_harness.storing import Store, content_of
from tests.executing.light_work import ABOUT, Chain, chain, log_of, opened

ROOT = Path(__file__).parents[1]
FAULTS = ("actor", "node", "driver")
LIMIT = 240.0
"""Seconds after which a seed has failed."""


class Row(NamedTuple):
    """What one seed left."""

    seed: int
    faults: str
    artifacts: int
    begun_again: int
    built_twice: int
    missing: int
    unreadable: int
    different: int
    leftovers: int
    lost: str
    """What the driver says of lost workers."""
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the store is as after an undisturbed run."""
        return not (self.built_twice or self.missing or self.unreadable or self.different)


class Place:
    """A cluster on this machine: a head without CPUs, and nodes of one CPU each."""

    def __init__(self, nodes: int) -> None:
        """Start it."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 80 * 2**20}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        self._small = small
        self._nodes = [self.cluster.add_node(num_cpus=1, **small) for _ in range(nodes)]
        self.address = str(self.cluster.address)

    def kill_node(self, dice: random.Random) -> None:
        """Kill a raylet with everything on its node, and start another one."""
        node = self._nodes.pop(dice.randrange(len(self._nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self.cluster.add_node(num_cpus=1, **self._small))

    def close(self) -> None:
        """End it."""
        self.cluster.shutdown()


def scenario(
    seed: int, place: Place, folder: Path, *, cells: int = 4, seconds: float = 0.1, faults: Sequence[str] = FAULTS
) -> Row:
    """Build light cells while parts of the cluster are killed."""
    dice, began = random.Random(seed), time.monotonic()
    store, log, output = Store(folder / "store"), folder / "builds.log", folder / "driver.log"
    jobs = [job for cell in range(cells) for job in chain(cell)]
    order = dice.sample(list(faults), len(faults))
    moments = sorted(dice.sample(range(1, len(jobs) - 2), len(order)))
    driver = _driver(place, folder, cells, seconds, output)
    try:
        for fault, moment in zip(order, moments, strict=True):
            while _built(log) < moment and driver.poll() is None:
                _pause(began)
            time.sleep(dice.random() * seconds)
            if driver.poll() is not None:
                break
            if fault == "actor":
                _kill_builder(log)
            elif fault == "node":
                place.kill_node(dice)
            else:
                driver.kill()
                driver.wait()
                driver = _driver(place, folder, cells, seconds, output)
        while driver.poll() is None:
            _pause(began)
    finally:
        driver.kill()
        driver.wait()
    said = output.read_text(encoding="utf-8")
    if driver.returncode != 0:
        print(said, file=sys.stderr)
    return _row(seed, order, jobs, store, log, said, time.monotonic() - began)


def _row(seed: int, faults: list[str], jobs: list[Job], store: Store, log: Path, said: str, seconds: float) -> Row:
    entries = log_of(log)
    begun = Counter(key for what, key, _ in entries if what == "begun")
    built = Counter(key for what, key, _ in entries if what == "built")
    expected, missing, unreadable, different = _contents(jobs), 0, 0, 0
    for key, content in expected.items():
        artifact = store.find(key)
        if artifact is None:
            missing += 1
            continue
        try:
            different += content_of(store.verified(artifact), "file").decode() != content
        except Exception:
            unreadable += 1
    lost = [line.rpartition("; ")[2] for line in said.splitlines() if "artifacts built on" in line and "lost" in line]
    left = store.root / "tmp"
    return Row(
        seed,
        " ".join(faults),
        len(expected),
        sum(count - 1 for count in begun.values()),
        sum(count > 1 for count in built.values()),
        missing,
        unreadable,
        different,
        len(list(left.iterdir())) if left.is_dir() else 0,
        lost[-1] if lost else "",
        round(seconds, 1),
    )


def _contents(jobs: Sequence[Job]) -> dict[str, str]:
    """What each file must contain, computed without engine and store; inputs come first."""
    found: dict[str, str] = {}
    for job in jobs:
        text = "".join(found[need] for need in job.needs) + job.order.key
        found[job.order.key] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _driver(place: Place, folder: Path, cells: int, seconds: float, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.ray_faults", "--drive", place.address, str(folder)]
    command += [str(cells), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with output.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)


def drive(address: str, folder: str, cells: str, seconds: str) -> int:
    """The driver's process."""
    from resurgence_harness.executing.ray_pool import RayPool, Resources
    from resurgence_harness.executing.running import run
    from resurgence_harness.executing.schedule import Schedule
    from resurgence_harness.executing.table import Lines

    store = Store(Path(folder) / "store")
    opening = partial(opened, str(store.root), float(seconds), ABOUT, str(Path(folder) / "builds.log"))
    pool = RayPool(opening, address=address, device="cpu", resources=Resources())
    outcome = run(pool, Schedule(Chain(store, cell) for cell in range(int(cells))), Lines(int(cells)), mine=ABOUT)
    print(f"{outcome.built} artifacts built on {pool.name}; {outcome.lost} lost", flush=True)
    return 1 if outcome.failed else 0


def _kill_builder(log: Path) -> None:
    """Kill the process that has begun a build last and not ended it."""
    entries = log_of(log)
    ended = {(key, process) for what, key, process in entries if what == "built"}
    running = [process for what, key, process in entries if what == "begun" and (key, process) not in ended]
    if running:
        with suppress(ProcessLookupError):
            os.kill(running[-1], signal.SIGKILL)


def _built(log: Path) -> int:
    return sum(what == "built" for what, _, _ in log_of(log))


def _pause(began: float) -> None:
    """Wait a moment; TimeoutError for a seed that takes too long."""
    if time.monotonic() - began > LIMIT:
        raise TimeoutError(f"not finished after {LIMIT:g} s")
    time.sleep(0.02)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the seeds; the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--drive"]:
        return drive(*given[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder for ray_faults.csv")
    parser.add_argument("--commit", default="", help="recorded with every row")
    args = parser.parse_args(given)
    args.out.mkdir(parents=True, exist_ok=True)
    place, good = Place(args.nodes), True
    try:
        with (args.out / "ray_faults.csv").open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            if not file.tell():
                rows.writerow((*Row._fields, "nodes", "commit"))
            for seed in range(args.first, args.first + args.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    row = scenario(seed, place, Path(folder))
                rows.writerow((*row, args.nodes, args.commit))
                file.flush()
                good &= row.good
                print(*row, sep="  ", flush=True)
    finally:
        place.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
