"""What a run with cells prints when it is over: the table, the reasons, what is missing, what the exit code says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resurgence_harness.reporting.terminal import Line

MARKUP = {
    "": {},
    "dim": {"light": True},
    "good": {"green": True},
    "warn": {"yellow": True},
    "bad": {"red": True, "bold": True},
}
"""pytest's words for the styles of `reporting.terminal`."""


def lines(
    run: Mapping[str, Any] | None, *, mistakes: Sequence[str], problems: Sequence[str], notes: Sequence[str], where: str
) -> list[Line]:
    """The lines; `run` is None where nothing was judged, `where` names verdict.json."""
    from resurgence_harness.reporting import terminal as telling

    told: list[Line] = [[telling.Segment(f"ERROR: {one}", "bad")] for one in mistakes]
    if run is None:
        return told
    part = telling.completeness(run)
    told += [[telling.Segment(f"{part}.", "warn")], []] if part else []
    if run["cells"]:
        told += [[telling.Segment(telling.headline(run))], [], *telling.table(run["cells"]), []]
    reasons = [*telling.reasons(run["cells"]), *telling.missing(run["missing"]), *telling.incidents(run)]
    told += [*reasons, []] if reasons else []
    told += _about(run, notes)
    told += [[telling.Segment(problem, "bad")] for problem in problems]
    return [*told, telling.closing(run), *([] if problems else [[telling.Segment(where, "dim")]])]


def nothing_judged() -> list[Line]:
    """The lines of a gate under --collect-only and the like."""
    from resurgence_harness.reporting.terminal import Segment

    words = "No group of the policy was judged: pytest was to show something, not to run tests. "
    return [[Segment(words), Segment("Exit code 11: incomplete.", "warn")]]


def _about(run: Mapping[str, Any], notes: Sequence[str]) -> list[Line]:
    """What the reader must know of presets, prompts, the cells together, and the candidate."""
    from resurgence_harness.reporting.terminal import Segment
    from resurgence_harness.reporting.together import over_recipes, sentence_of

    told: list[Line] = []
    if changed := run["selection"]["changed"]:
        words = ", ".join(f"{name}={value}" for name, value in changed.items())
        told.append([Segment(f"Changed from the preset: {words}", "warn")])
    told += [[Segment(note, "warn")] for note in notes]
    told += [[Segment(note, "warn")] for note in run["selection"].get("notes", ())]
    if run["cells"]:
        told += [[Segment(words, "dim")] for words in over_recipes(run["cells"])]
        told.append([Segment(sentence_of(run["family"]), "dim")])
    if gate := run.get("gate"):
        audit = [gate["audit"]["words"]] if gate["audit"] else []
        told += [[Segment(note, "dim")] for note in [*gate["notes"], *audit]]
    return told
