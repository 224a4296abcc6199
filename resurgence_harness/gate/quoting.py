"""Where an acceptance stands in its file, so that a reviewer reads what was signed and not a retelling of it."""

from __future__ import annotations

from resurgence_harness.errors import UserError
from resurgence_harness.gate.policy import Limits, load_limits
from resurgence_harness.reporting.acceptance_page import Quoted
from resurgence_harness.statistics import Acceptance


def quoted(limits: Limits, acceptance: Acceptance | None, *, name: str = "") -> Quoted | None:
    """The file and the lines of its entry, called `name` (default: its path); None where there is nothing to quote.

    Nothing is quoted from a file that was changed since it was read: its words are not those that decided.
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
