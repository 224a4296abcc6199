"""Quotes an acceptance from its file, so that a reviewer reads the original text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from resurgence_harness.errors import UserError
from resurgence_harness.limits.limits_file import Limits, load_limits
from resurgence_harness.statistics import Acceptance


@dataclass(frozen=True, kw_only=True)
class Quoted:
    """A reviewed file and the lines that were applied."""

    name: str
    """Path of the file, as shown to the reader."""
    text: str
    first: int
    """Line, counted from 1."""
    last: int

    @property
    def label(self) -> str:
        """ "acceptance in limits.yaml, lines 24 to 31"."""
        lines = f"line {self.first}" if self.first == self.last else f"lines {self.first} to {self.last}"
        return f"acceptance in {PurePath(self.name).name}, {lines}"


def quoted(limits: Limits, acceptance: Acceptance | None, *, name: str = "") -> Quoted | None:
    """The file and the lines of its entry, shown as `name` (default: its path); None if there is nothing to quote.

    Nothing is quoted from a file that was changed since it was read: its lines may not be those that were applied.
    """
    if acceptance is None or not limits.path or acceptance not in limits.acceptances:
        return None
    try:
        now = load_limits(limits.path)
    except UserError:
        return None
    if now.digest != limits.digest:
        return None
    first, last = now.lines[limits.acceptances.index(acceptance)]
    return Quoted(name=name or limits.path, text=now.text, first=first, last=last)
