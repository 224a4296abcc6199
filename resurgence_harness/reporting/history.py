"""The file of trends: one line per run, however often its report is made.

Allure appends a line whenever it makes a report, and counts every line as a run. So it receives a copy that holds the
earlier runs only, and the line that it appends replaces the one of an earlier report of this run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.reporting import run_page


class History:
    """The file of trends, for one run."""

    def __init__(self, file: Path, run: Mapping[str, Any]) -> None:
        """Read the file if it exists; UserError if it cannot be read. `run` is the object of verdict.json."""
        self._file, self._run = file, run["started"]
        self._moment = run_page.moment_of(run["finished"])
        self._lines = [line for line in self._read() if line.get("resurgence_run") != self._run]

    def lend(self, place: Path) -> None:
        """Write the lines of earlier runs to `place`, for Allure."""
        before = [line for line in self._lines if line.get("timestamp", 0) < self._moment]
        place.write_text("".join(f"{json.dumps(line)}\n" for line in before), encoding="utf-8")

    def take(self, place: Path) -> None:
        """Keep the line that Allure appended at `place`."""
        added = json.loads(place.read_text(encoding="utf-8").splitlines()[-1])
        own = {**added, "timestamp": self._moment, "resurgence_run": self._run}
        lines = sorted([*self._lines, own], key=lambda line: line.get("timestamp", 0))
        draft = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        draft.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        draft.replace(self._file)

    def _read(self) -> list[dict[str, Any]]:
        if not self._file.is_file():
            return []
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
            found = [json.loads(line) for line in lines if line.strip()]
            if not all(isinstance(line, dict) and isinstance(line.get("timestamp", 0), int | float) for line in found):
                raise ValueError("a line is not a run")
            return found
        except (ValueError, RecursionError, OSError) as error:
            raise UserError(
                sentence(f"{self._file} is half written.", reason=error, do="Move it away; a new one is then begun.")
            ) from error
