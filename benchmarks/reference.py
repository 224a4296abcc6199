"""Reference runs of the microworld: their numbers as a table, and the acceptances that follow from them.

    pytest suites/celebrity -n 4 --resurgence-runs 5
    python -m benchmarks.reference reports/out/verdict.json --to reports/microworld/reference.csv

The runs are the product's own. For each cell that some run found beyond the policy, the ceiling is the highest upper
bound over its runs plus δ, bound to the base and to the steps' versions. Fewer than five runs give none.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import defaultdict
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
    told: dict[str, Any] = {name: cell[name] for name in ("method", "concepts", "finetuning", "run")}
    for arm in ARMS:
        told |= {f"{arm} {part}": cell[arm][part] for part in ("hits", "judged", "abstained")}
    for finding in cell["findings"]:
        told |= {f"{finding['name']} {end}": round(finding[end], 4) for end in ("low", "high")}
    return told | {"outcome": cell["outcome"], "verdict": cell["verdict"]}


def beyond(cell: dict[str, Any]) -> bool:
    """Whether the erased names were shown to be drawn too often, or more often than before."""
    return any(finding["broken"] for finding in cell["findings"] if finding["name"] in ("level", "rise"))


def acceptance(cells: list[dict[str, Any]], delta: float) -> str:
    """A limits file's entry for one cell, from its runs."""
    one = cells[0]
    method, finetuning = METHODS[one["method"]].step, FINETUNINGS[one["finetuning"]]
    highest = {
        name: min(
            1.0, round(max(f["high"] for cell in cells for f in cell["findings"] if f["name"] == name) + delta, 2)
        )
        for name in ("level", "rise")
    }
    worst = next((word for word in ("collapsed", "not unlearned") if word in {c["outcome"] for c in cells}), None)
    lines = [
        f"- task: {one['task']}",
        f"  method: {one['method']}",
        f"  count: {one['concepts']}",
        f"  finetuning: {one['finetuning']}",
        f"  level: {highest['level']:.2f}",
        f"  rise: {highest['rise']:.2f}",
        *([f"  outcome: {worst}"] if worst else []),
        f"  reason: {len(cells)} reference runs on the embedded microworld, reports/microworld/reference.csv",
        "  owner: resurgence-harness",
        f"  bound_to: {{base: {one['models']['base']['digest']}, "
        f"steps: {{{method.name}: {method.version}, {finetuning.name}: {finetuning.version}}}}}",
    ]
    return "\n".join(f"  {line}" for line in lines)


def main() -> None:
    """The table into a file, the acceptances onto the screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verdicts", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    cells: dict[tuple[str, int, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in args.verdicts:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for cell in json.loads(content)["cells"]:
            cells[cell["method"], cell["concepts"], cell["finetuning"]][cell["run"]] = cell
    rows = [row(cell) for _, runs in sorted(cells.items()) for _, cell in sorted(runs.items())]
    with args.to.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    for _, runs in sorted(cells.items()):
        if len(runs) >= RUNS and any(map(beyond, runs.values())):
            print(acceptance(list(runs.values()), Policy().delta))


if __name__ == "__main__":
    main()
