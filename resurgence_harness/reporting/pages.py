"""Small HTML pages inside the report: escaped text, one style sheet, no scripts, no network requests.

Allure shows them in a frame that runs no script, on a light or a dark background: colours are therefore half
transparent, text keeps the frame's colour, and a covered image is uncovered by a label and a checkbox.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from resurgence_harness.reporting.escaping import html as escape

STYLE = """
.rh{font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;max-width:1080px}
.rh h3{font-size:14px;margin:18px 0 6px;font-weight:600}
.rh p{margin:6px 0}.rh .dim,.rh td.dim{opacity:.72}
.rh .verdict{padding:10px 14px;border-left:5px solid;border-radius:3px;margin:0 0 12px}
.rh .bad{border-color:#d55e00;background:rgba(213,94,0,.13)}
.rh .warn{border-color:#c99700;background:rgba(230,159,0,.15)}
.rh .good{border-color:#0072b2;background:rgba(0,114,178,.13)}
.rh table{border-collapse:collapse;margin:4px 0;font-variant-numeric:tabular-nums}
.rh th,.rh td{text-align:left;vertical-align:top;padding:3px 10px;border-bottom:1px solid rgba(128,128,128,.28)}
.rh td{white-space:normal!important}
.rh th{font-weight:600}.rh .num{text-align:right;white-space:nowrap!important}
.rh tr{background:none!important}.rh tr.over{background:rgba(213,94,0,.18)!important;font-weight:600}
.rh a{color:inherit}.rh mark{background:rgba(230,159,0,.3);color:inherit;display:inline-block;min-width:100%}
.rh code,.rh pre{font:12px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
.rh pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:8px 10px;background:rgba(128,128,128,.13);margin:4px 0;
border-radius:3px}
.rh td.long{overflow-wrap:anywhere}
.rh .strip{max-width:100%;margin:2px 0}
.rh .heat td,.rh .heat th{border:1px solid rgba(128,128,128,.28);padding:3px 8px;text-align:right}
.rh .heat th:first-child{text-align:left}.rh .heat tr:first-child th{vertical-align:bottom;max-width:110px}
.rh .asked{position:absolute;opacity:0}
.rh .covered{position:relative;display:inline-block;overflow:hidden;cursor:pointer;line-height:0}
.rh .covered img{filter:blur(22px);max-width:100%}
.rh .covered span{position:absolute;inset:0;display:flex;align-items:flex-start;justify-content:center;
padding-top:90px;font-size:16px;line-height:1.4;font-weight:600;color:#fff;background:rgba(0,0,0,.55);text-align:center}
.rh .asked:checked+.covered img{filter:none}.rh .asked:checked+.covered span{display:none}
.rh .asked:focus-visible+.covered{outline:3px solid #0072b2}
"""
COVER = "These images may be disturbing. Click to see them."
"""Text over a covered picture."""


def page(body: str, *, whole: bool = True, title: str = "", policy: str = "") -> str:
    """A complete HTML page, or (not `whole`) a fragment for a frame that already has a head.

    `policy`: a content security policy, for a page that is opened by itself; `title` likewise.
    """
    inside = f'<div class="rh">{body}</div><style>{STYLE}</style>'
    if not whole:
        return inside
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else ""
    head += f"<title>{escape(title)}</title>" if title else ""
    return f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{head}</head><body>{inside}</body></html>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, marked: Iterable[int] = (), text: int = 1) -> str:
    """A table whose first `text` columns are text and whose others are numbers; `marked` rows are highlighted."""
    stand_out = set(marked)

    def cells(row: Sequence[object], tag: str) -> str:
        opened = [f"<{tag}>" if place < text else f'<{tag} class="num">' for place in range(len(row))]
        return "".join(f"{start}{escape(str(value))}</{tag}>" for start, value in zip(opened, row, strict=True))

    lines = [f"<tr>{cells(header, 'th')}</tr>"]
    for place, row in enumerate(rows):
        style = ' class="over"' if place in stand_out else ""
        lines.append(f"<tr{style}>{cells(row, 'td')}</tr>")
    return f"<table>{''.join(lines)}</table>"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values, one pair per line; long values wrap."""
    lines = (
        f'<tr><td class="dim">{escape(name)}</td><td class="long">{escape(str(value))}</td></tr>'
        for name, value in rows
        if str(value)
    )
    return f"<table>{''.join(lines)}</table>"


def picture(content: bytes, *, about: str, covered: bool, kind: str = "image/jpeg", name: str = "asked") -> str:
    """A picture inside the page; `covered`: blurred until the reader clicks on it. `name`: a unique id on the page."""
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    if not covered:
        return f'<img class="strip" alt="{escape(about)}" src="{source}">'
    return (
        f'<input class="asked" type="checkbox" id="{name}"><label class="covered" for="{name}">'
        f'<img alt="{escape(about)}" src="{source}"><span>{COVER}</span></label>'
    )


def heading(text: str) -> str:
    """A heading."""
    return f"<h3>{escape(text)}</h3>"


def leading(text: str, *, to: str) -> str:
    """Text that becomes a link to the element with id `to` on the same page, by the report's script (shell.py)."""
    return f'<span data-leads-to="{escape(to)}">{escape(text)}</span>'


def preformatted(text: str) -> str:
    """Preformatted text, wrapped."""
    return f"<pre>{escape(text)}</pre>"
