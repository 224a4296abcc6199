"""The live view of a recorded run at some moment, as a picture for the documentation.

    python -m benchmarks.live_view EVENTS.jsonl 190 docs/live-view.svg

`EVENTS.jsonl`: the first line about the run, then its events with their labels, each with the time `at`.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from rich.console import Console

from resurgence_harness.watching import Course
from resurgence_harness.watching.view import table

WIDTH, HEIGHT = 130, 10


def main() -> None:
    """Replay the run up to the moment and write the view."""
    source, moment, target = sys.argv[1:]
    about, *events = (json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines())
    now, course = float(moment), Course(about["cells"], workers=about["workers"])
    for event in events:
        if event["at"] <= now:
            course.apply(event)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(table(course, now, width=WIDTH, height=HEIGHT))
    title = f"pytest {' '.join(about['arguments'][:3])}"
    Path(target).write_text(console.export_svg(title=title).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
