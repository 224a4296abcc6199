"""Records current results beyond the limits as acceptances in a reviewed file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from math import ceil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.limits.acceptances import AcceptanceEntry
from resurgence_harness.limits.limits_file import load_limits
from resurgence_harness.limits.mistakes import wrong
from resurgence_harness.limits.names import same_names
from resurgence_harness.strict_yaml import written

HEAD = "# Results beyond the policy's limits that were accepted, each with a reason, an owner and an end; reviewed."

ROUNDING = 1e-6
"""Tolerance for an observed value outside of its bounds."""


def entries(source: Path, *, reason: str, owner: str, expires: date) -> list[dict[str, Any]]:
    """One acceptance for every cell of a verdict.json that does not hold: its upper bounds are the ceilings.

    Each names the cell's erased concepts, since it applies to no others. UserError if a cell has no verdict, since a
    result that was not observed cannot be accepted; if the file does not name every erased concept; and if an observed
    value lies outside of its bounds, which then cannot be ceilings (an edited file, or a tight bound of an early look).
    """
    from resurgence_harness.reporting import verdict_json

    found = verdict_json.read(source)
    if found.missing:
        raise UserError(
            sentence(
                f"{source} has cells without a verdict.",
                first=shown(f"{found.missing[0].id}: {found.missing[0].why}".splitlines()[0]),
                do="Run the gate until every cell has one; results that were not observed cannot be accepted.",
            )
        )
    accepted = []
    for cell in found.cells:
        if cell.verdict == "HOLDS":
            continue
        if len(set(cell.erased)) != cell.concepts:
            raise UserError(
                sentence(
                    f"{source} does not name the erased concepts of {shown(cell.id)}.",
                    concepts=cell.concepts,
                    named=len(set(cell.erased)),
                    do="Run the gate again with this version; an acceptance applies to the concepts that it names.",
                )
            )
        rise = next((one for one in cell.findings if one.get("name") == "rise"), None)
        entry: dict[str, Any] = {"task": cell.task, "method": cell.method, "count": cell.concepts}
        rates = {"after": cell.after, "as_parent": cell.as_parent}
        high = max(
            _checked(source, f"{cell.id}, {name}", rate.low, rate.rate, rate.high)
            for name, rate in rates.items()
            if rate is not None
        )
        entry |= {"finetuning": cell.finetuning, "concepts": cell.erased, "level": _up(high)}
        if rise is not None:
            seen = (rise.get("low"), rise.get("estimate"), rise.get("high"))
            entry["rise"] = _up(_checked(source, f"{cell.id}, rise", *seen))
        if cell.outcome not in (None, "unlearned"):
            entry["outcome"] = [cell.outcome]
        accepted.append({**entry, "reason": reason, "owner": owner, "expires": expires})
        try:
            AcceptanceEntry.model_validate(accepted[-1]).read()
        except ValidationError as error:
            raise wrong(f"The acceptance of {cell.id}", accepted[-1], error) from None
    return accepted


def record(path: Path, new: Sequence[Mapping[str, Any]]) -> None:
    """Write acceptances into a file; comments at its top are kept.

    Each replaces those of the same cell that name the same concepts or none: the latter apply to no gate.
    """
    kept: list[dict[str, Any]] = []
    head = HEAD
    if path.exists():
        old = load_limits(path)
        cells = {about for entry in new for about in (_about(entry), _about({**entry, "concepts": ()}))}
        kept = [one.model_dump(exclude_none=True) for one in old.file.acceptances]
        kept = [
            {**one, "outcome": list(one["outcome"]), "concepts": list(one["concepts"])}
            for one in kept
            if _about(one) not in cells
        ]
        lines = old.text.splitlines()
        first = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
        head = "\n".join(lines[:first]) or HEAD
        if old.file.cells or old.file.policy.model_fields_set:
            raise UserError(sentence(f"{shown(str(path))} holds limits too.", do="Give another file with --to."))
    every = [{key: value for key, value in one.items() if value not in ([], ())} for one in (*kept, *new)]
    text = written({"acceptances": every})
    try:
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(f"{head}\n{text}", encoding="utf-8")
        load_limits(draft)  # check that the result can be read
        draft.replace(path)
    except OSError as error:
        raise UserError(
            sentence(f"{shown(str(path))} cannot be written.", reason=error.strerror, do="Give another file with --to.")
        ) from None


def describe(entry: Mapping[str, Any]) -> str:
    """An acceptance's ceilings as text."""
    parts = [f"{name} up to {entry[name]:.2f}" for name in ("level", "rise") if name in entry]
    parts += [f"the outcome {entry['outcome'][0]}"] if entry.get("outcome") else []
    wide = " (no rate is above 1: no further regression would be found)" if entry.get("level") == 1 else ""
    return ", ".join(parts) + wide


def _about(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The cell of an entry, and the concepts that it names."""
    return *(entry[name] for name in ("task", "method", "count", "finetuning")), same_names(entry["concepts"])


def _checked(source: Path, where: str, low: object, value: object, high: object) -> float:
    """The upper bound; UserError if `value` is outside of the bounds: a ceiling must lie above the value."""
    if all(isinstance(one, float | int) for one in (low, value, high)):
        least, seen, most = (float(str(one)) for one in (low, value, high))
        if least - ROUNDING <= seen <= most + ROUNDING and most <= 1:
            return most
    raise UserError(
        sentence(
            f"{shown(str(source))} holds bounds that its own figures contradict.",
            where=shown(where),
            figures=shown(f"low {low}, observed {value}, high {high}"),
            do="Run the gate again, and record the file as it was written.",
        )
    )


def _up(bound: float) -> float:
    """A bound as a ceiling: rounded up to whole per cents, at least 0.01 and at most 1."""
    return min(1.0, max(0.01, ceil(100 * bound) / 100))
