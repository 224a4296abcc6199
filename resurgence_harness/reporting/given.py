"""The methods, judges and tasks of a cell that are not this package's own; every verdict names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resurgence_harness.registry import Entry, given_parts
from resurgence_harness.specs import Cell


def parts_of(cell: Cell, judges: Sequence[str], *, built: bool = True) -> tuple[Entry, ...]:
    """The registered parts of a cell that are not built in.

    `built`: whether its models were built here; a gate's candidates were not, so their cells have no method.
    """
    steps = [("unlearning", cell.method), ("finetuning", cell.finetuning)] if built else []
    if cell.life is not None:
        steps = [("unlearning" if stage.unlearning else "finetuning", stage.name) for stage in cell.life.stages]
    return given_parts([*steps, ("task", cell.task), *(("judge", name) for name in judges)])


def notes_on(parts: Iterable[Entry]) -> list[str]:
    """A note on each part that a package or plugin registered, or that replaces another."""
    return [part.note for part in parts if part.named]
