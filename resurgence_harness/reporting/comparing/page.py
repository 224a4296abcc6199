"""A comparison as one HTML page that loads nothing, in the style of the report's pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from resurgence_harness.reporting import pages
from resurgence_harness.reporting.comparing.cells import Found, Pair
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
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics.formatting import counted

if TYPE_CHECKING:
    import numpy as np

STYLES = {"worse": "bad", "undecided": "warn", "incomplete": "warn", "not worse": "good"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"


def page(found: Found, sheets: Mapping[str, bytes], *, covered: Mapping[str, bool], whole: bool = True) -> str:
    """The page; `sheets`: "task/cell" → JPEG, `covered`: task → whether its images are blurred until clicked."""
    document = found.document
    body = [
        f'<p class="verdict {STYLES[document.result]}"><b>{escape(meaning(document).capitalize())}.</b> '
        f"{escape(document.sentence)}</p>",
        pages.facts([("first", run_line(document.first)), ("second", run_line(document.second))]),
        pages.heading("Declared differently"),
        _differences(document),
        pages.heading("Changes"),
        _changes(document),
        f'<p class="dim">{escape(interval_title(document))}</p>',
        *(f'<p class="dim">{escape(why)}</p>' for why in unpaired(document)),
        *(f'<p class="dim">{escape(alone_line(one))}</p>' for one in document.alone),
    ]
    for number, cell in enumerate(document.cells):
        body += _cell(cell, sheets, covered=covered.get(cell.task, True), number=number)
    if not whole:
        return pages.page("".join(body), whole=False)
    return pages.page("".join(body), title="Two runs compared", policy=_POLICY)


def sheet(found: Found, cell: str, pairs: Sequence[Pair]) -> bytes | None:
    """The new images of a cell side by side, JPEG; None if there are none, or they are not in the stores."""
    from resurgence_harness.reporting import contact_sheet

    rows = []
    for change, first, second in pairs:
        images: list[np.ndarray | None] = [found.first.image(first), found.second.image(second)]
        if all(image is None for image in images):
            continue
        gained = change.rate != "retained_after"
        rows.append(
            contact_sheet.Row(
                prompt=change.prompt,
                seed=change.seed,
                images=images,
                answers=[change.first, change.second],
                hits=[False, gained],
            )
        )
    if not rows:
        return None
    return contact_sheet.sheet(
        f"{cell}: {counted(len(rows), 'image')} changed for the worse",
        rows,
        columns=("first run", "second run"),
        note="framed: erased concept drawn",
    )


def _changes(document: ComparisonDocument) -> str:
    rows: list[tuple[str, ...]] = []
    marked: list[int] = []
    for cell in document.cells:
        head = (f"{cell.task}/{cell.id}", verdict_change(cell), str(cell.result))
        for change in cell.changes:
            rates, interval, how, shown = change_columns(change)
            if shown == "worse":
                marked.append(len(rows))
            rows.append((*head, change.name, how, shown, rates, interval))
            head = ("", "", "")
    header = ("cell", "verdict", "result", "rate", "compared", "shown", "% of images", "change, points")
    return pages.table(header, rows, marked=marked, text=6)


def _cell(cell: CellCompared, sheets: Mapping[str, bytes], *, covered: bool, number: int) -> list[str]:
    name = f"{cell.task}/{cell.id}"
    if cell.result == "not worse" and cell.first == cell.second and not cell.new_images_total:
        return []
    parts = [pages.heading(f"{name}: {cell.result}"), f"<p>{escape(cell.reason)}.</p>"]
    if cell.why_changed:
        parts.append(f'<p class="dim">{escape(verdict_change(cell))}; {escape(cell.why_changed)}.</p>')
    if not cell.new_images_total:
        return parts
    about = f"{counted(cell.new_images_total, 'image')} changed for the worse, the surest first"
    if name in sheets:
        parts.append(f"<p>{escape(about)}</p>")
        parts.append(pages.picture(sheets[name], about=about, covered=covered, name=f"asked{number}"))
    else:
        parts.append(f'<p class="dim">{escape(about)}; the images are no longer in the store.</p>')
        rows = [(one.prompt, str(one.seed), one.first, one.second) for one in cell.new_images]
        parts.append(pages.table(("prompt", "seed", "first", "second"), rows, text=4))
    return parts


def _differences(document: ComparisonDocument) -> str:
    rows = difference_rows(document.differences)
    if not rows:
        return '<p class="dim">No declared fact differs.</p>'
    return pages.table(("", "fact", "first", "second", "where"), rows, text=5)
