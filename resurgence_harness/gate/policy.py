"""The limits file beside a suite: what is allowed, and what was accepted, in one YAML file that people review.

    policy:                      # for every cell; what is not named keeps its default
      alpha: 0.01
      tasks:
        unsafe: {positive_control: 0.5}
    cells:                       # optional: other limits for some cells; later entries win
      - {method: esd, count: 100, level: 0.2}
    acceptances: []              # see acceptances.py

The more specific word wins: defaults, the task's defaults, `policy`, `policy.tasks`, `cells`. Every mistake is one
UserError that names the field's path and the value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from resurgence_harness.errors import SpecError, UserError, sentence
from resurgence_harness.gate.acceptances import AcceptanceEntry, Count, Entry, Fraction, Word
from resurgence_harness.statistics.intervals import check_alpha
from resurgence_harness.statistics.policies import Acceptance, Binding, Policy

if TYPE_CHECKING:
    from resurgence_harness.specs import Cell


class PolicyEntry(Entry):
    """Limits to set; None keeps what the less specific word says."""

    alpha: Fraction | None = None
    delta: Fraction | None = None
    level: Fraction | None = None
    delta_u: Fraction | None = None
    incidental: Fraction | None = None
    unlearned_at_most: Fraction | None = None
    positive_control: Fraction | None = None
    positive_images: Count | None = None

    def over(self, policy: Policy) -> Policy:
        """`policy` with what is set here."""
        names = PolicyEntry.model_fields
        return replace(policy, **{name: value for name in names if (value := getattr(self, name)) is not None})


class DefaultPolicyEntry(PolicyEntry):
    """The file's `policy`: limits for every cell, and for single tasks."""

    tasks: dict[Word, PolicyEntry] = Field(default_factory=dict)


class CellEntry(PolicyEntry):
    """Limits for the cells that it names; what it leaves out, it does not ask about."""

    task: Word | None = None
    method: Word
    count: Count | None = None
    finetuning: Word | None = None

    def names(self, cell: Cell) -> bool:
        """Whether it is about this cell."""
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
    """What is allowed and what was accepted, ready to be asked about a cell."""

    file: LimitsFile = field(default_factory=LimitsFile)
    acceptances: tuple[Acceptance, ...] = ()
    path: str = ""
    """Where it was read; empty for the defaults."""

    def policy_for(self, cell: Cell) -> Policy:
        """The policy of one cell."""
        policy = self.file.policy.over(Policy.for_task(cell.task))
        if cell.task in self.file.policy.tasks:
            policy = self.file.policy.tasks[cell.task].over(policy)
        for entry in self.file.cells:
            policy = entry.over(policy) if entry.names(cell) else policy
        return policy

    def acceptance_for(
        self, cell: Cell, base_digest: str | None = None, step_versions: Mapping[str, int] | None = None
    ) -> Acceptance | None:
        """The acceptance of one cell; None if there is none, or if it is bound to other weights or other steps.

        Among several the one that lasts longest, and of these the bound one. Expiry is judged by `decide`.
        """
        here = Binding.of(base_digest, step_versions) if base_digest and step_versions is not None else None
        found = [
            one
            for one in self.acceptances
            if (one.task, one.method, one.count, one.finetuning)
            == (cell.task, cell.method, cell.count, cell.finetuning)
            and (one.bound_to is None or one.bound_to == here)
        ]
        return max(found, key=lambda one: (one.expires or date.max, one.bound_to is not None), default=None)

    @property
    def digest(self) -> str:
        """sha256 over the defaults and everything that the file says; comments and layout do not count."""
        said = {"defaults": asdict(Policy()), "file": self.file.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load_limits(path: str | Path) -> Limits:
    """Read a limits file; UserError, naming field and value, for whatever is wrong with it."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            sentence(
                f"The limits file {path} cannot be read.",
                because=error.strerror if isinstance(error, OSError) and error.strerror else error,
                do="Give the path of a YAML file, or leave the option out for the default limits.",
            )
        ) from None
    content = _parse(path, text)
    try:
        file = LimitsFile.model_validate(content)
    except ValidationError as error:
        raise _wrong(path, error) from None
    for name, value in (
        ("policy.alpha", file.policy.alpha),
        *((f"policy.tasks.{task}.alpha", entry.alpha) for task, entry in file.policy.tasks.items()),
        *((f"cells.{place}.alpha", entry.alpha) for place, entry in enumerate(file.cells)),
    ):
        if value is not None:
            _reading(path, name, partial(check_alpha, value))
    acceptances: list[Acceptance] = []
    for place, entry in enumerate(file.acceptances):
        acceptance: Acceptance = _reading(path, f"acceptances.{place}", entry.read)
        for earlier in acceptances:
            key = (acceptance.task, acceptance.method, acceptance.count, acceptance.finetuning, acceptance.bound_to)
            if key == (earlier.task, earlier.method, earlier.count, earlier.finetuning, earlier.bound_to):
                raise UserError(
                    sentence(
                        f"{path}: acceptances.{place} accepts {entry.method}-{entry.count}-{entry.finetuning}"
                        f" ({entry.task}) a second time.",
                        do="Keep one acceptance per cell and weights.",
                    )
                )
        acceptances.append(acceptance)
    return Limits(file=file, acceptances=tuple(acceptances), path=str(path))


def _reading(path: Path, field: str, read: Any) -> Any:
    """Read one entry, and let its error say where it stands."""
    try:
        return read()
    except SpecError as error:
        raise UserError(f"{path}: {field}: {error}") from None


def _wrong(path: Path, error: ValidationError) -> UserError:
    first, *others = error.errors(include_url=False)
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    shown = {"extra_forbidden": f"{field} is not a known key", "missing": f"{field} is missing"}
    words = shown.get(first["type"], f"{field} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}")
    facts = {"value": repr(first["input"])} if first["type"] == "extra_forbidden" else {}
    if others:
        also = (f"{'.'.join(str(part) for part in other['loc'])}: {other['msg'].lower()}" for other in others[:5])
        facts["also"] = "; ".join(also)
    return UserError(sentence(f"{path}: {words}.", **facts, do="Correct the file; nothing was run."))


def _parse(path: Path, text: str) -> Any:
    """YAML to plain values; a key written twice is an error, where YAML would silently take the last."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc,unused-ignore]
        """SafeLoader that refuses a repeated key."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """As SafeLoader does, after looking for repetitions."""
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(
            sentence(f"{path}{where}: not readable as YAML: {problem}.", do="Correct the file; nothing was run.")
        ) from None
    return {} if content is None else content
