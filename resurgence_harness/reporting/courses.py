"""The erased rate of a cell against the step of its fine-tuning, with intervals.

A point is a checkpoint of the fine-tuning, sampled with the same prompts and seeds as the final model. The lines
between points guide the eye; the band is each point's own interval. A limit that is shown to be passed at one of the
points, with alpha shared over all of them (`statistics.along_steps`), makes the cell VIOLATED.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurgence_harness.reporting import pages
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.reporting.palette import COLOURS, INK, PALE, PAPER, save
from resurgence_harness.statistics.formatting import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = Mapping[str, Any]
"""A cell's object in verdict.json."""
PANELS = 6
"""Cells per figure; more cells make further figures."""
_BASE = (0, (5, 3))
"""Dashes of the base's line."""


def figure(cells: Sequence[Cell]) -> Figure:
    """A panel per cell: steps on the x axis, per cent of images on the y axis."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    across = min(len(cells), 3)
    down = -(-len(cells) // across)
    drawn = Figure(figsize=(max(3.4 * across, 6.2), 3.1 * down + 0.4), layout="constrained")
    panels = drawn.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(cells) :]:
        panel.set_axis_off()
    for panel, cell in zip(panels.flat, cells, strict=False):
        _draw(panel, cell)
        panel.set_title(f"{cell['task']}, {cell['id']}: {cell['verdict']}", fontsize=10, color=INK, loc="left")
    drawn.supxlabel("steps of fine-tuning, logarithmic (0: the unlearned model)", fontsize=9.5, color=INK)
    drawn.supylabel("erased concept seen (% of all images)", fontsize=9.5, color=INK)
    legend = [
        Line2D([], [], color=PALE, linewidth=1.6, marker="D", markersize=5, label="erased rate"),
        Line2D([], [], color=PALE, linewidth=7, alpha=0.35, label="its interval"),
        Line2D([], [], color=PALE, linewidth=1.2, linestyle=_BASE, label="base"),
        Line2D([], [], color=INK, linewidth=1.2, linestyle=":", label="limit"),
    ]
    drawn.legend(handles=legend, loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    return drawn


def section(cell: Cell) -> str:
    """The part of a cell's page about its steps: the figure and its numbers; empty if none were requested."""
    if not cell["by_step"]:
        return ""
    out = io.BytesIO()
    save(figure([cell]), out, kind="svg")
    title = "Along the fine-tuning"
    rows = [
        (
            one["step"] or "0 (unlearned)",
            percent(one["rate"]),
            f"{percent(one['low'])} to {percent(one['high'])}",
            one["hits"],
            one["judged"] + one["abstained"],
            one["abstained"],
        )
        for one in cell["by_step"]
    ]
    sides = f"{100 * (1 - 2 * cell['alpha']):g} %"
    return (
        pages.heading(title)
        + pages.picture(out.getvalue(), about=title, covered=False, kind="image/svg+xml")
        + pages.table(["steps done", "erased rate", f"{sides} interval", "hits", "images", "abstained"], rows)
        + f'<p class="dim">{_result(cell)}</p>'
    )


def _result(cell: Cell) -> str:
    """The result over all steps."""
    if not cell.get("along"):  # a verdict.json of an earlier version
        return "The verdict is about the last step; the others are shown for information only."
    text = cell["along"]["sentence"]
    return escape(f"{text[:1].upper()}{text[1:]}. The intervals above are not widened for the number of steps.")


def _draw(axes: Axes, cell: Cell) -> None:
    points, colour = cell["by_step"], COLOURS[cell["verdict"]]
    steps = [one["step"] for one in points]
    low, rate, high = ([100 * one[name] for one in points] for name in ("low", "rate", "high"))
    axes.fill_between(steps, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(steps, rate, color=colour, linewidth=1.6, marker="D", markersize=5, clip_on=False, zorder=3)
    if cell["base"] is not None:
        axes.axhline(100 * cell["base"]["rate"], color=PALE, linewidth=1.2, linestyle=_BASE)
    level = next((one["limit"] for one in cell["findings"] if one["name"] == "level"), None)
    if level is not None:
        axes.axhline(100 * level, color=INK, linewidth=1.2, linestyle=":")
    axes.set_xscale("symlog", linthresh=min(step for step in steps if step), linscale=0.5)
    axes.set_xticks(steps, [str(step) for step in steps], fontsize=8.5, color=INK)
    axes.set_xticks([], minor=True)
    axes.set_xlim(0, steps[-1] * 1.08)
    axes.set_ylim(-2, 102)
    axes.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axes.grid(axis="y", color="#d8d8d4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
