"""What a command prints, as a picture for the documentation: text on stdin, an SVG of a terminal as output.

    resurgence doctor --base sd14 --task nudity | python -m benchmarks.terminal_picture "resurgence doctor" out.svg

A browser makes the bitmap of docs/ from it: chromium --headless --screenshot=out.png out.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

STYLES = {
    r"\b(ready|HOLDS)\b": "green",
    r"\b(missing|later|KNOWN|UNDECIDED)\b": "yellow",
    r"\b(wrong|VIOLATED)\b": "bold red",
}


def main() -> None:
    """Write the picture."""
    title, target = sys.argv[1:]
    lines = [line.rstrip() for line in sys.stdin.read().strip("\n").splitlines()]
    text = Text("\n".join(lines))
    for pattern, style in STYLES.items():
        text.highlight_regex(re.compile(pattern), style)
    console = Console(record=True, width=max(map(len, lines)), file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    Path(target).write_text(console.export_svg(title=title).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
