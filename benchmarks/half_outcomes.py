"""Training in float16 beside float32 on the microworld: `python -m benchmarks.half_outcomes --to CSV`.

    base ─▶ unlearn ─▶ fine-tune ─▶ images ─▶ judge        each cell with several training seeds and both arithmetics

Only the trainings differ: images are drawn in float32 by both, from the same noise. One row for each cell, seed and
arithmetic: hits and images of the erased and of held-out retained concepts, before and after the fine-tuning, and the
losses. A row that is in the table is not measured again, so a later call, on another machine too, goes on; `--minutes`
starts none after so many, and exit code 11 says that some are left.

`--compare` reads the table and prints for each cell and rate the means of both arithmetics and their difference in
standard errors over training seeds (Welch's t, its p), since float16 may differ as much as another seed does.

`--share K/N` measures every N-th cell and seed, from the K-th, both arithmetics of it: for N processes, each with a
table of its own; their rows under one header are the table.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

CELLS = "esd-10-lora,esd-10-full,salun-10-lora,salun-10-full"
ARITHMETICS = ("float32", "float16")
GROUPS = ("erased", "retained")
ARMS = ("before", "after")
RATES = tuple(f"{group} {arm}" for group in GROUPS for arm in ARMS)
COLUMNS = (
    *("cell", "run", "arithmetic"),
    *(f"{rate} {part}" for rate in RATES for part in ("hits", "images")),
    *("unlearning loss", "fine-tuning loss", "computed by", "seconds", "device", "versions", "commit"),
)
LEFT = 11
"""Exit code where rows are left."""


def read(table: Path) -> list[dict[str, str]]:
    """The rows so far."""
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: dict[str, Any]) -> None:
    """Add a row at the end of the table, whole or not at all."""
    new = table.with_suffix(".new")
    with new.open("w", newline="", encoding="utf-8") as file:
        written = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        written.writeheader()
        written.writerows([*read(table), row])
    new.replace(table)


def wanted(cells: Sequence[str], runs: int, share: tuple[int, int] = (1, 1)) -> Iterator[tuple[str, int, str]]:
    """Every row, the first seed of all cells before the second, and both arithmetics one after the other."""
    first, every = share
    for run, cell in list(product(range(runs), cells))[first - 1 :: every]:
        for arithmetic in ARITHMETICS:
            yield cell, run, arithmetic


def _share(text: str) -> tuple[int, int]:
    """Reads "3/8"."""
    first, _, every = text.partition("/")
    if not 1 <= int(first) <= int(every):
        raise argparse.ArgumentTypeError(f"{text}: write 1/{every} to {every}/{every}")
    return int(first), int(every)


def measured(
    bench: Any, base: Any, name: str, run: int, arithmetic: str, *, seeds: int | None, changed: Sequence[Any]
) -> dict[str, Any]:
    """One row."""
    from resurgence_harness.judging import judge_by_name
    from resurgence_harness.selection import Selection, plan_cell
    from resurgence_harness.specs import Cell
    from resurgence_harness.tasks import CELEBRITY

    began = time.monotonic()
    method, count, finetuning = name.split("-")
    own = [(f"{step}.arithmetic", arithmetic) for step in (method, finetuning)]
    selection = Selection(seeds=seeds, changed=(*changed, *own))
    cell = Cell(task="celebrity", method=method, count=int(count), finetuning=finetuning, run=run)
    plan, judge = plan_cell(cell, base, task=CELEBRITY, selection=selection), judge_by_name(CELEBRITY.judges[0])
    row: dict[str, Any] = {"cell": name, "run": run, "arithmetic": arithmetic}
    for group in GROUPS:
        for arm, recipe in zip(ARMS, (plan.unlearned, plan.tuned), strict=True):
            outcomes = bench.evidence(recipe, getattr(plan, group).probe, judge).outcomes
            row[f"{group} {arm} hits"] = sum(outcome.value == "hit" for outcome in outcomes)
            row[f"{group} {arm} images"] = len(outcomes)
    facts = [bench.checkpoint(recipe).facts for recipe in (plan.unlearned, plan.tuned)]
    for column, found in zip(("unlearning loss", "fine-tuning loss"), facts, strict=True):
        row[column] = f"{found['recorded']['loss']['last']:.6g}"
    row["computed by"] = ", ".join(facts[-1]["recorded"].get("computed in float16 by", []))
    row["device"] = facts[-1].get("hardware", facts[-1]["device"])
    row["versions"] = ", ".join(f"{library} {version}" for library, version in facts[-1]["versions"].items())
    return row | {"seconds": f"{time.monotonic() - began:.1f}"}


def compared(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """A line for each cell and rate."""
    from scipy.stats import ttest_ind

    for cell in dict.fromkeys(row["cell"] for row in rows):
        for rate in RATES:
            shares = [
                [
                    int(row[f"{rate} hits"]) / int(row[f"{rate} images"])
                    for row in rows
                    if (row["cell"], row["arithmetic"]) == (cell, arithmetic)
                ]
                for arithmetic in ARITHMETICS
            ]
            if min(map(len, shares)) < 2:
                yield f"{cell:16} {rate:16} fewer than two training seeds of each"
                continue
            means = [sum(part) / len(part) for part in shares]
            text = " ".join(
                f"{name} {mean:.3f} ({min(part):.3f} to {max(part):.3f})"
                for name, mean, part in zip(ARITHMETICS, means, shares, strict=True)
            )
            if len({share for part in shares for share in part}) == 1:
                yield f"{cell:16} {rate:16} {text}  every seed the same"
                continue
            found = ttest_ind(shares[1], shares[0], equal_var=False)
            yield f"{cell:16} {rate:16} {text}  t {found.statistic:+.2f}, p {found.pvalue:.2g}"


def main(given: Sequence[str] | None = None) -> int:
    """Measure what the table does not have, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="the table")
    parser.add_argument("--cells", default=CELLS, help=f"METHOD-COUNT-FINETUNING, …; {CELLS} by default")
    parser.add_argument("--runs", type=int, default=5, help="training seeds, 5 by default")
    parser.add_argument("--share", type=_share, default=(1, 1), metavar="K/N", help="measure one of N parts")
    parser.add_argument("--seeds", type=int, help="image seeds a prompt; the suite's by default")
    parser.add_argument("--store", type=Path, help="where artifacts are kept; a temporary folder by default")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after so many")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting, of all cells")
    parser.add_argument("--commit", default="", help="for the table")
    parser.add_argument("--compare", action="store_true", help="print the comparison and measure nothing")
    args = parser.parse_args(given)
    if args.compare:
        print("\n".join(compared(read(args.to))))
        return 0
    from tempfile import TemporaryDirectory

    from resurgence_harness.bench import Bench
    from resurgence_harness.presets import parse_change
    from resurgence_harness.selection import resolve_base
    from resurgence_harness.storing import Store

    began = time.monotonic()
    known = {(row["cell"], int(row["run"]), row["arithmetic"]) for row in read(args.to)}
    base, changed = resolve_base("micro"), [parse_change(one) for one in args.set]
    with TemporaryDirectory() as folder:
        bench = Bench(Store(args.store or folder), base_location=base, device=args.device)
        for cell, run, arithmetic in wanted(args.cells.split(","), args.runs, args.share):
            if (cell, run, arithmetic) in known:
                continue
            if time.monotonic() - began > 60 * args.minutes:
                print("Rows are left: call again with the same table.")
                return LEFT
            row = measured(bench, base, cell, run, arithmetic, seeds=args.seeds, changed=changed) | {
                "commit": args.commit
            }
            append(args.to, row)
            print(", ".join(f"{name} {row[name]}" for name in ("cell", "run", "arithmetic", "seconds")), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
