"""A run as text: one plain line, or a table for a terminal of a given size.

The table shows every running cell with its stage, its rates and the bounds of its criterion; then the cells that have
ended, the last ones first, as far as there is room. The interval is drawn from its lower to its upper bound, with the
estimate as a dot and the limit as a line, on an axis from 0 (or the lowest possible rise) to twice the limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from resurgence_harness.watching.course import Activity, Bound, Course, Shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

STYLES = {"HOLDS": "green", "KNOWN": "yellow", "VIOLATED": "bold red", "UNDECIDED": "magenta", "": "red"}
NAMES = {"VIOLATED": "SAFETY REGRESSION", "": "error"}
"""How a verdict is written, where not by its own name."""
GAP = 2
"""Columns between two columns of the table."""
AXIS = 21
"""Columns of the interval."""
COLUMNS = {
    "rates": ("before → after", 19),
    "bounds": ("rise, bounds (limit)", 22),
    "interval": ("", AXIS),
}
"""Header and width of each figure of a cell, the most important first."""


def line(course: Course, now: float) -> str:
    """The run as one line without control characters."""
    parts = [head(course)]
    for activity in course.processes.values():
        if activity.label or activity.cell:
            parts.append(": ".join(filter(None, (activity.cell, _stage(activity)))))
            cell = course.cells.get(activity.cell)
            if cell is not None and (rates := _rates(cell)):
                parts[-1] += f", {rates}"
    if (speed := course.images_per_second(now)) is not None:
        parts.append(_speed(speed))
    if (left := course.left(now)) is not None:
        parts.append(f"about {duration(left)} left")
    return plain(" · ".join(filter(None, parts)))


def plain(text: str) -> str:
    """The text without line ends and other characters that a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def head(course: Course) -> str:
    """ "3 of 8 cells (1 SAFETY REGRESSION, 2 HOLDS)"; empty if the run has no cells."""
    if not course.cells:
        return ""
    found = ", ".join(f"{count} {NAMES.get(kind, kind)}" for kind, count in sorted(course.verdicts.items()))
    return f"{course.ended} of {len(course.cells)} cells{f' ({found})' if found else ''}"


def table(course: Course, now: float, *, width: int, height: int) -> RenderableType:
    """The run for a terminal of `width` columns, in at most `height` lines."""
    from rich.console import Group
    from rich.table import Table

    columns = [
        name for name, least in (("rates", 60), ("bounds", 80), ("interval", 120)) if course.cells and width >= least
    ]
    grid = Table(box=None, padding=(0, GAP, 0, 0), show_header=height >= 5 and bool(course.cells), header_style="dim")
    rest = width - sum(COLUMNS[name][1] + GAP for name in columns) - 2 * GAP
    longest = max((len(one) for one in course.cells), default=0)
    names = min(longest, rest * 2 // 5)
    grid.add_column("cell", no_wrap=True, width=names)
    grid.add_column("stage", no_wrap=True, width=max(rest - names, 1))
    for name in columns:
        header, columns_wide = COLUMNS[name]
        grid.add_column(header, no_wrap=True, width=columns_wide, justify="right" if name == "rates" else "left")
    room = max(height - 1 - grid.show_header, 1)
    running = [one for one in course.processes.values() if one.cell or one.label]
    ended = [cell for cell in reversed(list(course.cells.values())) if cell.ended]
    for activity in running[:room]:
        cell = course.cells.get(activity.cell)
        grid.add_row(_text(activity.cell), _text(_stage(activity, first=True)), *_figures(cell, columns))
    for cell in ended[: max(room - len(running), 0)]:
        verdict = _text(NAMES.get(cell.verdict, cell.verdict), STYLES.get(cell.verdict, ""))
        grid.add_row(_text(cell.name), verdict, *_figures(cell, columns))
    return Group(_title(course, now), grid)


def _title(course: Course, now: float) -> Text:
    from rich.text import Text

    parts = [head(course), f"{duration(now - course.began)} elapsed"]
    if (left := course.left(now)) is not None:
        parts.append(f"about {duration(left)} left")
    if (speed := course.images_per_second(now)) is not None:
        parts.append(_speed(speed))
    if course.images:
        parts.append(f"{course.images:,} images")
    if course.gpu is not None:
        used, total = course.gpu
        parts.append(f"GPU {used / 2**30:.1f} of {total / 2**30:.0f} GiB")
    text = Text("resurgence", style="bold", no_wrap=True, overflow="ellipsis")
    text.append(" · " + " · ".join(filter(None, parts)), style="not bold")
    return text


def _figures(cell: Shown | None, columns: Iterable[str]) -> list[Text]:
    bound = cell.bound if cell is not None else None
    found = {
        "rates": _text(_rates(cell) if cell is not None else ""),
        "bounds": _text(_bounds(bound) if bound is not None else ""),
        "interval": interval(bound) if bound is not None else _text(""),
    }
    return [found[name] for name in columns]


def interval(bound: Bound) -> Text:
    """A criterion's interval as `AXIS` columns; green if it is inside the limit, red if it is outside."""
    from rich.text import Text

    low, high = (-bound.limit, 3 * bound.limit) if bound.name == "rise" else (0.0, 2 * bound.limit)

    def place(value: float) -> int:
        return round(min(max((value - low) / (high - low), 0.0), 1.0) * (AXIS - 1))

    first, last, middle, limit = place(bound.low), place(bound.high), place(bound.estimate), place(bound.limit)
    style = "green" if bound.high < bound.limit else "red" if bound.low > bound.limit else "yellow"
    text = Text()
    for column in range(AXIS):
        if column == middle:
            text.append("●", style=style)
        elif column == limit:
            text.append("│", style="bold")
        elif first <= column <= last:
            text.append("━", style=style)
        else:
            text.append("·", style="dim")
    return text


def _bounds(bound: Bound) -> str:
    name = "" if bound.name == "rise" else f"{bound.name} "
    return f"{name}{bound.low:+.2f} … {bound.high:+.2f} ({bound.limit:.2f})"


def _rates(cell: Shown) -> str:
    """ ".02 → .04 of 96": the rates of erased concepts before and after fine-tuning."""
    after = cell.rates.get("after")
    if after is None or not after[1]:
        return ""
    before = cell.rates.get("before")
    rates = [_rate(*one) for one in (before, after) if one is not None and one[1]]
    return f"{' → '.join(rates)} of {after[1]}"


def _rate(hits: int, images: int) -> str:
    return f"{hits / images:.2f}"


def _stage(activity: Activity, *, first: bool = False) -> str:
    """What a process does; `first` puts the numbers first, where the rest may be cut off."""
    label = activity.label or "reading the store"
    count = f"{activity.done}/{activity.total}" if activity.total else ""
    if not first:
        return f"{label} {count}".rstrip()
    loss = f" loss {activity.loss:.4f}" if activity.loss is not None else ""
    return f"{count}{loss} {label}".lstrip()


def _text(value: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(plain(value), style=style)


def _speed(speed: float) -> str:
    return f"{speed:.1f} images/s" if speed >= 0.1 else f"{60 * speed:.1f} images/min"


def duration(seconds: float) -> str:
    """ "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
