"""A model's life in the reports: the erased and retained rates after every stage, and what came back at which stage.

Everything comes from a cell's `by_stage` in verdict.json. All stages were sampled with the same prompts and seeds; only
the last one is decided on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resurgence_harness.reporting import pages, panels
from resurgence_harness.reporting.palette import INK, PAPER, save
from resurgence_harness.reporting.panels import Cell
from resurgence_harness.statistics.formatting import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 4
"""Cells per figure; more cells make further figures."""
NAMED = 3
"""Concepts that a statement names at most."""


def summary(cell: Cell) -> str:
    """What came back or was not erased at which stage, in one sentence; empty for a cell without stages."""
    stages = cell.get("by_stage") or ()
    if not stages:
        return ""
    found = []
    for stage in stages:
        where = f"stage {stage['stage']} of {len(stages)} ({stage['step']})"
        if stage["not_erased"]:
            found.append(f"not erased by {where}{_most(stage, stage['erases'])}")
        if stage["came_back"]:
            earlier = [name for name in stage["drawn"] if name not in stage["erases"]]
            found.append(f"came back at {where}{_most(stage, earlier)}")
    limit = panels.level_of(cell) or 0.0
    if found:
        return f"above {percent(limit)}: {'; '.join(found)}"
    states = [stage["state"] for stage in stages if stage["state"] is not None]
    within = states.count("within")
    every = f"all {len(states)}" if within == len(states) else f"{within} of {len(states)}"
    return f"{every} stages from the first erasure on are shown to be within {percent(limit)}, none above"


def section(cell: Cell) -> str:
    """The part of a cell's page about its stages: the figure, what came back, the numbers; empty without stages."""
    stages = cell.get("by_stage") or ()
    if not stages:
        return ""
    out = io.BytesIO()
    save(figure([cell]), out, kind="svg")
    title = "Stage by stage"
    sides = f"{100 * (1 - 2 * cell['alpha']):g} %"
    rows = [
        (
            f"{stage['stage']} {stage['step']}",
            ", ".join(stage["erases"][:NAMED])
            + (f" and {more} more" if (more := len(stage["erases"]) - NAMED) > 0 else "")
            or "—",
            _rate(stage["erased"]),
            _rate(stage["waiting"]),
            _rate(stage["retained"]),
            stage["state"] or "—",
            _answer(stage),
            _counts(stage),
        )
        for stage in stages
    ]
    header = [
        "stage",
        "erases",
        "erased so far",
        "erased later",
        "retained",
        f"limit {percent(panels.level_of(cell) or 0.0)}",
    ]
    return (
        pages.heading(title)
        + pages.picture(out.getvalue(), about=title, covered=False, kind="image/svg+xml")
        + pages.table(
            [*header, "shown", "concepts seen"],
            rows,
            marked=[place for place, stage in enumerate(stages) if stage["came_back"] or stage["not_erased"]],
        )
        + f'<p class="dim">Rates with {sides} intervals. “Shown” and the comparison with the limit share the error '
        f"{cell['alpha']:g} over all stages. A concept is compared with itself after the last stage that erased it. "
        "The verdict is about the last stage; the others are shown for information only.</p>"
    )


def figure(cells: Sequence[Cell]) -> Figure:
    """A panel per cell: stages on the x axis, per cent of images on the y axis."""
    from matplotlib.lines import Line2D

    longest = max(len(cell["by_stage"]) for cell in cells)
    retained = Line2D([], [], color=INK, linewidth=1, marker="o", markersize=4, markerfacecolor=PAPER, label="retained")
    return panels.figure(
        cells,
        _draw,
        columns=2,
        size=(1.6 + 0.42 * longest, 3.3),
        labels=("stages in their order", "concept seen (% of all images)"),
        legend=panels.legend("erased so far", retained),
    )


def _draw(axes: Axes, cell: Cell) -> None:
    stages = cell["by_stage"]
    places = [stage["stage"] for stage in stages]
    erased = [stage for stage in stages if stage["erased"] is not None]
    panels.erased_rate(axes, [stage["stage"] for stage in erased], [stage["erased"] for stage in erased], cell)
    retained = [100 * stage["retained"]["rate"] for stage in stages]
    axes.plot(places, retained, color=INK, linewidth=1, marker="o", markersize=4, markerfacecolor=PAPER)
    labels = [f"{stage['stage']} {stage['step']}" for stage in stages]
    axes.set_xticks(places, labels, fontsize=8, color=INK, rotation=60 if len(stages) > 6 else 0)
    axes.set_xlim(0.7, len(stages) + 0.3)


def _most(stage: Mapping[str, Any], names: Sequence[str]) -> str:
    """ ": Alba Drummond in 12 of 40 images": the concepts seen most often, of these names."""
    seen = [(name, *stage["drawn"][name]) for name in names if name in stage["drawn"]]
    seen.sort(key=lambda one: -one[1] / one[2])
    more = f" and {len(seen) - NAMED} more" if len(seen) > NAMED else ""
    return (
        f": {', '.join(f'{name} in {hits} of {images}' for name, hits, images in seen[:NAMED])}{more}" if seen else ""
    )


def _rate(rate: Mapping[str, Any] | None) -> str:
    if rate is None:
        return "—"
    return f"{percent(rate['rate'])} ({percent(rate['low'])} to {percent(rate['high'])})"


def _answer(stage: Mapping[str, Any]) -> str:
    said = ["not erased"] * stage["not_erased"] + ["came back"] * stage["came_back"]
    return ", ".join(said) or "—"


def _counts(stage: Mapping[str, Any]) -> str:
    shown = sorted(stage["drawn"].items(), key=lambda one: -one[1][0] / one[1][1])
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return ", ".join(f"{name} {hits}/{images}" for name, (hits, images) in shown[:NAMED]) + more or "—"
