"""The `acceptances:` of a limits file: results beyond the policy that a reviewer accepted.

acceptances:
  - task: celebrity
    method: esd
    count: 10
    finetuning: lora
    level: 0.62              # ceiling of the erased rate after fine-tuning
    rise: 0.60               # ceiling of the paired rise
    outcome: not unlearned   # optional: an outcome of the unlearning that is accepted
    reason: ESD is known to resurge; kept as a reference
    owner: release manager
    expires: 2027-01-31      # an end, or the weights it is bound to, or both
    bound_to: {base: 3f5a…, steps: {esd: 1, lora: 1}, settings: '82f0c1d2e3a4'}
    concepts: [Ada Quill]    # names of the erased concepts; a release gate applies no acceptance without them

`settings` is the digest of the steps' values that every verdict of the suite shows (bindings.py): with other values the
acceptance does not apply, and the verdict reports that. `expires` is a day as YYYY-MM-DD, the last on which the
acceptance applies, by the date in UTC (`statistics.policies.day_in_utc`); at most `YEARS` years ahead.

`concepts` are the names of the erased concepts that the result was measured on. A suite's cell fixes its concepts, so
there they may be left out. A gate's policy does not: the same group name and count may stand for other concepts, so a
gate applies an acceptance only where its names and the group's are the same (`names.same_names`).
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from resurgence_harness.statistics.policies import Acceptance, Binding, UnlearningOutcome, day_in_utc

YEARS = 5
"""How far ahead an acceptance may end."""
Fraction = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Ceiling = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Outcome = Literal["unlearned", "not unlearned", "collapsed"]
Word = Annotated[str, Field(strict=True, min_length=1, max_length=4000, pattern=r"\S")]


def _several(value: object) -> object:
    """A single string as a list of one."""
    return [value] if isinstance(value, str) else value


def _digits(text: str) -> str:
    if not re.fullmatch(r"([0-9a-f]{12})?", text):
        raise ValueError("12 hexadecimal digits are expected, as a verdict shows them")
    return text


def read_day(value: object) -> date:
    """A day from text as YYYY-MM-DD; ValueError for anything else, and for one that is too far ahead."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            raise ValueError("there is no such day") from None
    if not isinstance(value, date) or isinstance(value, datetime):
        raise ValueError("a day is expected, as 2027-06-30")
    last = day_in_utc() + timedelta(days=366 * YEARS)
    if value > last:
        raise ValueError(f"a day until {last} is expected; an end more than {YEARS} years ahead is none")
    return value


class Entry(BaseModel):
    """A part of a limits file: unknown keys are refused, since a misspelt limit would silently not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BindingEntry(Entry):
    """The weights, steps and values that an acceptance was measured on."""

    base: Word
    steps: dict[Word, Count]
    settings: Annotated[str, Field(strict=True), AfterValidator(_digits)] = ""

    def read(self) -> Binding:
        """As a value."""
        return Binding.of(self.base, self.steps, self.settings)


class AcceptanceEntry(Entry):
    """One acceptance as written in the file."""

    task: Word
    method: Word
    count: Count
    finetuning: Word
    level: Ceiling | None = None
    rise: Ceiling | None = None
    outcome: Annotated[tuple[Outcome, ...], BeforeValidator(_several)] = ()
    """One string or a list."""
    reason: Word
    owner: Word
    expires: Annotated[date, BeforeValidator(read_day)] | None = None
    bound_to: BindingEntry | None = None
    concepts: Annotated[tuple[Word, ...], Field(max_length=10_000)] = ()
    """Names of the erased concepts."""

    def read(self) -> Acceptance:
        """As a value; SpecError if it accepts nothing or has neither an end nor a binding."""
        return Acceptance(
            task=self.task,
            method=self.method,
            count=self.count,
            finetuning=self.finetuning,
            level=self.level,
            rise=self.rise,
            outcomes=tuple(UnlearningOutcome(word) for word in self.outcome),
            reason=self.reason,
            owner=self.owner,
            expires=self.expires,
            bound_to=self.bound_to.read() if self.bound_to else None,
            concepts=self.concepts,
        )
