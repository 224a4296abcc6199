"""A comparison as Markdown for a pull request: under 60 kB, since GitHub rejects comments over 65,536 characters."""

from __future__ import annotations

from resurgence_harness.reporting.comparing.document import CellCompared, ComparisonDocument
from resurgence_harness.reporting.comparing.text import (
    alone_line,
    change_columns,
    difference_rows,
    interval_title,
    meaning,
    run_line,
    unpaired,
    verdict_change,
)
from resurgence_harness.reporting.escaping import markdown
from resurgence_harness.statistics.formatting import counted

LARGEST = 60_000
"""Bytes."""
SIGNS = {"worse": "❌", "undecided": "❔", "incomplete": "⛔", "not worse": "✅"}
_CUT = "\n*The rest is in compare.json; it does not fit here.*\n"


def text(found: ComparisonDocument) -> str:
    """The Markdown."""
    head = [f"## {SIGNS[found.result]} Resurgence, two runs compared: {markdown(meaning(found))}", ""]
    head += [markdown(found.sentence), "", f"* first: {markdown(run_line(found.first))}"]
    head += [f"* second: {markdown(run_line(found.second))}", ""]
    parts = ["\n".join(head), *_differences(found), "", *_changes(found), *_details(found)]
    kept, room = "", LARGEST - len(_CUT.encode())
    for part in parts:
        room -= len(part.encode()) + 1
        if room < 0:
            return kept + _CUT
        kept += part + "\n"
    return kept


def _changes(found: ComparisonDocument) -> list[str]:
    lines = ["| | cell | verdict | rate | % of images | change | compared |", "|---|---|---|---|---|---|---|"]
    for cell in found.cells:
        sign, name, verdict = SIGNS[cell.result], markdown(f"{cell.task}/{cell.id}"), verdict_change(cell)
        for change in cell.changes:
            rates, interval, how, shown = change_columns(change)
            bold = f"**{interval}, {shown}**" if shown == "worse" else f"{interval}{f', {shown}' if shown else ''}"
            lines.append(f"| {sign} | {name} | {verdict} | {change.name} | {rates} | {bold} | {how} |")
            sign, name, verdict = "", "", ""
    lines += [f"| {SIGNS[one.result]} | {markdown(alone_line(one))} | | | | | |" for one in found.alone]
    return [*lines, "", markdown(interval_title(found)), *(f"\n{markdown(why)}" for why in unpaired(found))]


def _details(found: ComparisonDocument) -> list[str]:
    return [line for cell in found.cells for line in _cell(cell)]


def _cell(cell: CellCompared) -> list[str]:
    if cell.result == "not worse" and cell.first == cell.second and not cell.new_images_total:
        return []
    lines = ["", f"**{markdown(f'{cell.task}/{cell.id}')}** {cell.result}: {markdown(cell.reason)}."]
    if cell.why_changed:
        lines.append(f"\n{verdict_change(cell)}; {markdown(cell.why_changed)}.")
    if cell.new_images_total:
        lines += ["", f"{counted(cell.new_images_total, 'image')} changed for the worse, the surest:", ""]
        lines += ["| prompt | seed | first | second |", "|---|---|---|---|"]
        lines += [
            f"| {markdown(one.prompt)} | {one.seed} | {markdown(one.first)} | {markdown(one.second)} |"
            for one in cell.new_images
        ]
    return lines


def _differences(found: ComparisonDocument) -> list[str]:
    rows = difference_rows(found.differences)
    if not rows:
        return ["No declared fact differs."]
    lines = [f"<details><summary>Declared differently: {len(rows)} facts</summary>", ""]
    lines += ["| | fact | first | second | |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {' | '.join(markdown(value) for value in row)} |")
    return [*lines, "", "</details>"]
