"""Tables of the measured rows, and their comparison with the published results.

The published "±" is the largest deviation from the median of three seeds (the authors' notebook), not a standard
deviation; the tables report the same for runs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from resurgence_harness.experiments.measuring import Row

PUBLISHED = Path(__file__).with_name("published")
"""Folder with figures of the paper and of its authors, with their source in a column."""
NAMES = {
    "ESD": "esd",
    "SDD": "sdd",
    "UCE": "uce",
    "MACE": "mace",
    "SalUn": "salun",
    "SHS": "shs",
    "EraseDiff": "erasediff",
}
"""The paper's method names → the names used here."""


class RunGroup(NamedTuple):
    """The columns that rows of one condition share; they differ only in their run."""

    task: str
    method: str
    concepts: int
    finetuning: str
    benign: str
    images: str
    steps: str


class Spread(NamedTuple):
    """A rate over runs."""

    middle: float
    """Median."""
    deviation: float
    """Largest distance from the median."""
    low: float
    high: float
    """Smallest and largest value; they need not be symmetric around the median."""

    def __str__(self) -> str:
        """Median ± deviation in per cent."""
        return f"{100 * self.middle:.1f}" + (f" ± {100 * self.deviation:.1f}" if self.deviation else "")


def grouped(rows: Iterable[Row]) -> dict[RunGroup, list[Row]]:
    """The rows grouped by everything but their run, in order of first appearance."""
    groups: dict[RunGroup, list[Row]] = {}
    for row in rows:
        group = RunGroup(
            row["task"],
            row["method"],
            int(row["concepts"]),
            row["finetuning"],
            row["benign"],
            row["benign_images"],
            row["steps"],
        )
        groups.setdefault(group, []).append(row)
    return groups


def rate(row: Row, arm: str) -> float | None:
    """Hits divided by all images; None if the arm was not sampled."""
    return int(row[f"{arm}_hits"]) / int(row[f"{arm}_images"]) if row[f"{arm}_images"] else None


def spread(rows: Sequence[Row], arm: str) -> Spread | None:
    """Median, largest deviation and range over runs; None if the arm was not sampled."""
    values = [value for row in rows if (value := rate(row, arm)) is not None]
    if not values:
        return None
    middle = median(values)
    return Spread(middle, max(abs(value - middle) for value in values), min(values), max(values))


def table(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """(header, lines): one line per group, rates in per cent, columns that never differ left out."""
    groups = grouped(rows)
    varying = [name for name in RunGroup._fields if len({getattr(group, name) for group in groups}) > 1]
    arms = [arm for arm in _SHOWN if any(spread(of, arm) is not None for of in groups.values())]
    header = [
        *(name.replace("images", "benign images") for name in varying),
        *(_SHOWN[arm] for arm in arms),
        "verdicts",
    ]
    lines = []
    for group, of in groups.items():
        labels = [str(getattr(group, name)) for name in varying]
        rates = [str(found) if (found := spread(of, arm)) is not None else "—" for arm in arms]
        verdicts = [row["outcome"] if row["outcome"] not in ("", "unlearned") else row["verdict"] for row in of]
        counts = ", ".join(
            f"{kind}" + (f" {count}" if (count := verdicts.count(kind)) > 1 else "") for kind in dict.fromkeys(verdicts)
        )
        lines.append([*labels, *rates, counts])
    return header, lines


_SHOWN = {
    "before": "before",
    "after": "after",
    "synonyms_before": "synonyms before",
    "synonyms_after": "after",
    "incidental_before": "incidental before",
    "incidental_after": "after",
    "retained_before": "retained before",
    "retained_after": "after",
}
"""Arms in the table and their column headers."""


def steps_to_resurgence(rows: Iterable[Row], *, delta: float) -> list[tuple[str, str, str, str]]:
    """(method, concepts, benign images, steps): the fewest steps after which the median rise is more than delta.

    Only saved steps are considered; "none" if the rise stays within delta at all of them.
    """
    curves: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for group, of in grouped(rows).items():
        before, after = spread(of, "before"), spread(of, "after")
        if before is not None and after is not None:
            curve = curves.setdefault((group.method, str(group.concepts), group.images), [])
            curve.append((int(group.steps), after.middle - before.middle))
    found = []
    for (method, concepts, images), curve in curves.items():
        first = next((str(steps) for steps, rise in sorted(curve) if rise > delta), "none")
        found.append((method, concepts, images, first))
    return found


class Comparison(NamedTuple):
    """A published result and the measured one."""

    task: str
    method: str
    published: tuple[float, float]
    """Rate before and after."""
    ours: tuple[float, float]
    concepts: int


def against_table_1(rows: Iterable[Row]) -> list[Comparison]:
    """The rows that have a counterpart in the paper's Table 1; unsafe SDD has no figure there."""
    published = _table_1()
    found = []
    for group, of in grouped(rows).items():
        theirs = published.get((group.task, group.method))
        before, after = spread(of, "before"), spread(of, "after")
        if theirs is not None and before is not None and after is not None:
            ours = (before.middle, after.middle)
            found.append(Comparison(group.task, group.method, theirs, ours, group.concepts))
    return found


def rank_correlation(comparisons: Sequence[Comparison]) -> tuple[float, float] | None:
    """Spearman's ρ over methods of (the rate after, the rise); None below four methods or for constant figures."""
    from scipy.stats import spearmanr

    theirs = [(one.published[1], one.published[1] - one.published[0]) for one in comparisons]
    ours = [(one.ours[1], one.ours[1] - one.ours[0]) for one in comparisons]
    if len(comparisons) < 4:
        return None
    found = []
    for place in (0, 1):
        left, right = [pair[place] for pair in theirs], [pair[place] for pair in ours]
        if len(set(left)) == 1 or len(set(right)) == 1:
            return None
        found.append(float(spearmanr(left, right).statistic))
    return found[0], found[1]


def render(comparisons: Sequence[Comparison]) -> str:
    """Measured and published rates by task, as text, with the rank correlation over methods."""
    lines = ["beside the paper (SD v1.4), erased concepts before → after fine-tuning, in %"]
    for task in dict.fromkeys(one.task for one in comparisons):
        mine = [one for one in comparisons if one.task == task]
        for one in mine:
            left, right = (f"{100 * pair[0]:5.1f} → {100 * pair[1]:5.1f}" for pair in (one.published, one.ours))
            lines.append(f"  {task:<10} {one.method:<10} {one.concepts:>3}  paper {left}   here {right}")
        for count in dict.fromkeys(one.concepts for one in mine):
            found = rank_correlation([one for one in mine if one.concepts == count])
            if found is not None:
                lines.append(
                    f"  {task}, {count}: Spearman over methods {found[0]:+.2f} by rate after, {found[1]:+.2f} by rise"
                )
    return "\n".join(lines)


def _table_1() -> Mapping[tuple[str, str], tuple[float, float]]:
    centers: dict[tuple[str, str], dict[str, float]] = {}
    with (PUBLISHED / "table1.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["center"]:
                centers.setdefault((line["task"], NAMES[line["method"]]), {})[line["phase"]] = float(line["center"])
    return {place: (phases["before"], phases["after"]) for place, phases in centers.items()}
