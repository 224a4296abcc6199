"""The recipes of suites/sequential, run with several training seeds: one row for every stage of every run.

    python -m benchmarks.lives --to reports/microworld/lives.csv [--runs 5] [--minutes 50] [--jobs 8] [--device cuda]

Each cell is one run of the real command line, `pytest suites/sequential`, in a process of its own, with a fixed number
of images. A finished cell's rows are written into the table at once, and the next call skips it, so the table is all
that a later call or another machine needs. Cells share the store: what recipes have in common is built once. `--jobs`
runs so many cells at once, each with one thread; `--minutes` starts no cell after so many. Exit code 11 says that cells
are left, 12 that one had no verdict.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

SUITE = "suites/sequential"
RATES = ("erased", "waiting", "retained")
LEFT, FAILED = 11, 12
"""Exit codes."""
COLUMNS = (
    *("cell", "run", "recipe", "settings", "stage", "of", "step", "erases", "state", "not_erased", "came_back"),
    *(f"{rate}_{part}" for rate in RATES for part in ("hits", "images", "abstained", "low", "high")),
    *("rise_low", "rise_high", "outcome", "verdict", "seconds", "device"),
)


def cells(runs: int) -> list[tuple[str, int]]:
    """(node id, run) of every cell, the first run of all recipes before the second."""
    command = [sys.executable, "-m", "pytest", SUITE, "--collect-only", "-q", "-n0", f"--resurgence-runs={runs}"]
    done = subprocess.run(command, capture_output=True, text=True)
    nodes = [line for line in done.stdout.splitlines() if line.startswith(SUITE)]
    if done.returncode or not nodes:
        sys.exit(done.stdout + done.stderr)
    found = [(node, run_of(node)) for node in nodes]
    return sorted(found, key=lambda one: one[1])


def name_of(node: str) -> str:
    """The cell's id, which is the part of a node id in brackets."""
    return node.rpartition("[")[2].rstrip("]")


def run_of(node: str) -> int:
    """The run in a node id: 2 for "…[at-once-5-lora-run2]", 0 without one."""
    _, found, number = node.rstrip("]").rpartition("-run")
    return int(number) if found else 0


def rows(cell: Mapping[str, Any], recipe: str, device: str) -> Iterator[dict[str, Any]]:
    """One row for each stage of a cell of verdict.json."""
    rise = next((one for one in cell["findings"] if one["name"] == "rise"), {"low": "", "high": ""})
    for stage in cell["by_stage"]:
        row = {name: stage[name] for name in ("stage", "step", "state", "not_erased", "came_back")}
        row |= {"of": len(cell["by_stage"]), "erases": len(stage["erases"]), "recipe": recipe, "device": device}
        for name in RATES:
            rate = stage[name]
            if rate is not None:
                images = rate["judged"] + rate["abstained"]
                row |= {f"{name}_hits": rate["hits"], f"{name}_images": images, f"{name}_abstained": rate["abstained"]}
                row |= {f"{name}_{end}": round(rate[end], 4) for end in ("low", "high")}
        row |= {"cell": cell["id"], "rise_low": rise["low"], "rise_high": rise["high"]}
        yield row | {name: cell[name] for name in ("run", "settings", "outcome", "verdict", "seconds")}


def judged(node: str, run: int, *, store: str, device: str) -> list[dict[str, Any]]:
    """The rows of one cell; empty if it has no verdict."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "pytest", node, "-q", "-n0", f"--resurgence-runs={run + 1}"]
        command += ["--resurgence-engine=fixed", f"--resurgence-out={out}", f"--resurgence-device={device}"]
        command += [f"--resurgence-store={store}"] if store else []
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        file = Path(out, "verdict.json")
        if not file.is_file():
            return []
        found = json.loads(file.read_text(encoding="utf-8"))
        where = str(found["environment"].get("device", ""))
        return [row for cell in found["cells"] for row in rows(cell, cell["models"]["tuned"]["recipe"], where)]


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table; none if there is no table yet."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(table: Path, found: list[dict[str, Any]]) -> None:
    """Add a cell's rows at the end of the table, all or none."""
    every = [*read(table), *found]
    new = table.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        written = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        written.writeheader()
        written.writerows(every)
    new.replace(table)


def main() -> int:
    """Run what is not in the table yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="cells whose id begins with this, for example at-once")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--store", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1, help="cells that run at once (default 1)")
    args = parser.parse_args()
    there = {row["cell"] for row in read(args.to)}
    wanted = [one for one in cells(args.runs) if name_of(one[0]).startswith(args.only) and name_of(one[0]) not in there]
    until, left, failed = time.monotonic() + 60 * args.minutes, False, False
    with tempfile.TemporaryDirectory() as store, ThreadPoolExecutor(args.jobs) as pool:

        def run_in_time(node: str, run: int) -> list[dict[str, Any]] | None:
            if time.monotonic() > until:
                return None
            return judged(node, run, store=args.store or store, device=args.device)

        for done in as_completed([pool.submit(run_in_time, *one) for one in wanted]):
            found = done.result()
            left |= found is None
            failed |= found == []
            if found:
                append(args.to, found)
    return FAILED if failed else LEFT if left else 0


if __name__ == "__main__":
    sys.exit(main())
