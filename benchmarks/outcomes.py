"""What seven methods do on the microworld, as one table and one figure beside the paper's.

    pytest suites/celebrity -n 4 --resurgence-profile full --resurgence-runs 3 --resurgence-finetune lora,full
    python -m benchmarks.reference reports/out/verdict.json --to reports/microworld/seven.csv
    python -m benchmarks.outcomes --to reports/microworld/outcomes.csv --figure docs/outcomes.png

A rate is hits over all images, as the product's. The table has medians over runs, the lowest and the highest run, and
the exact 95 % interval of all runs' images together. The rank correlation (Spearman) over methods is that of the rates
after fine-tuning, and of their rise, with the paper's Table 1 (celebrity, SD v1.4) and with the authors' raw data for
ten names, over the methods that both have.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

REPORTS = Path(__file__).parents[1] / "reports"
PUBLISHED = Path(__file__).parents[1] / "resurgence_harness" / "experiments" / "published"
METHODS = {
    "uce": "UCE",
    "mace": "MACE",
    "erasediff": "EraseDiff",
    "salun": "SalUn",
    "shs": "SHS",
    "esd": "ESD",
    "sdd": "SDD",
}
"""Words of the suite, and the paper's; least resurgence first."""
COUNTS = (1, 5, 10, 100)
STATES = {"before": "before", "lora": "after LoRA", "full": "after full fine-tuning"}
COLORS = {"before": "white", "lora": "#e08a1e", "full": "#b3261e"}


class Outcome(NamedTuple):
    """One method × count × state."""

    method: str
    concepts: int
    state: str
    """A word of STATES."""
    runs: int
    erased: float
    """Median over runs of the share of images that show the erased concept."""
    lowest: float
    highest: float
    low: float
    high: float
    """Exact 95 % interval of all runs' images together."""
    retained: float
    """Median over runs of the same share for held-out retained concepts, over the base's."""


def outcomes(table: Iterable[dict[str, str]]) -> list[Outcome]:
    """The summary of a table of runs as benchmarks.reference writes it."""
    rows = list(table)
    found: list[Outcome] = []
    for method in METHODS:
        for count in COUNTS:
            of_cell = [row for row in rows if row["method"] == method and int(row["concepts"]) == count]
            for state in STATES:
                arm = "before" if state == "before" else "after"
                # Every fine-tuning's row tells of the same unlearned model: one of them is enough.
                runs = {row["run"]: row for row in of_cell if state in ("before", row["finetuning"])}
                if runs:
                    found.append(outcome(method, count, state, list(runs.values()), arm))
    return found


def outcome(method: str, count: int, state: str, runs: list[dict[str, str]], arm: str) -> Outcome:
    """One of them."""
    from scipy.stats import binomtest

    erased = [share(run, arm) for run in runs]
    hits, images = (sum(part) for part in zip(*(counts(run, arm) for run in runs), strict=True))
    interval = binomtest(hits, images).proportion_ci(0.95, method="exact")
    retained = [share(run, f"retained_{arm}") / share(run, "base_retained") for run in runs]
    return Outcome(
        method,
        count,
        state,
        len(runs),
        median(erased),
        min(erased),
        max(erased),
        float(interval.low),
        float(interval.high),
        median(retained),
    )


def counts(run: dict[str, str], arm: str) -> tuple[int, int]:
    """Hits and images of one arm."""
    return int(run[f"{arm} hits"]), int(run[f"{arm} judged"]) + int(run[f"{arm} abstained"])


def share(run: dict[str, str], arm: str) -> float:
    """Hits over images."""
    hits, images = counts(run, arm)
    return hits / images


def paper() -> dict[str, tuple[float, float]]:
    """Before and after of the celebrity task in Table 1, by the suite's word."""
    table = list(csv.DictReader((PUBLISHED / "table1.csv").open()))
    rates = {(row["method"], row["phase"]): float(row["center"]) for row in table if row["task"] == "celebrity"}
    return {word: (rates[name, "before"], rates[name, "after"]) for word, name in METHODS.items()}


def authors(count: int) -> dict[str, tuple[float, float]]:
    """Medians of the authors' raw accuracies on SD v1.4, before and after fine-tuning on random celebrities."""
    table = list(csv.DictReader((PUBLISHED / "authors_raw_gcd.csv").open()))
    found = {}
    for word, name in METHODS.items():
        mine = [row for row in table if (row["method"], row["sd_model"]) == (name, "SD14")]
        mine = [row for row in mine if row["erase_config"] == f"cele_{count}" and row["erased_acc"]]
        before = [float(row["erased_acc"]) for row in mine if row["ft_algo"] == "none"]
        after = [float(row["erased_acc"]) for row in mine if row["ft_data"] == "celebrity_random"]
        if before and after:
            found[word] = (median(before), median(after))
    return found


