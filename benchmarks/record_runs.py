"""Record the events of real runs on the microworld, with which tests replay the estimate of the remaining time.

    python -m benchmarks.record_runs NAME OUT.jsonl -- suites/celebrity -n 2 --resurgence-methods uce,esd
    python -m benchmarks.record_runs NAME OUT.jsonl -- stress --demo

The first line has the run's name, its cells, its processes and its length; every further line is an event with the time
`at` which the view received it, without what only the view shows. Replay: `tests/watching/test_forecast.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli
from resurgence_harness.watching import course

ONLY_SHOWN = ("label", "loss", "gpu", "images", "rates", "bounds")
"""Fields of events that the estimate does not use."""
COMMANDS = ("stress", "gate")
"""Commands that can be recorded; everything else is arguments of pytest."""
EVENTS: list[dict[str, Any]] = []


class Recording:
    """Keeps what the view of the run receives, and when the run began and ended."""

    def __init__(self) -> None:
        """Listen to every course of this process."""
        self.cells: list[str] = []
        self.workers, self.began, self.ended = 1, 0.0, 0.0
        apply, init = course.Course.apply, course.Course.__init__
        recording = self

        def begin(self: Any, cells: Any = (), *, workers: int = 1, began: float = 0.0) -> None:
            recording.cells, recording.workers, recording.began = list(cells), workers, began
            init(self, recording.cells, workers=workers, began=began)

        def listen(self: Any, event: Any) -> None:
            EVENTS.append({**event, "at": round(time.monotonic(), 3)})
            apply(self, event)

        course.Course.__init__, course.Course.apply = begin, listen  # type: ignore[method-assign]

    def pytest_sessionfinish(self) -> None:
        """The last test has ended."""
        self.ended = time.monotonic()


def thinned(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events without those that say less than a twentieth more of the same piece of work is done."""
    seen: dict[str, tuple[str, float]] = {}
    for event in events:
        if event["e"] == "doing" and event["total"]:
            label, share = seen.get(event["w"], ("", 0.0))
            now = event["done"] / event["total"]
            if event["label"] == label and 0 < now < 1 and share <= now < share + 0.05:
                continue
            seen[event["w"]] = (event["label"], now)
        yield event


def command(arguments: list[str]) -> int:
    """Run a command of `resurgence` in this process; its exit code."""
    sys.argv = ["resurgence", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """Run the suite on an empty store and write its events."""
    name, out, *arguments = [one for one in sys.argv[1:] if one != "--"]
    recording = Recording()
    with tempfile.TemporaryDirectory() as folder:
        if arguments[0] in COMMANDS:
            code = command([*arguments, f"--store={folder}/store", f"--out={folder}/out"])
            recording.ended = EVENTS[-1]["at"]
        else:
            places = [f"--resurgence-store={folder}/store", f"--resurgence-out={folder}/out"]
            code = int(pytest.main([*arguments, *places], plugins=[recording]))
    about = {"name": name, "arguments": arguments, "cells": recording.cells, "workers": recording.workers}
    about |= {"seconds": round(recording.ended - recording.began, 2), "exit_code": code}
    shift = recording.began
    with Path(out).open("w", encoding="utf-8") as file:
        file.write(json.dumps(about) + "\n")
        for event in thinned(EVENTS):
            kept = {name: value for name, value in event.items() if name not in ONLY_SHOWN}
            kept |= {"t": round(event["t"] - shift, 2), "at": round(event["at"] - shift, 2)}
            file.write(json.dumps(kept, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
