"""Changes the pages that Allure makes: no requests to outside hosts, the verdict stays visible when the report opens,
and rows that are not visible cost no time.

The changes fit the pinned version of Allure. If the first page differs from it, its requests cannot be removed and the
report is refused; if the program differs, the report is only slower.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from resurgence_harness.errors import HarnessError, sentence

_ANALYTICS = re.compile(
    r"<script[^>]*googletagmanager[^>]*>\s*</script>\s*<script>(?:(?!</script>)[\s\S])*?gtag(?:(?!</script>)[\s\S])*</script>"
)
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; style-src 'self' 'unsafe-inline'"
    " data: blob:; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; media-src 'self'"
    " data: blob:; frame-src 'self' data: blob:; worker-src 'self' blob:; form-action 'none'; base-uri 'self'"
)
"""Content security policy: the browser may load files of the report only."""
_AT_THE_TOP = """<script>(() => {
  let touched = false;
  for (const kind of ["keydown", "pointerdown", "wheel", "touchstart"])
    addEventListener(kind, () => { touched = true; }, {capture: true, passive: true});
  const into = Element.prototype.scrollIntoView;
  Element.prototype.scrollIntoView = function (...words) { if (touched) into.apply(this, words); };
  const top = Object.getOwnPropertyDescriptor(Element.prototype, "scrollTop");
  const set = function (value) { if (touched) top.set.call(this, value); };
  Object.defineProperty(Element.prototype, "scrollTop", {...top, set});
})()</script>"""
"""Keeps Allure from scrolling to its first test until the reader uses the page, so that the verdict stays visible."""
_LINKS = """<script>document.addEventListener("load", event => {
  const inside = event.target.contentDocument;
  for (const words of inside ? inside.querySelectorAll("[data-leads-to]") : []) {
    const place = inside.getElementById(words.dataset.leadsTo), link = inside.createElement("a");
    if (place === null) continue;
    link.href = `#${place.id}`;
    link.textContent = words.textContent;
    link.addEventListener("click", click => { click.preventDefault(); place.scrollIntoView(); });
    words.replaceWith(link);
  }
}, true)</script>"""
"""Links within a cell's page: its frame runs no script, and would resolve "#place" against the whole report."""
_ROWS = "<style>[data-testid=tree-leaf]{content-visibility:auto;contain-intrinsic-size:auto 32px}</style>"
"""Rows that are not visible are neither laid out nor painted; search and links still reach them."""
_TOOLTIP = re.compile(
    r"return (\w)&&\w\(\),(?=(\w)\.current&&(\w)\.current\?\w+\(\2\.current,\3\.current,\w\):\(\)=>\{\})"
)
"""Allure's tooltip code: "position it if shown, and track the icon from now on". `\\1` is whether it is shown."""

_EMBEDDED = re.compile(r'src="data:text/javascript;base64,([A-Za-z0-9+/=]+)"')
"""The program in a single-file report."""


def finish(index: Path) -> None:
    """Change the first page and its program; HarnessError if requests to outside hosts cannot be removed."""
    page = private(index.read_text(encoding="utf-8"))
    index.write_text(_EMBEDDED.sub(_lighter, page), encoding="utf-8")
    for program in index.parent.glob("app-*.js"):
        text = program.read_text(encoding="utf-8")
        lighter = without_idle_tooltips(text)
        if lighter != text:
            program.write_text(lighter, encoding="utf-8")


def _lighter(found: re.Match[str]) -> str:
    program = base64.b64decode(found[1]).decode()
    return f'src="data:text/javascript;base64,{base64.b64encode(without_idle_tooltips(program).encode()).decode()}"'


def private(html: str) -> str:
    """The first page without requests to outside hosts, and with a content security policy that forbids them."""
    html, removed = _ANALYTICS.subn("", html)
    if removed != 1 or "googletagmanager" in html or "<head>" not in html:
        raise HarnessError(
            sentence(
                "Allure's first page is not that of the pinned version: its outside requests cannot be removed.",
                removed=removed,
                do="Use the pinned version of Allure: unset RESURGENCE_ALLURE.",
            )
        )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return html.replace("<head>", f"<head>\n    {meta}\n    {_AT_THE_TOP}\n    {_LINKS}\n    {_ROWS}", 1)


def without_idle_tooltips(program: str) -> str:
    """Allure's program with tooltips that track their icon only while they are shown.

    Every row whose status changed since the last run has one (in a first run, all rows); positioning all of them takes
    half of the time that a report with 300 rows needs to open.
    """
    return _TOOLTIP.sub(r"\g<0>\1&&", program)
