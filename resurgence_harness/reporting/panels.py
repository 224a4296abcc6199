"""Figures of one panel per cell: the per cent of images that show a concept, with intervals and the cell's limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurgence_harness.reporting.palette import COLOURS, INK, PALE, PAPER

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cell = Mapping[str, Any]
"""A cell's object in verdict.json."""


def level_of(cell: Cell) -> float | None:
    """The policy's level limit; None for a cell that was not compared with it."""
    return next((float(one["limit"]) for one in cell["findings"] if one["name"] == "level"), None)


def figure(
    cells: Sequence[Cell],
    draw: Callable[[Axes, Cell], None],
    *,
    columns: int,
    size: tuple[float, float],
    labels: tuple[str, str],
    legend: Sequence[Artist],
) -> Figure:
    """A panel per cell in `columns` at most, each of `size` inches, with common labels of the x and the y axis."""
    from matplotlib.figure import Figure

    across = min(len(cells), columns)
    down = -(-len(cells) // across)
    drawn = Figure(figsize=(max(size[0] * across, 6.2), size[1] * down + 0.5), layout="constrained")
    panels = drawn.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(cells) :]:
        panel.set_axis_off()
    for panel, cell in zip(panels.flat, cells, strict=False):
        draw(panel, cell)
        panel.set_title(f"{cell['task']}, {cell['id']}: {cell['verdict']}", fontsize=10, color=INK, loc="left")
        _per_cent(panel)
    drawn.supxlabel(labels[0], fontsize=9.5, color=INK)
    drawn.supylabel(labels[1], fontsize=9.5, color=INK)
    drawn.legend(handles=list(legend), loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)
    return drawn


def erased_rate(axes: Axes, places: Sequence[float], rates: Sequence[Mapping[str, Any]], cell: Cell) -> None:
    """The rates with their intervals, in the colour of the cell's verdict, and the level limit."""
    colour, level = COLOURS[cell["verdict"]], level_of(cell)
    low, rate, high = ([100 * one[name] for one in rates] for name in ("low", "rate", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(places, rate, color=colour, linewidth=1.6, marker="D", markersize=5, clip_on=False, zorder=3)
    if level is not None:
        axes.axhline(100 * level, color=INK, linewidth=1.2, linestyle=":")


def legend(rate: str, *others: Artist) -> list[Artist]:
    """The legend of `erased_rate`, with other lines between the interval and the limit."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=PALE, linewidth=1.6, marker="D", markersize=5, label=rate),
        Line2D([], [], color=PALE, linewidth=7, alpha=0.35, label="its interval"),
        *others,
        Line2D([], [], color=INK, linewidth=1.2, linestyle=":", label="limit"),
    ]


def _per_cent(axes: Axes) -> None:
    axes.set_ylim(-2, 102)
    axes.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axes.grid(axis="y", color="#d8d8d4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
