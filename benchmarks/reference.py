"""Reference runs of the microworld: their numbers as a table, and the acceptances that follow from them.

    pytest suites/celebrity -n 4 --resurgence-engine fixed --resurgence-runs 5
    python -m benchmarks.reference reports/out/verdict.json --to reports/microworld/reference.csv

The runs are the product's own, with a fixed number of images. `--known TABLE` adds the runs of an earlier table. For
each cell that some run found beyond the policy, or no run unlearned, the ceiling is the highest upper bound over its
runs plus δ, bound to the base, to the steps' versions and to their values. Fewer than five runs give none. Runs with
different values, or with values that were not recorded, are no runs of one cell.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resurgence_harness.finetuning import FINETUNINGS
from resurgence_harness.presets import METHODS
from resurgence_harness.statistics import Policy

ARMS = ("base", "before", "after", "base_retained", "retained_before", "retained_after")
RUNS = 5
"""Runs of a cell that a ceiling needs at least."""


def row(cell: dict[str, Any]) -> dict[str, Any]:
    """One run of one cell as it stands in the table."""
    told: dict[str, Any] = {name: cell[name] for name in ("method", "concepts", "finetuning", "run", "settings")}
    for arm in ARMS:
        told |= {f"{arm} {part}": cell[arm][part] for part in ("hits", "judged", "abstained")}
    for finding in cell["findings"]:
        told |= {f"{finding['name']} {end}": round(finding[end], 4) for end in ("low", "high")}
    return told | {"outcome": cell["outcome"], "verdict": cell["verdict"]}


def beyond(row: Mapping[str, Any], policy: Policy) -> bool:
    """Whether the erased names were shown to be drawn too often, or more often than before."""
    return float(row["level low"]) > policy.level or float(row["rise low"]) > policy.delta


def acceptance(rows: Sequence[Mapping[str, Any]], delta: float, base: str) -> str:
    """A limits file's entry for one cell, from its runs on the base with this digest."""
    one = rows[0]
    method, finetuning = METHODS[one["method"]].step, FINETUNINGS[one["finetuning"]]
    highest = {
        name: min(1.0, round(max(float(row[f"{name} high"]) for row in rows) + delta, 2)) for name in ("level", "rise")
    }
    outcomes = sorted({row["outcome"] for row in rows} - {"unlearned"})
    lines = [
        "- task: celebrity",
        f"  method: {one['method']}",
        f"  count: {one['concepts']}",
        f"  finetuning: {one['finetuning']}",
        f"  level: {highest['level']:.2f}",
        f"  rise: {highest['rise']:.2f}",
        *([f"  outcome: [{', '.join(outcomes)}]"] if outcomes else []),
        f"  reason: {len(rows)} reference runs on the embedded microworld, reports/microworld/reference.csv",
        "  owner: resurgence-harness",
        "  bound_to:",
        f"    base: {base}",
        f"    steps: {{{method.name}: {method.version}, {finetuning.name}: {finetuning.version}}}",
        f"    settings: '{one['settings']}'",
    ]
    return "\n".join(f"  {line}" for line in lines)


def main() -> None:
    """The table into a file, the acceptances onto the screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verdicts", nargs="+", type=Path)
    parser.add_argument(
        "--known", nargs="*", type=Path, default=[], help="earlier tables, of the same steps and images"
    )
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    rows: dict[tuple[str, int, str, int], Mapping[str, Any]] = {}
    for path in args.known:
        with path.open(encoding="utf-8") as file:
            for known in csv.DictReader(file):
                place = known["method"], int(known["concepts"]), known["finetuning"], int(known["run"])
                rows[place] = known
    base = ""
    for path in args.verdicts:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        run = json.loads(content)
        base = run["base"]["digest"]
        for cell in run["cells"]:
            rows[cell["method"], cell["concepts"], cell["finetuning"], cell["run"]] = row(cell)
    ordered = [rows[place] for place in sorted(rows)]
    with args.to.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(ordered[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(ordered)
    cells: dict[tuple[str, int, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for place in sorted(rows):
        cells[(*place[:3], rows[place]["settings"])].append(rows[place])
    for (*_, settings), runs in cells.items():
        never = all(one["outcome"] != "unlearned" for one in runs)
        if settings and len(runs) >= RUNS and (never or any(beyond(one, Policy()) for one in runs)):
            print(acceptance(runs, Policy().delta, base))


if __name__ == "__main__":
    main()
