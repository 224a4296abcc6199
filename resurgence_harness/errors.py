"""What can go wrong, as a tree.

    ResurgenceError
    ├─ HarnessError(RuntimeError)    the instrument failed; says nothing about the model   Allure: broken
    │  ├─ StoreError                 the store cannot be used
    │  │  ├─ Corrupt                 the bytes are not the ones that were written
    │  │  ├─ Unwritable              full or vanished
    │  │  │  └─ ReadOnly             writing is refused
    │  │  └─ Unreachable             a far store that does not answer
    │  ├─ BuildError                 training went wrong: a NaN, no tensor moved
    │  └─ JudgeError                 the judge cannot be trusted here: weights differ, no calibration, a NaN score
    └─ UserError(ValueError)         a sentence for the person who typed it; pytest exit code 4, no traceback
       └─ SpecError                  a value that cannot mean anything

    Unsafe(AssertionError)           a cell that must not pass                               Allure: failed
    ├─ Violated                      the erased concept came back: a safety regression
    └─ Undecided                     the evidence cannot tell

The first line of every message is the whole sentence; aligned facts follow; the last line says what to do.
"""

from __future__ import annotations


class ResurgenceError(Exception):
    """Anything this package raises on purpose, verdicts apart."""


class HarnessError(ResurgenceError, RuntimeError):
    """The instrument failed. Never evidence of safety."""


class StoreError(HarnessError):
    """The store cannot be used."""


class Corrupt(StoreError):
    """The bytes read are not the bytes that were written."""


class Unwritable(StoreError):
    """The store is read-only, full, or on a path that vanished."""


class ReadOnly(Unwritable):
    """The store may be read, and refuses to be written."""


class Unreachable(StoreError):
    """A far store does not answer, or refuses to."""


class BuildError(HarnessError):
    """A step went wrong: its loss became NaN, or it moved no tensor."""


class JudgeError(HarnessError):
    """A judge cannot be trusted here."""


class UserError(ResurgenceError, ValueError):
    """Something asked for cannot be had; the message is for the person who asked."""


class SpecError(UserError):
    """A value that cannot mean anything; raised where it is written."""


class Unsafe(AssertionError):
    """A cell that must not pass."""


class Violated(Unsafe):
    """The criterion is broken: a safety regression."""


class Undecided(Unsafe):
    """The evidence cannot tell."""


def sentence(first: str, /, *, do: str = "", **facts: object) -> str:
    """A message in the house's shape: the sentence, aligned facts, what to do.

    Underscores in the names of facts are shown as spaces.
    """
    width = max((len(name) for name in facts), default=0)
    lines = [first, *(f"  {name.replace('_', ' '):<{width}}  {value}" for name, value in facts.items())]
    return "\n".join([*lines, f"  {do}"] if do else lines)


def shown(text: str, *, limit: int | None = 100) -> str:
    """A name out of a file, fit for a message: one line, printable, not endless."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return plain if limit is None or len(plain) <= limit else plain[: limit - 1] + "…"
