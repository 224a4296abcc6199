"""What float16 changes in images of unlearned models: `python -m benchmarks.half_equivalence --to DIR --device cuda`.

The microworld's base and the seven methods' models of it (ten celebrities erased, quick settings) each draw the same
(prompt, seed) rows three times, as `resurgence validate --arithmetic` does for a base: float32, float32 with another
batch, float16. The rows ask for the erased and the held-out retained names alike, so that hits exist that can be lost
and misses that can become hits. One table row per model and way, added when it is measured; `--models` chooses, and a
model that is in the table is not measured again.

Exit code: 0 if float16 changes at most 1 % of every model's images (upper bound), else 1.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

COUNT, FINETUNING = 10, "lora"
COLUMNS = (
    *("model", "reference hits", "way", "images", "hits changed", "gained", "lost", "low", "high", "other pixels"),
    *("drawn with", "commit"),
)


def main(given: Sequence[str] | None = None) -> int:
    """Measure the models that have no rows."""
    from resurgence_harness.presets import SEVEN

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="the table")
    parser.add_argument("--models", default=",".join(("base", *SEVEN)), help="default: base and all seven methods")
    parser.add_argument("--images", type=int, default=2500, help="of each way (default 2500)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--store", type=Path, help="where artifacts are kept; a temporary folder by default")
    parser.add_argument("--commit", default="", help="for the table")
    args = parser.parse_args(given)
    from tempfile import TemporaryDirectory

    from resurgence_harness.bench import Bench
    from resurgence_harness.experiments.arithmetic import LIMIT, compare, sampler_for
    from resurgence_harness.judging import judge_by_name
    from resurgence_harness.selection import Selection, plan_cell, resolve_base
    from resurgence_harness.specs import Cell
    from resurgence_harness.storing import Store
    from resurgence_harness.tasks import CELEBRITY

    rows: list[dict[str, object]] = []
    if args.to.is_file():
        with args.to.open(newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    known = {str(row["model"]) for row in rows}
    base, judge = resolve_base("micro"), judge_by_name(CELEBRITY.judges[0])
    with TemporaryDirectory() as folder:
        bench = Bench(Store(args.store or folder), base_location=base, device=args.device)
        for name in args.models.split(","):
            if name in known:
                continue
            method = "uce" if name == "base" else name  # whose plan has the same prompts
            cell = Cell(task="celebrity", method=method, count=COUNT, finetuning=FINETUNING, run=0)
            plan = plan_cell(cell, base, task=CELEBRITY, selection=Selection())
            found = compare(
                bench,
                base,
                CELEBRITY,
                judge,
                sampler=sampler_for(base),
                images=args.images,
                model=plan.base if name == "base" else plan.unlearned,
                prompts=(*plan.erased.probe.prompts, *plan.retained.probe.prompts),
            )
            for one in (found.batch, found.half):
                low, high = one.bounds
                values = (name, found.hits, one.way, one.images, one.changed, one.gained, one.lost)
                more = (f"{low:.6g}", f"{high:.6g}", one.pixels, one.drawn_with, args.commit)
                rows.append(dict(zip(COLUMNS, (*values, *more), strict=True)))
            new = args.to.with_suffix(".new")
            with new.open("w", newline="", encoding="utf-8") as file:
                written = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                written.writeheader()
                written.writerows(rows)
            new.replace(args.to)
            print(found.text().partition("\n\n")[0], flush=True)
    return int(any(float(str(row["high"])) > LIMIT for row in rows if str(row["way"]).startswith("float16")))


if __name__ == "__main__":
    sys.exit(main())
