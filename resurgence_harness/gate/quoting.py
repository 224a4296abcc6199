"""Where an acceptance stands in its file, so that a reviewer reads what was signed and not a retelling of it."""

from __future__ import annotations

from pathlib import Path

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
    path = Path(limits.path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        now = load_limits(path)
    except (OSError, UserError):
        return None
    if now.digest != limits.digest:
        return None
    first, last = _lines(text)[limits.acceptances.index(acceptance)]
    return Quoted(name=name or limits.path, text=text, first=first, last=last)


def _lines(text: str) -> list[tuple[int, int]]:
    """First and last line of every entry below `acceptances:`, counted from 1; the file is known to be well formed."""
    import yaml

    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    entries = next(value for key, value in root.value if key.value == "acceptances")
    lines = text.splitlines()
    found = []
    for node in entries.value:
        first, last = node.start_mark.line, node.end_mark.line + bool(node.flow_style)
        while not lines[last - 1].partition("#")[0].strip():
            last -= 1  # a block ends where the next thing begins
        found.append((first + 1, last))
    return found
