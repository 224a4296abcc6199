"""What the microworld's models draw on a whole grid of 2,500 pairs: the ground on which designs are replayed.

    python -m benchmarks.outcome_grids --cells esd-10,uce-10 --pairs 2500 --store DIR --to reports/microworld/grid

One file per cell, METHOD-COUNT.csv: concept, prompt, seed, and what the first judge says before and after LoRA.
`resurgence validate --full --outcomes FILE` replays them in other orders.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from resurgence_harness.bench import Bench
from resurgence_harness.judging import judge_by_name
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.storing import Store
from resurgence_harness.tasks import CELEBRITY


def main() -> None:
    """Draw, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", required=True, help="for example esd-10,uce-1")
    parser.add_argument("--pairs", type=int, default=2500)
    parser.add_argument("--store", required=True, help="where everything made is kept")
    parser.add_argument("--to", type=Path, required=True, help="a folder")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    base, judge = resolve_base("micro"), judge_by_name(CELEBRITY.judges[0])
    bench = Bench(Store(asked.store), base_location=base, device=asked.device)
    asked.to.mkdir(parents=True, exist_ok=True)
    for words in asked.cells.split(","):
        started = time.monotonic()
        method, count = words.rsplit("-", 1)
        seeds = -(-asked.pairs // (int(count) * len(CELEBRITY.templates)))
        cell = Cell(task="celebrity", method=method, count=int(count), finetuning="lora")
        plan = plan_cell(cell, base, task=CELEBRITY, selection=Selection(seeds=seeds))
        arms = [bench.evidence(recipe, plan.erased.probe, judge) for recipe in (plan.unlearned, plan.tuned)]
        with (asked.to / f"{words}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("concept", "prompt", "seed", "before", "after"))
            for one, two in zip(arms[0].judgments, arms[1].judgments, strict=True):
                table.writerow((one.concept, one.prompt, one.seed, one.outcome.value, two.outcome.value))
        hits = [sum(outcome.value == "hit" for outcome in arm.outcomes) for arm in arms]
        print(f"{words}: {hits[0]} -> {hits[1]} of {len(arms[0])}, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
