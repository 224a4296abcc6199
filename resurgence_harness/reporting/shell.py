"""What is changed in the pages that Allure makes: nothing is asked of an outside host, the verdict stays in sight, and
a row of the first screen costs what it shows.

The pages are those of the pinned version. Where one is not as it is known, its requests could not be removed and the
report is refused; a row that could not be made cheaper is only slow.
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
"""What a browser may load for the report: only what lies beside it, or in it."""
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
"""Allure scrolls to its first test by itself; until a reader does something, the verdict above it stays in sight."""
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
"""A link within a cell's page: its frame runs no script, and would take "#place" for a place in the whole report."""
_ROWS = "<style>[data-testid=tree-leaf]{content-visibility:auto;contain-intrinsic-size:auto 32px}</style>"
"""A row out of sight is neither laid out nor painted; it can be found and jumped to as before."""
_TOOLTIP = re.compile(
    r"return (\w)&&\w\(\),(?=(\w)\.current&&(\w)\.current\?\w+\(\2\.current,\3\.current,\w\):\(\)=>\{\})"
)
"""Allure's tooltip: "if shown, place it; and follow the icon from now on". `\\1` is whether it is shown."""

_EMBEDDED = re.compile(r'src="data:text/javascript;base64,([A-Za-z0-9+/=]+)"')
"""The program in a report that is one file."""


def finish(index: Path) -> None:
    """Change the first page, and the program beside or in it; HarnessError where it would ask an outside host."""
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
    """The first page without what asks an outside host, and with the word to the browser to ask none."""
    html, removed = _ANALYTICS.subn("", html)
    if removed != 1 or "googletagmanager" in html or "<head>" not in html:
        raise HarnessError(
            sentence(
                "Allure's first page is not the one that is known, so its requests to outside hosts cannot be removed.",
                removed=removed,
                do="Use the pinned version of Allure: unset RESURGENCE_ALLURE.",
            )
        )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return html.replace("<head>", f"<head>\n    {meta}\n    {_AT_THE_TOP}\n    {_LINKS}\n    {_ROWS}", 1)


def without_idle_tooltips(program: str) -> str:
    """Allure's program with tooltips that follow their icon only while they are shown.

    It has one for every row whose status changed since the last run, which is all of them in a first run, and places
    every one of them while it opens: half of the time that 300 rows take.
    """
    return _TOOLTIP.sub(r"\g<0>\1&&", program)
