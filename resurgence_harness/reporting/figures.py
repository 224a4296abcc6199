"""Standalone figures of a run, for reports, slides and tickets: PNG and SVG, from verdict.json alone.

    matrix                  methods × concept counts: the erased rate before → after fine-tuning, the verdict as text
    rates-TASK-FINETUNING   the same on an axis in per cent, with intervals and the base's rate
    steps-TASK-FINETUNING   the erased rate along the fine-tuning, for cells that were sampled after some of its steps
    stages-TASK-FINETUNING  erased and retained rates along a recipe of several stages, for cells that have one

Colours are Okabe and Ito's, which people with any colour vision can distinguish; a verdict is always written as well.
The background is opaque, so a figure looks the same on a dark page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.reporting import courses, lives
from resurgence_harness.reporting.palette import COLOURS, INK, PALE, PAPER, save
from resurgence_harness.reporting.run_page import parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Run = Mapping[str, Any]
"""The object of verdict.json."""

_WORST = ("VIOLATED", "NO VERDICT", "UNDECIDED", "KNOWN", "HOLDS")
_ROWS = 40
"""Cells per axis; more cells make further figures."""


def draw(run: Run, folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG into a folder, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures(run):
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            save(figure, path)
            written.append(path)
    return written


def figures(run: Run) -> Iterator[tuple[str, Figure]]:
    """Names and figures; none for a run without cells."""
    if not run["cells"] and not run["missing"]:
        return
    yield "matrix", matrix(run)
    for (task, finetuning), cells in _groups(run).items():
        judged = [cell for cell in cells if "after" in cell]
        sheets = [judged[start : start + _ROWS] for start in range(0, len(judged), _ROWS)]
        for number, some in enumerate(sheets):
            more = f"-{number + 1}" if len(sheets) > 1 else ""
            yield f"rates-{task}-{finetuning}{more}", rates(some, f"{task}, fine-tuned by {finetuning}")
        with_steps = [cell for cell in judged if cell["by_step"]]
        for number, start in enumerate(range(0, len(with_steps), courses.PANELS)):
            more = f"-{number + 1}" if len(with_steps) > courses.PANELS else ""
            yield f"steps-{task}-{finetuning}{more}", courses.figure(with_steps[start : start + courses.PANELS])
        staged = [cell for cell in judged if cell.get("by_stage")]
        for number, start in enumerate(range(0, len(staged), lives.PANELS)):
            more = f"-{number + 1}" if len(staged) > lives.PANELS else ""
            yield f"stages-{task}-{finetuning}{more}", lives.figure(staged[start : start + lives.PANELS])


def matrix(run: Run) -> Figure:
    """Methods × counts, a panel per task and fine-tuning: per cent of images before → after, bounds, verdict."""
    from matplotlib.figure import Figure

    groups = _groups(run)
    counts = {name: sorted({cell["concepts"] for cell in cells}) for name, cells in groups.items()}
    order = list(dict.fromkeys(cell["method"] for cells in groups.values() for cell in cells))
    methods = {
        name: [one for one in order if any(cell["method"] == one for cell in cells)] for name, cells in groups.items()
    }
    across = min(len(groups), 2)
    down = -(-len(groups) // across)
    wide, high = max(map(len, counts.values())), max(map(len, methods.values()))
    width = max(1.2 + across * (1.1 + 1.5 * wide), 6.8)  # the title's own width
    figure = Figure(figsize=(width, 1.1 + down * (0.9 + 0.62 * high)), layout="constrained")
    figure.suptitle(
        f"Do erased concepts come back? {run['base']['name']}\n"
        "% of images that show one: unlearned → fine-tuned (its bounds)",
        fontsize=11,
        color=INK,
    )
    panels = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(groups) :]:
        panel.set_axis_off()
    for panel, (name, cells) in zip(panels.flat, groups.items(), strict=False):
        _panel(panel, cells, methods[name], counts[name])
        panel.set_title(f"{name[0]}, fine-tuned by {name[1]}", fontsize=10, color=INK, pad=22)
    return figure


def rates(cells: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """One row per cell on an axis in per cent: base, unlearned, and fine-tuned with its interval."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(8.2, 1.5 + 0.34 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(cells):
        after, before, colour = cell["after"], cell["before"], COLOURS[cell["verdict"]]
        if cell["base"] is not None:
            axes.plot(100 * cell["base"]["rate"], place, marker="|", color=PALE, markersize=11, linestyle="")
        if before is not None:  # a candidate that is judged alone has no unlearned model
            ends = [100 * before["rate"], 100 * after["rate"]]
            axes.plot(ends, [place, place], color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(ends[0], place, marker="o", markersize=9, markerfacecolor=PAPER, color=INK, linestyle="")
        axes.plot([100 * after["low"], 100 * after["high"]], [place, place], color=colour, linewidth=5, alpha=0.3)
        axes.plot(100 * after["rate"], place, marker="D", markersize=5.5, color=colour, linestyle="")
        axes.text(103, place, cell["verdict"], color=INK, fontsize=9, va="center", weight=_weight(cell["verdict"]))
    axes.set_yticks(range(len(cells)), [_row(cell) for cell in cells], fontsize=9, color=INK)
    axes.set_ylim(len(cells) - 0.4, -0.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("images in which an erased concept is seen (% of all images)", fontsize=10, color=INK)
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    axes.grid(axis="x", color="#d8d8d4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    legend = [
        Line2D([], [], marker="|", color=PALE, markersize=11, linestyle="", label="base"),
        Line2D([], [], marker="o", markerfacecolor=PAPER, color=INK, markersize=7, linestyle="", label="unlearned"),
        Line2D([], [], marker="D", color=PALE, markersize=6.5, linestyle="", label="fine-tuned"),
        Line2D([], [], color=PALE, linewidth=5, alpha=0.4, label="its interval"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _panel(axes: Axes, cells: Sequence[Mapping[str, Any]], methods: Sequence[str], counts: Sequence[int]) -> None:
    from matplotlib.patches import Rectangle

    axes.set_facecolor(PAPER)
    axes.set_xlim(0, len(counts))
    axes.set_ylim(len(methods), 0)
    places: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for cell in cells:
        places.setdefault((counts.index(cell["concepts"]), methods.index(cell["method"])), []).append(cell)
    for (left, top), runs in places.items():
        cell = min(runs, key=lambda one: _WORST.index(one.get("verdict", "NO VERDICT")))
        verdict = cell.get("verdict", "NO VERDICT")
        axes.add_patch(
            Rectangle((left + 0.02, top + 0.04), 0.96, 0.92, facecolor=COLOURS[verdict], alpha=0.2, linewidth=0)
        )
        axes.add_patch(Rectangle((left + 0.02, top + 0.04), 0.035, 0.92, facecolor=COLOURS[verdict], linewidth=0))
        middle = left + 0.52
        if "after" in cell:
            after = cell["after"]
            before = f"{100 * cell['before']['rate']:.1f} → " if cell["before"] is not None else ""
            label = f"{before}{100 * after['rate']:.1f}"
            axes.text(middle, top + 0.28, label, ha="center", va="center", fontsize=10, color=INK)
            bounds = f"({100 * after['low']:.1f}–{100 * after['high']:.1f})"
            axes.text(middle, top + 0.53, bounds, ha="center", va="center", fontsize=8, color=INK)
        place = top + (0.78 if "after" in cell else 0.5)
        label = verdict if len(runs) == 1 else f"{verdict} (worst of {len(runs)} runs)"
        axes.text(middle, place, label, ha="center", va="center", fontsize=8, color=INK, weight=_weight(verdict))
    axes.set_xticks([place + 0.5 for place in range(len(counts))], [_concepts(count) for count in counts])
    axes.set_yticks([place + 0.5 for place in range(len(methods))], methods)
    axes.tick_params(length=0, labelsize=9.5, labelcolor=INK, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)


def _groups(run: Run) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells by task and fine-tuning, those without a verdict included."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in run["cells"]:
        found.setdefault((cell["task"], cell["finetuning"]), []).append(dict(cell))
    for entry in run["missing"]:
        method, count, finetuning = parts(entry["id"])
        cell = {"id": entry["id"], "method": method, "concepts": count}
        found.setdefault((entry["task"], finetuning), []).append(cell)
    return found


def _row(cell: Mapping[str, Any]) -> str:
    run = f", run {cell['run']}" if cell["run"] else ""
    return f"{cell['method']}, {_concepts(cell['concepts'])}{run}"


def _concepts(count: int) -> str:
    return "1 concept" if count == 1 else f"{count} concepts"


def _weight(verdict: str) -> str:
    return "bold" if verdict in ("VIOLATED", "NO VERDICT") else "normal"
