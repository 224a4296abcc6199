"""The erased rate of a cell against the step of its fine-tuning, with intervals.

A point is a checkpoint of the fine-tuning, sampled with the same prompts and seeds as the final model. The lines
between points guide the eye; the band is each point's own interval. A limit that is shown to be passed at one of the
points, with alpha shared over all of them (`statistics.along_steps`), makes the cell VIOLATED.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resurgence_harness.reporting import pages, panels
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.reporting.palette import INK, PALE, save
from resurgence_harness.reporting.panels import Cell
from resurgence_harness.statistics.formatting import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 6
"""Cells per figure; more cells make further figures."""
_BASE = (0, (5, 3))
"""Dashes of the base's line."""


def figure(cells: Sequence[Cell]) -> Figure:
    """A panel per cell: steps on the x axis, per cent of images on the y axis."""
    from matplotlib.lines import Line2D

    return panels.figure(
        cells,
        _draw,
        columns=3,
        size=(3.4, 3.1),
        labels=("steps of fine-tuning, logarithmic (0: the unlearned model)", "erased concept seen (% of all images)"),
        legend=panels.legend("erased rate", Line2D([], [], color=PALE, linewidth=1.2, linestyle=_BASE, label="base")),
    )


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
    points = cell["by_step"]
    steps = [one["step"] for one in points]
    panels.erased_rate(axes, steps, points, cell)
    if cell["base"] is not None:
        axes.axhline(100 * cell["base"]["rate"], color=PALE, linewidth=1.2, linestyle=_BASE)
    axes.set_xscale("symlog", linthresh=min(step for step in steps if step), linscale=0.5)
    axes.set_xticks(steps, [str(step) for step in steps], fontsize=8.5, color=INK)
    axes.set_xticks([], minor=True)
    axes.set_xlim(0, steps[-1] * 1.08)
