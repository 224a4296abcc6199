"""The limits file beside a suite: limits and acceptances, in one reviewed YAML file.

    policy:                      # for every cell; missing keys keep their defaults
      alpha: 0.01
      tasks:
        unsafe: {positive_control: 0.5}
    cells:                       # optional: other limits for some cells; later entries win
      - {method: esd, count: 100, level: 0.2}
    acceptances: []              # see acceptances.py

The most specific value wins: defaults < the task's defaults < `policy` < `policy.tasks` < `cells`. A mistake is a
UserError that names the field's path and the value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError

from resurgence_harness.errors import SpecError, UserError, sentence, shown
from resurgence_harness.limits.acceptances import AcceptanceEntry, Count, Entry, Fraction, Word
from resurgence_harness.limits.mistakes import wrong
from resurgence_harness.limits.names import same_names
from resurgence_harness.statistics.intervals import check_alpha
from resurgence_harness.statistics.policies import Acceptance, Binding, Policy
from resurgence_harness.strict_yaml import Document, read_yaml

if TYPE_CHECKING:
    from resurgence_harness.specs import Cell


class PolicyEntry(Entry):
    """Limits to set; None keeps the less specific value."""

    alpha: Fraction | None = None
    delta: Fraction | None = None
    level: Fraction | None = None
    delta_u: Fraction | None = None
    incidental: Fraction | None = None
    unlearned_at_most: Fraction | None = None
    positive_control: Fraction | None = None
    positive_images: Count | None = None
    utility_floor: Fraction | None = None

    def over(self, policy: Policy) -> Policy:
        """`policy` with the values that are set here."""
        names = PolicyEntry.model_fields
        return replace(policy, **{name: value for name in names if (value := getattr(self, name)) is not None})


class DefaultPolicyEntry(PolicyEntry):
    """The file's `policy`: limits for every cell, and for single tasks."""

    tasks: dict[Word, PolicyEntry] = Field(default_factory=dict)


class CellEntry(PolicyEntry):
    """Limits for the cells that match; omitted fields match everything."""

    task: Word | None = None
    method: Word
    count: Count | None = None
    finetuning: Word | None = None

    def names(self, cell: Cell) -> bool:
        """Whether this cell matches."""
        return all(
            wanted is None or wanted == has
            for wanted, has in (
                (self.task, cell.task),
                (self.method, cell.method),
                (self.count, cell.count),
                (self.finetuning, cell.finetuning),
            )
        )


class LimitsFile(Entry):
    """The whole file."""

    policy: DefaultPolicyEntry = DefaultPolicyEntry()
    cells: tuple[CellEntry, ...] = ()
    acceptances: tuple[AcceptanceEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits and acceptances, looked up by cell."""

    file: LimitsFile = field(default_factory=LimitsFile)
    acceptances: tuple[Acceptance, ...] = ()
    path: str = ""
    """Where it was read; empty for the defaults."""
    text: str = field(default="", repr=False, compare=False)
    """The file's text."""
    sha256: str = field(default="", compare=False)
    """sha256 of the file's bytes; empty for the defaults."""
    lines: tuple[tuple[int, int], ...] = field(default=(), compare=False)
    """First and last line of every acceptance, counted from 1."""

    def policy_for(self, cell: Cell) -> Policy:
        """The policy of one cell."""
        policy = self.file.policy.over(Policy.for_task(cell.task))
        if cell.task in self.file.policy.tasks:
            policy = self.file.policy.tasks[cell.task].over(policy)
        for entry in self.file.cells:
            policy = entry.over(policy) if entry.names(cell) else policy
        return policy

    def acceptance_for(
        self,
        cell: Cell,
        base_digest: str | None = None,
        step_versions: Mapping[str, int] | None = None,
        settings: str = "",
        *,
        concepts: Iterable[str] = (),
    ) -> Acceptance | None:
        """The acceptance of one cell; None if there is none, or if it is bound to other weights or other steps.

        `concepts`: names of the cell's erased concepts. An acceptance that names others does not apply; one that names
        none applies to any.

        Among several, those recorded for these settings or for any come first, then the one that expires last, then a
        bound one. `decide` checks the expiry, and rejects one that was recorded for other settings only.
        """
        here = Binding.of(base_digest, step_versions) if base_digest and step_versions is not None else None
        names = same_names(concepts)
        found = [
            one
            for one in self.acceptances
            if (one.task, one.method, one.count, one.finetuning)
            == (cell.task, cell.method, cell.count, cell.finetuning)
            and (not one.concepts or same_names(one.concepts) == names)
            and (one.bound_to is None or replace(one.bound_to, settings="") == here)
        ]
        return max(
            found,
            key=lambda one: (one.recorded_for(settings), one.expires or date.max, one.bound_to is not None),
            default=None,
        )

    @property
    def digest(self) -> str:
        """sha256 over the defaults and the file's content; comments and layout do not count."""
        file = self.file.model_dump(mode="json")
        for one in file["acceptances"]:
            if not one["concepts"]:
                del one["concepts"]  # so that files without this key keep their digest
        content = {"defaults": asdict(Policy()), "file": file}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_limits(path: str | Path, *, what: str = "limits file") -> Limits:
    """Read a limits file; UserError, with field and value, for any mistake in it."""
    path = Path(path)
    file, document = read_file(
        path, LimitsFile, what, "Give a YAML file, or leave the option out for the default limits."
    )
    for name, value in (
        ("policy.alpha", file.policy.alpha),
        *((f"policy.tasks.{task}.alpha", entry.alpha) for task, entry in file.policy.tasks.items()),
        *((f"cells.{place}.alpha", entry.alpha) for place, entry in enumerate(file.cells)),
    ):
        if value is not None:
            reading(path, name, partial(check_alpha, value))
    acceptances: list[Acceptance] = []
    for place, entry in enumerate(file.acceptances):
        acceptance: Acceptance = reading(path, f"acceptances.{place}", entry.read)
        for earlier in acceptances:
            if _about(acceptance) == _about(earlier):
                raise UserError(
                    sentence(
                        f"{shown(str(path), limit=None)}: acceptances.{place} accepts "
                        f"{entry.method}-{entry.count}-{entry.finetuning} ({entry.task}) a second time.",
                        do="Keep one acceptance per cell, concepts and weights.",
                    )
                )
        acceptances.append(acceptance)
    lines = tuple(document.lines["acceptances", place] for place in range(len(acceptances)))
    return Limits(
        file=file,
        acceptances=tuple(acceptances),
        path=str(path),
        text=document.text,
        sha256=document.sha256,
        lines=lines,
    )


def _about(one: Acceptance) -> tuple[object, ...]:
    """What an acceptance applies to; two acceptances must not have the same."""
    return one.task, one.method, one.count, one.finetuning, one.bound_to, same_names(one.concepts)


Kind = TypeVar("Kind", bound=Entry)


def read_file(path: Path, kind: type[Kind], what: str, do: str) -> tuple[Kind, Document]:
    """A reviewed YAML file as a checked value; UserError, with field and value, for any mistake in it."""
    document = read_yaml(path, what, do)
    content = {} if document.content is None else document.content
    try:
        return kind.model_validate(content), document
    except ValidationError as error:
        raise wrong(str(path), content, error) from None


def reading(path: Path, field: str, read: Any) -> Any:
    """Read one entry; an error names its path in the file."""
    try:
        return read()
    except SpecError as error:
        raise UserError(f"{shown(str(path), limit=None)}: {field}: {error}") from None
