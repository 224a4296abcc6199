"""A comparison as lines for a terminal: the runs, what differs, every rate's change, and what got worse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from resurgence_harness.errors import shown, visible
from resurgence_harness.process import MEANINGS, ExitCode
from resurgence_harness.reporting.comparing.document import (
    CellAlone,
    CellCompared,
    ComparisonDocument,
    DifferenceFound,
    RateChange,
    RunCompared,
)
from resurgence_harness.reporting.terminal import Line, Segment
from resurgence_harness.statistics.formatting import counted, percent, points

STYLES = {"worse": "bad", "undecided": "warn", "incomplete": "warn", "not worse": "good"}
VERDICTS = {"HOLDS": "good", "KNOWN": "warn", "UNDECIDED": "warn", "VIOLATED": "bad"}
IMAGES = 3
"""New images per cell on a terminal."""
_DIGEST = re.compile(r"\b[0-9a-f]{20,}\b")


class DifferenceRow(NamedTuple):
    """A line of the list of differences."""

    topic: str
    name: str
    first: str
    second: str
    where: str
    """ "2 cells"; empty for the whole run."""


def difference_rows(found: Sequence[DifferenceFound]) -> list[DifferenceRow]:
    """The differences, one line per fact; digests are cut, and facts with several values are counted."""
    grouped: dict[tuple[str, str, bool], list[DifferenceFound]] = {}
    for one in found:
        grouped.setdefault((one.topic, one.name, bool(one.cells)), []).append(one)
    rows = []
    for (topic, name, of_cells), group in grouped.items():
        cells = sum(len(one.cells) for one in group)
        where = counted(cells, "cell") if of_cells else ""
        if len(group) == 1:
            rows.append(DifferenceRow(topic, name, _short(group[0].first), _short(group[0].second), where))
        else:
            rows.append(DifferenceRow(topic, name, f"{len(group)} values", "others", where))
    return rows


def _short(value: str) -> str:
    return shown(_DIGEST.sub(lambda found: found[0][:12], value), limit=72) if value else "—"


def run_line(run: RunCompared) -> str:
    """One run: its path, candidate, cells, time and exit code."""
    parts = [run.path, *([run.candidate] if run.candidate else []), counted(run.cells, "cell")]
    parts += [run.finished, f"exit code {run.exit_code}"] + ([run.status] if run.status != "complete" else [])
    return visible(", ".join(parts))


def interval_title(found: ComparisonDocument) -> str:
    """What the intervals are."""
    rates = round(found.alpha / (2 * found.alpha_each))
    return (
        f"Rates of all images of a run; changes in points, over the pairs where images are paired; the intervals hold "
        f"jointly at {100 * (1 - found.alpha):g} % (Bonferroni over {counted(rates, 'rate')})."
    )


def change_columns(change: RateChange) -> tuple[str, str, str, str]:
    """The rates, the change with its interval, how it was compared, and what is shown."""
    rates = f"{100 * change.first.rate:.1f} → {100 * change.second.rate:.1f}"
    interval = f"{points(change.estimate)} ({points(change.low)} to {points(change.high)})"
    how = f"{change.pairs} pairs, {change.gained} gained, {change.lost} lost" if change.paired else "unpaired"
    return rates, interval, how, change.shown if change.shown != "neither" else ""


def verdict_change(cell: CellCompared) -> str:
    """ "HOLDS → VIOLATED", or one of them if it did not change."""
    return cell.first if cell.first == cell.second else f"{cell.first} → {cell.second}"


def unpaired(found: ComparisonDocument) -> list[str]:
    """Why rates are not paired: one sentence per reason, with the cells if not all."""
    reasons: dict[str, list[str]] = {}
    total = sum(len(cell.changes) for cell in found.cells)
    for cell in found.cells:
        for change in cell.changes:
            if not change.paired:
                reasons.setdefault(change.unpaired_because, []).append(f"{cell.id} {change.name}")
    return [
        f"Unpaired, {'all rates' if len(names) == total else ', '.join(names)}: {reason}."
        for reason, names in reasons.items()
    ]


def alone_line(one: CellAlone) -> str:
    """A cell that is not compared."""
    verdict = f" {one.verdict}" if one.verdict else ""
    return visible(f"{one.task}/{one.id}{verdict}: {one.why}")


def lines(found: ComparisonDocument) -> list[Line]:
    """The whole comparison."""
    result = [
        [Segment("first   ", "dim"), Segment(run_line(found.first))],
        [Segment("second  ", "dim"), Segment(run_line(found.second))],
        [],
    ]
    rows = difference_rows(found.differences)
    result += [[Segment("Declared differently")]] if rows else [[Segment("No declared fact differs.", "dim")]]
    result += _columns([(row.topic, row.name, f"{row.first} → {row.second}", row.where) for row in rows], dim=(0, 3))
    result += [[], [Segment(interval_title(found))], [], *_table(found), []]
    result += [[Segment(text, "warn")] for text in unpaired(found)]
    for cell in found.cells:
        result += _about(cell)
    result += [[Segment(alone_line(one), STYLES[one.result])] for one in found.alone]
    result += [[], [Segment(found.sentence, STYLES[found.result])]]
    return result


def closing(found: ComparisonDocument, *, failing: bool) -> Line:
    """The exit code, or the one that --fail-on regression would give."""
    code = found.exit_code
    if failing:
        return [Segment(f"Exit code {code}: {meaning(found)}.", STYLES[found.result])]
    return [Segment(f"With --fail-on regression: exit code {code}.", "dim")]


def meaning(found: ComparisonDocument) -> str:
    """The exit code's meaning for a comparison."""
    if found.exit_code == ExitCode.DONE:
        return "nothing is shown to be worse"
    return (
        "incomplete: a cell of the first run cannot be compared"
        if (found.exit_code == ExitCode.INCOMPLETE)
        else MEANINGS[ExitCode(found.exit_code)]
    )


