"""The exception tree.

    ResurgenceError
    ├─ NotBuilt                      evidence is missing that this run must not build: no verdict     Allure: broken
    ├─ HarnessError(RuntimeError)    the harness failed; no statement about the model      Allure: broken
    │  ├─ StoreError                 the store cannot be used
    │  │  ├─ Corrupt                 the bytes read differ from the bytes written
    │  │  ├─ Unwritable              the disk is full or the path is gone
    │  │  │  └─ ReadOnly             writing is refused
    │  │  └─ Unreachable             a remote store does not answer
    │  ├─ BuildError                 training failed: a NaN, or no tensor changed
    │  └─ JudgeError                 the judge is not usable: weights differ, no calibration, a NaN score
    └─ UserError(ValueError)         a mistake in the user's input; pytest exit code 4, no traceback
       └─ SpecError                  an invalid value

    Unsafe(AssertionError)           a cell that must not pass                               Allure: failed
    ├─ Violated                      the erased concept came back: a safety regression
    └─ Undecided                     the evidence does not suffice

The first line of every message is the whole sentence; aligned facts follow; the last line says what to do.
"""

from __future__ import annotations

import re
import unicodedata


class ResurgenceError(Exception):
    """Base class of all errors that this package raises on purpose, except verdicts."""


class HarnessError(ResurgenceError, RuntimeError):
    """The harness failed. Never evidence of safety."""


class NotBuilt(ResurgenceError):
    """Evidence is missing from the store, and this run builds nothing: its cell has no verdict."""


class StoreError(HarnessError):
    """The store cannot be used."""


class Corrupt(StoreError):
    """The bytes read differ from the bytes that were written."""


class Unwritable(StoreError):
    """The store is read-only or full, or its path no longer exists."""


class ReadOnly(Unwritable):
    """The store can be read but not written."""


class Unreachable(StoreError):
    """A remote store does not answer, or refuses access."""


class BuildError(HarnessError):
    """A step failed: its loss became NaN, or it changed no tensor."""


class JudgeError(HarnessError):
    """A judge is not usable: its weights differ, it has no calibration, or it gives a NaN score."""


class UserError(ResurgenceError, ValueError):
    """A mistake in the user's input; the message is written for the user."""


class SpecError(UserError):
    """An invalid value; raised when the object that holds it is created."""


class Unsafe(AssertionError):
    """A cell that must not pass."""


class Violated(Unsafe):
    """The criterion is broken: a safety regression."""


class Undecided(Unsafe):
    """The evidence does not suffice to decide."""


def sentence(first: str, /, *, do: str = "", **facts: object) -> str:
    """An error message in the package's format: the sentence, aligned facts, what to do.

    Underscores in the names of facts are shown as spaces. Each part is one line. Characters that would be invisible, or
    would move the text around them, are written as escapes.
    """
    width = max((len(name) for name in facts), default=0)
    lines = [visible(first), *(f"  {name.replace('_', ' '):<{width}}  {visible(str(facts[name]))}" for name in facts)]
    return "\n".join([*lines, f"  {visible(do)}"] if do else lines)


def shown(text: str, *, limit: int | None = 100) -> str:
    """A name read from a file, fit for a message: one line, every character visible, at most `limit` characters."""
    plain = visible(text if limit is None else text[: limit + 1])
    return plain if limit is None or len(plain) <= limit else plain[: limit - 1] + "…"


def visible(text: str) -> str:
    """The text with escapes for every character that is invisible or misleading; all text from files is printed so.

    Escaped are line breaks and control characters, marks of direction, characters without width or without a glyph,
    private and unassigned ones, letters of another script among Latin ones, and letters that look like ASCII.
    """
    if text.isascii() and text.isprintable():
        return text
    imitating = _imitations(text) | _heaped(text)
    return "".join(
        _escaped(c) if place in imitating or not c.isprintable() or _INVISIBLE.match(c) else c
        for place, c in enumerate(text)
    )


def hides(text: str) -> bool:
    """Whether a text holds invisible characters, or more combining marks on a letter than can be read."""
    if text.isascii():
        return not text.isprintable()
    return any(not c.isprintable() or _INVISIBLE.match(c) is not None for c in text) or _heaped(text) != set()


_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Printable for Python but invisible: joiners, fillers, variation selectors, the empty Braille cell."""
_MARKS = 3
"""Combining marks allowed on one letter; more of them overlap the neighbouring lines."""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _imitations(text: str) -> set[int]:
    """Positions of look-alike characters: of another script among Latin letters, or shaped like ASCII."""
    found: set[int] = set()
    for word in _WORD.finditer(text):
        scripts = {place: _script(word.string[place]) for place in range(word.start(), word.end())}
        if "LATIN" in scripts.values():
            found.update(place for place, script in scripts.items() if script in _ALIKE)
    found.update(
        place
        for place, c in enumerate(text)
        if not c.isascii() and (c.isalpha() or c.isdecimal()) and unicodedata.normalize("NFKC", c).isascii()
    )
    return found


def _heaped(text: str) -> set[int]:
    """Positions of combining marks beyond `_MARKS` on one letter."""
    found, marks = set(), 0
    for place, c in enumerate(text):
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks > _MARKS:
            found.add(place)
    return found


def _script(character: str) -> str:
    return "LATIN" if character.isascii() else unicodedata.name(character, "").partition(" ")[0]


_WORD = re.compile(r"[^\W\d_]+")
_ALIKE = {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET", "OLD", "GLAGOLITIC"}
"""Scripts with letters that look like Latin ones, as the first word of their characters' names."""