def correlation(ours: dict[str, float], theirs: dict[str, float]) -> str:
    """Spearman's ρ over the methods that both have."""
    from scipy.stats import spearmanr

    shared = [word for word in METHODS if word in ours and word in theirs]
    rho, p = spearmanr([ours[word] for word in shared], [theirs[word] for word in shared])
    return f"{rho:+.2f} (p {p:.2g}, {len(shared)} methods)"


def correlations(found: list[Outcome]) -> list[str]:
    """A line for each of our columns against each of theirs."""
    lines = []
    for title, theirs in (("Table 1", paper()), ("raw data, 10 names", authors(10))):
        for count in COUNTS:
            for state in ("lora", "full"):
                before, after = (
                    {o.method: o.erased for o in found if (o.concepts, o.state) == (count, word)}
                    for word in ("before", state)
                )
                rise = {word: after[word] - before[word] for word in after}
                their_after = {word: pair[1] for word, pair in theirs.items()}
                their_rise = {word: pair[1] - pair[0] for word, pair in theirs.items()}
                lines.append(
                    f"{title}: {count} names, {state}: after {correlation(after, their_after)}, "
                    f"rise {correlation(rise, their_rise)}"
                )
    return lines


def draw(found: list[Outcome], file: Path) -> None:
    """A panel for each count, one for Table 1, one for the authors' raw data; methods from top to bottom."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    places = {word: place for place, word in enumerate(METHODS)}
    figure, axes = plt.subplots(1, 6, figsize=(15, 3.8), sharey=True, layout="constrained")
    for axis, count in zip(axes, COUNTS, strict=False):
        axis.set_title(f"microworld, {count} name{'s' * (count > 1)}", fontsize=10)
        for word, place in places.items():
            of_cell = {o.state: o for o in found if (o.method, o.concepts) == (word, count)}
            for offset, state in zip((0.0, -0.16, 0.16), STATES, strict=True):
                if state in of_cell:
                    mark(axis, of_cell[state], place + offset, state)
            if "before" in of_cell and of_cell["before"].retained < 0.85:
                axis.axhspan(place - 0.42, place + 0.42, color="#eeeeee", zorder=0)
    for axis, (title, theirs) in zip(
        axes[4:], (("paper, Table 1", paper()), ("authors' raw data, 10 names", authors(10))), strict=True
    ):
        axis.set_title(title, fontsize=10)
        for word, (before, after) in theirs.items():
            axis.plot([100 * before, 100 * after], [places[word]] * 2, color="#999999", lw=1.2, zorder=1)
            axis.scatter(100 * after, places[word], s=34, color="#555555", edgecolor="black", lw=0.6, zorder=3)
            axis.scatter(100 * before, places[word], s=34, color="white", edgecolor="black", lw=0.9, zorder=2)
    for axis in axes:
        axis.set_xlim(-4, 104)
        axis.set_xticks([0, 25, 50, 75, 100])
        axis.grid(axis="x", color="#dddddd", lw=0.6)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(list(places.values()), [METHODS[word] for word in places])
    axes[0].invert_yaxis()
    handles = [
        axes[0].scatter([], [], s=34, color=COLORS[state], edgecolor="black", lw=0.8, label=text)
        for state, text in STATES.items()
    ]
    handles.append(
        axes[0].scatter([], [], s=34, color="#555555", edgecolor="black", lw=0.6, label="the paper's, after")
    )
    handles.append(Rectangle((0, 0), 1, 1, color="#eeeeee", label="unlearning lost over 15 % of retained people"))
    figure.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=9, frameon=False)
    figure.supxlabel("images that show an erased person, %   (median and range of three runs)", fontsize=9)
    figure.savefig(file, dpi=110)


def mark(axis: Any, o: Outcome, place: float, state: str) -> None:
    """One point with its range over runs."""
    axis.plot([100 * o.lowest, 100 * o.highest], [place] * 2, color="#777777", lw=1.4, zorder=1)
    axis.scatter(100 * o.erased, place, s=30, color=COLORS[state], edgecolor="black", lw=0.7, zorder=2)


def main() -> None:
    """Table, figure, and the correlations on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=REPORTS / "microworld" / "seven.csv")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--figure", type=Path, required=True)
    args = parser.parse_args()
    with args.runs.open() as file:
        found = outcomes(csv.DictReader(file))
    with args.to.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Outcome._fields)
        table.writerows([f"{part:.4f}" if isinstance(part, float) else part for part in o] for o in found)
    draw(found, args.figure)
    print(*correlations(found), sep="\n")


if __name__ == "__main__":
    main()