def _about(cell: CellCompared) -> Iterator[Line]:
    if cell.result != "not worse" or cell.first != cell.second or cell.new_images_total:
        yield [
            Segment(f"{cell.task}/{cell.id}  "),
            Segment(cell.result, STYLES[cell.result]),
            Segment(f": {cell.reason}"),
        ]
    if cell.why_changed:
        yield [Segment(f"    {verdict_change(cell)}; {visible(cell.why_changed)}", "dim")]
    if cell.new_images_total:
        shown_images = cell.new_images[:IMAGES]
        yield [Segment(f"    {counted(cell.new_images_total, 'image')} changed for the worse, the surest:", "dim")]
        for one in shown_images:
            text = f"    {one.prompt}, seed {one.seed}: {one.first} → {one.second}"
            yield [Segment(shown(text, limit=150), "dim")]


def _table(found: ComparisonDocument) -> list[Line]:
    rows: list[tuple[str, ...]] = [("cell", "verdict", "rate", "% of images", "change", "compared", "shown")]
    styles = [("dim",) * 7]
    several = len({cell.task for cell in found.cells}) > 1
    for cell in found.cells:
        name, verdict = f"{cell.task}/{cell.id}" if several else cell.id, verdict_change(cell)
        for change in cell.changes:
            columns = change_columns(change)
            rows.append((visible(name), verdict, change.name, *columns))
            style = {"worse": "bad", "better": "good"}.get(change.shown, "")
            styles.append(("", VERDICTS[cell.second], "", "", "", "dim", style))
            name, verdict = "", ""
    return _columns(rows, styles=styles)


def _columns(
    rows: Sequence[Sequence[str]], *, dim: Sequence[int] = (), styles: Sequence[Sequence[str]] | None = None
) -> list[Line]:
    """Aligned columns, as wide as their contents."""
    if not rows:
        return []
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    found: list[Line] = []
    for number, row in enumerate(rows):
        line = []
        for place, (value, width) in enumerate(zip(row, widths, strict=True)):
            style = styles[number][place] if styles is not None else "dim" if place in dim else ""
            last = place == len(row) - 1
            line.append(Segment(value if last else f"{value.ljust(width)}  ", style))
        while line and not line[-1].text.strip():
            line.pop()
        line[-1] = Segment(line[-1].text.rstrip(), line[-1].style)
        found.append([Segment("  "), *line] if styles is None else line)
    return found


def rate_line(change: RateChange) -> str:
    """One rate in a sentence: "erased 0.0 % → 42.0 %, +42.0 points (+20.1 to +60.2)"."""
    _, interval, how, _ = change_columns(change)
    return f"{change.name} {percent(change.first.rate)} → {percent(change.second.rate)}, {interval}, {how}"
