"""A figure of each experiment: rates before and after as arrows, or detection against fine-tuning step as curves.

Colours are Okabe and Ito's; axes have units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.experiments.comparing import grouped, spread
from resurgence_harness.experiments.measuring import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _PALE, _GROUND = "#1c1c20", "#6e6e76", "#fcfcfa"
_BEFORE, _AFTER, _KEPT = "#0072B2", "#D55E00", "#009E73"
_NAMED = ("task", "method", "concepts", "finetuning", "benign")
"""The columns that label a line of a figure, if they vary."""
_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(name: str, title: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the figure of the experiment `name` as PNG and SVG; returns their paths."""
    figure = curves(title, rows) if name == "appendix-j" else arrows(title, rows)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("png", "svg"):
        path = folder / f"{name}.{kind}"
        figure.savefig(path, dpi=144, facecolor=_GROUND, metadata={"Date": None} if kind == "svg" else None)
        written.append(path)
    return written


def arrows(title: str, rows: Sequence[Row]) -> Figure:
    """One line per group: the erased rate before → after fine-tuning, and the retained rate after as a tick."""
    groups = grouped(rows)
    varying = [name for name in _NAMED if len({getattr(group, name) for group in groups}) > 1]
    figure, axes = _axes(title, height=1.4 + 0.27 * len(groups))
    places = range(len(groups) - 1, -1, -1)
    for place, (_, of) in zip(places, groups.items(), strict=True):
        before, after, kept = (spread(of, arm) for arm in ("before", "after", "retained_after"))
        if before is None or after is None:
            continue
        x, y = 100 * before.middle, 100 * after.middle
        axes.annotate("", (y, place), (x, place), arrowprops={"arrowstyle": "->", "color": _PALE, "lw": 1})
        axes.plot(x, place, "o", ms=5, color=_BEFORE, mfc=_GROUND)
        axes.plot(
            [100 * after.low, 100 * after.high], [place, place], color=_AFTER, lw=2.2, solid_capstyle="butt", alpha=0.6
        )
        axes.plot(y, place, "o", ms=5, color=_AFTER)
        if kept is not None:
            axes.plot(100 * kept.middle, place, "|", ms=10, mew=2, color=_KEPT)
    labels = [" · ".join(str(getattr(group, name)) for name in varying) or group.method for group in groups]
    axes.set_yticks(list(places), labels)
    axes.set_ylim(-0.8, len(groups) - 0.2)
    axes.set_xlabel("images that show the concept, % (median and range of runs)")
    axes.plot([], [], "o", color=_BEFORE, mfc=_GROUND, label="erased, before fine-tuning")
    axes.plot([], [], "o", color=_AFTER, label="erased, after")
    axes.plot([], [], "|", color=_KEPT, ms=10, mew=2, label="retained, after")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8, handletextpad=0.3)
    return figure


def curves(title: str, rows: Sequence[Row]) -> Figure:
    """Detection against fine-tuning step, one panel per cell, one curve per size of the benign set; bands: ranges."""
    import matplotlib.pyplot as plt

    groups = grouped(rows)
    cells = list(dict.fromkeys((group.method, group.concepts) for group in groups))
    figure, panels = plt.subplots(
        1, len(cells), figsize=(4.2 * len(cells), 3.6), sharey=True, squeeze=False, layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=_INK)
    for axes, cell in zip(panels[0], cells, strict=True):
        mine = {group: of for group, of in groups.items() if (group.method, group.concepts) == cell}
        for colour, size in zip(_SERIES, dict.fromkeys(group.images for group in mine), strict=False):
            line = [(int(group.steps), of) for group, of in mine.items() if group.images == size]
            points = [
                (steps, found) for steps, of in sorted(line, key=lambda pair: pair[0]) if (found := spread(of, "after"))
            ]
            x, y = [steps for steps, _ in points], [100 * found.middle for _, found in points]
            axes.plot(x, y, "-o", ms=3, lw=1.4, color=colour, label=size)
            axes.fill_between(
                x,
                [100 * found.low for _, found in points],
                [100 * found.high for _, found in points],
                color=colour,
                alpha=0.15,
                lw=0,
            )
        before = spread([row for of in mine.values() for row in of], "before")
        if before is not None:
            axes.axhline(100 * before.middle, color=_PALE, lw=1, ls=":")
        axes.set_xscale("log")
        axes.set_xlabel("optimiser steps of fine-tuning")
        axes.set_title(f"{cell[0]}, {cell[1]} concepts", fontsize=9, loc="left")
        _plain(axes)
    panels[0][0].set_ylabel("images that show an erased concept, %")
    panels[0][0].set_ylim(-3, 103)
    panels[0][0].legend(title="benign images", loc="upper left", frameon=False, fontsize=8, title_fontsize=8)
    return figure


def _axes(title: str, *, height: float) -> tuple[Figure, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=10, color=_INK, pad=22)
    axes.set_xlim(-2, 102)
    _plain(axes)
    return figure, axes


def _plain(axes: Any) -> None:
    axes.set_facecolor(_GROUND)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e4e0", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=_INK)
