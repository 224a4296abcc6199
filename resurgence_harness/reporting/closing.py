"""The closing output of a run with cells: the table, the reasons, missing cells, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resurgence_harness.reporting import terminal
from resurgence_harness.reporting.about_store import IGNORED
from resurgence_harness.reporting.terminal import Line, Segment

PYTEST = {
    "": {},
    "dim": {"light": True},
    "good": {"green": True},
    "warn": {"yellow": True},
    "bad": {"red": True, "bold": True},
}
"""pytest's markup for the styles of `terminal`."""
RICH = {"": "", "dim": "dim", "good": "green", "warn": "yellow", "bad": "bold red"}
"""rich's styles."""


def lines(
    run: Mapping[str, Any] | None,
    *,
    mistakes: Sequence[str],
    problems: Sequence[str],
    notes: Sequence[str],
    where: str,
    full: bool,
) -> list[Line]:
    """For a pytest run. `run`: None if nothing was judged; `where`: path of verdict.json; `full`: uncut reasons."""
    found: list[Line] = [[Segment(f"ERROR: {one}", "bad")] for one in mistakes]
    if run is None:
        return found
    part = terminal.completeness(run)
    found += [[Segment(f"{part}.", "warn")], []] if part else []
    found += judged(run, full=full)
    found += _about(run, notes)
    found += [[Segment(problem, "bad")] for problem in problems]
    return [*found, terminal.closing(run), *([] if problems else [[Segment(where, "dim")]])]


def gate_lines(run: Mapping[str, Any]) -> list[Line]:
    """For `resurgence gate`, which printed its notes on the models before sampling."""
    ignored = run["environment"].get(IGNORED)
    store: list[Line] = [[Segment(f"Store: {ignored}", "warn")]] if ignored else []
    return [*judged(run, full=True), *store, terminal.closing(run)]


def judged(run: Mapping[str, Any], *, full: bool) -> list[Line]:
    """The table, then blocking cells with reasons, and the number of KNOWN cells; `full`: uncut reasons of both."""
    cells = run["cells"]
    table: list[Line] = []
    if cells:
        table = [[Segment(terminal.headline(run))], [], *terminal.table(cells), []]
    why = terminal.reasons(cells) if full else terminal.blocked(cells)
    why += terminal.staged(cells)
    why += terminal.along_steps(cells)
    why += [*terminal.missing(run["missing"]), *terminal.incidents(run), *terminal.needless(cells)]
    return [*table, *why, *([[]] if why else [])]


def nothing_judged() -> list[Line]:
    """The lines of a gate under --collect-only, --help and similar options."""
    text = "No group of the policy was judged: with this option pytest runs no test. "
    return [[Segment(text), Segment("Exit code 11: incomplete.", "warn")]]


def _about(run: Mapping[str, Any], notes: Sequence[str]) -> list[Line]:
    """Notes on presets, prompts, the family of cells, and the candidate."""
    from resurgence_harness.reporting.together import over_recipes, sentence_of

    found: list[Line] = []
    if changed := run["selection"]["changed"]:
        text = ", ".join(f"{name}={value}" for name, value in changed.items())
        found.append([Segment(f"Changed from the preset: {text}", "warn")])
    found += [[Segment(note, "warn")] for note in (*notes, *run["selection"]["notes"])]
    if run["cells"]:
        found += [[Segment(text, "dim")] for text in over_recipes(run["cells"])]
        found.append([Segment(sentence_of(run["family"]), "dim")])
    if gate := run.get("gate"):
        audit = [gate["audit"]["words"]] if gate["audit"] else []
        found += [[Segment(note, "warn")] for note in gate["notes"]] + [[Segment(text, "dim")] for text in audit]
    return found
