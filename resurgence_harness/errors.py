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

import re
import unicodedata


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

    Underscores in the names of facts are shown as spaces. Each part is one line, and whatever came out of a file is
    visible in it: characters that would not show, or would move the text around them, are written as escapes.
    """
    width = max((len(name) for name in facts), default=0)
    lines = [visible(first), *(f"  {name.replace('_', ' '):<{width}}  {visible(str(facts[name]))}" for name in facts)]
    return "\n".join([*lines, f"  {visible(do)}"] if do else lines)


def shown(text: str, *, limit: int | None = 100) -> str:
    """A name out of a file, fit for a message: one line, every character visible, not endless."""
    plain = visible(text if limit is None else text[: limit + 1])
    return plain if limit is None or len(plain) <= limit else plain[: limit - 1] + "…"


def visible(text: str) -> str:
    """The text with escapes for whatever a reader would not see as it is; the only way from a file to a person's eyes.

    Escaped are line breaks and control characters, marks of direction, characters without width or without a glyph,
    private and unassigned ones, letters of another script amid Latin ones, and letters that imitate ASCII.
    """
    if text.isascii() and text.isprintable():
        return text
    imitating = _imitations(text) | _heaped(text)
    return "".join(
        _escaped(c) if place in imitating or not c.isprintable() or _INVISIBLE.match(c) else c
        for place, c in enumerate(text)
    )


def hides(text: str) -> bool:
    """Whether a text holds characters that show nothing, or more marks on a letter than can be read."""
    if text.isascii():
        return not text.isprintable()
    return any(not c.isprintable() or _INVISIBLE.match(c) is not None for c in text) or _heaped(text) != set()


_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Printable for Python, yet shown as nothing: joiners, fillers, selectors of variants, the empty Braille cell."""
_MARKS = 3
"""Combining marks on one letter; with more, a line of text reaches into its neighbours."""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _imitations(text: str) -> set[int]:
    """Places of characters that are taken for others: of another script amid Latin letters, or shaped like ASCII."""
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
    """Places of combining marks beyond `_MARKS` on one letter."""
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
