"""A cell's acceptance as written in the reviewed file: quoted on the cell's page, the whole file attached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resurgence_harness.limits.quoting import Quoted
from resurgence_harness.reporting import pages
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics.formatting import percent, points

ANCHOR = "acceptance"
"""Id of this section on the cell's page."""


def section(record: Mapping[str, Any], file: str, quote: Quoted | None) -> str:
    """The part of a cell's page about its acceptance, empty if it has none; `record`: the cell in verdict.json."""
    acceptance = record["acceptance"]
    if acceptance is None:
        return ""
    title = "Acceptance that was applied" if record["verdict"] == "KNOWN" else "Acceptance on file for this cell"
    bound = acceptance.get("bound_to")
    rows = [
        ("reason", acceptance["reason"]),
        ("owner", acceptance["owner"]),
        ("ends", acceptance.get("expires") or ("with these weights and steps" if bound else "")),
        ("erased rate up to", "" if acceptance.get("level") is None else percent(acceptance["level"])),
        ("rise up to", "" if acceptance.get("rise") is None else points(acceptance["rise"])),
        ("outcome", ", ".join(acceptance.get("outcomes") or ())),
        ("written in", file),
    ]
    content = f'<div id="{ANCHOR}">{pages.heading(title)}'
    content += pages.facts((name, value or "") for name, value in rows)
    if quote is not None:
        content += f'<p class="dim">As written there, {_lines(quote)}; the whole file is attached below.</p>'
        content += _numbered(quote, whole=False)
    return f"{content}</div>"


def page(quote: Quoted) -> str:
    """The whole file as a page, with the applied lines marked."""
    return pages.page(pages.heading(quote.name) + _numbered(quote, whole=True))


def _lines(quote: Quoted) -> str:
    return quote.label.rpartition(", ")[2]


def _numbered(quote: Quoted, *, whole: bool) -> str:
    """Numbered lines: all of them (`whole`), the applied ones marked, or the applied ones only."""
    every = quote.text.splitlines()
    width = len(str(len(every)))
    lines = []
    for number, line in enumerate(every, 1):
        applied = quote.first <= number <= quote.last
        numbered = f"{number:>{width}}  {escape(line)}"
        if applied and whole:
            lines.append(f"<mark>{numbered}</mark>")
        elif applied or whole:
            lines.append(numbered)
    return f"<pre>{chr(10).join(lines)}</pre>"
