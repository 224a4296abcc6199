"""What was accepted for a cell, as it stands in the reviewed file: on the cell's page, and the whole file beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resurgence_harness.limits.quoting import Quoted
from resurgence_harness.reporting import pages
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.statistics.formatting import percent, points

ANCHOR = "acceptance"
"""Where the cell's page tells it."""


def section(record: Mapping[str, Any], file: str, quote: Quoted | None) -> str:
    """The part of a cell's page about its acceptance, empty where it has none; `record`: the cell in verdict.json."""
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
    told = f'<div id="{ANCHOR}">{pages.heading(title)}'
    told += pages.facts((name, value or "") for name, value in rows)
    if quote is not None:
        told += f'<p class="dim">As it stands there, {_lines(quote)}; the whole file is attached below.</p>'
        told += _numbered(quote, whole=False)
    return f"{told}</div>"


def page(quote: Quoted) -> str:
    """The whole file as a page, what was applied marked."""
    return pages.page(pages.heading(quote.name) + _numbered(quote, whole=True))


def _lines(quote: Quoted) -> str:
    return quote.label.rpartition(", ")[2]


def _numbered(quote: Quoted, *, whole: bool) -> str:
    """Lines with their numbers, the applied ones marked where they are not alone."""
    every = quote.text.splitlines()
    width = len(str(len(every)))
    told = []
    for number, line in enumerate(every, 1):
        applied = quote.first <= number <= quote.last
        words = f"{number:>{width}}  {escape(line)}"
        if applied and whole:
            told.append(f"<mark>{words}</mark>")
        elif applied or whole:
            told.append(words)
    return f"<pre>{chr(10).join(told)}</pre>"
