"""The gate's sensitivity on real images: planted regressions of the microworld's UCE and MACE.

    python -m benchmarks.planted --store DIR --to reports/microworld/planted.csv

Each cell is fine-tuned by LoRA, moved back towards the base by w, and judged until the answer is clear. A row is
written when it is known; with the same store a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from resurgence_harness.bench import Bench
from resurgence_harness.examining import Rule
from resurgence_harness.experiments.planted import sensitivity
from resurgence_harness.judging import judge_by_name
from resurgence_harness.selection import Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell
from resurgence_harness.statistics import Policy
from resurgence_harness.storing import Store
from resurgence_harness.tasks import CELEBRITY


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--store", required=True, help="where everything made is kept")
    parser.add_argument("--to", type=Path, required=True, help="the table")
    parser.add_argument("--methods", default="uce,mace")
    parser.add_argument("--counts", default="1,10")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    base = resolve_base("micro")
    bench = Bench(Store(asked.store), base_location=base, device=asked.device)
    judges = [judge_by_name(name) for name in CELEBRITY.judges]
    with asked.to.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(
            ("method", "concepts", "share", "before hits", "after hits", "pairs", "retained pairs", "images", "verdict")
        )
        for method in asked.methods.split(","):
            for count in map(int, asked.counts.split(",")):
                cell = Cell(task="celebrity", method=method, count=count, finetuning="lora")
                plan = plan_cell(cell, base, task=CELEBRITY, selection=Selection())
                for found in sensitivity(bench, plan, judges, Rule(policy=Policy())):
                    verdict = found.examined.verdict
                    rates = dict(verdict.rates)
                    row = (
                        method,
                        count,
                        found.share,
                        rates["before"].hits,
                        rates["after"].hits,
                        rates["after"].images,
                        rates["retained_after"].images,
                        found.examined.inquiry.images,
                        verdict.kind.value,
                    )
                    table.writerow(row)
                    file.flush()
                    print(*row, verdict.reason[:160])


if __name__ == "__main__":
    main()
