"""A strict subset of YAML without ambiguous syntax: mappings, lists, text and numbers.

    read_yaml(path, "policy file", "Write one with …").content     {'limits': {'level': 0.1}}

One document in UTF-8; keys are text, each once. Numbers are decimal (5, -0.1, 1e-3); `true`, `false`, `null` and `~`
are a bool or None; dates are read as text. Rejected, with the line and the key in the message: anchors, aliases, tags
(`!!set`), merge keys, scalars that YAML 1.1 and 1.2 read differently (yes, no, on, off, 010, 0x1F, 1_000, 1:30), deep
nesting and more than `MOST` values. Time and memory are linear in the size of the file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, hides, sentence, shown
from resurgence_harness.reviewed_text import read_reviewed

MOST, DEEPEST, LONGEST_NUMBER = 50_000, 16, 40
"""Maximum number of values and keys in a file, of nesting levels, and of characters in a number."""
Where = tuple[str | int, ...]
"""The path to a value: keys of mappings and indices of lists."""
_NULL, _TRUE, _FALSE = {"", "~", "null", "Null", "NULL"}, {"true", "True", "TRUE"}, {"false", "False", "FALSE"}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_TRUTH = re.compile(r"yes|no|on|off", re.I)
_NO_NUMBER = re.compile(r"[-+]?\.(inf|nan)", re.I)
_ODD_NUMBER = re.compile(
    r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9_]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9_]+)?"
    r"|0[xX][0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)",
    re.I,
)


class NotStrict(ValueError):
    """The text is outside the strict subset; `line` counts from 1, 0 if it is unknown."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True, kw_only=True)
class Document:
    """A parsed file with the line numbers of its values."""

    text: str
    content: Any
    """dict, list, str, int, float, bool or None; None for an empty file."""
    lines: dict[Where, tuple[int, int]]
    """First and last line of every value of a list or mapping, counted from 1, by the path to it."""
    sha256: str = ""
    """Of the file's bytes; empty for text that was not read from a file."""


def read_yaml(path: Path, what: str, do: str) -> Document:
    """Read a reviewed YAML file; UserError naming the line and the problem. `what` and `do` as for `read_reviewed`."""
    found = read_reviewed(path, what, do)
    try:
        return replace(parse(found.text), sha256=found.sha256)
    except NotStrict as problem:
        where = f", line {problem.line}" if problem.line else ""
        raise UserError(
            sentence(
                f"{shown(str(path), limit=None)}{where}: not readable as YAML: {problem}.",
                do="Correct the file; nothing was run.",
            )
        ) from None


def parse(text: str, *, loader: Any = None) -> Document:
    """Parse text without hidden characters (`reviewed_text.decoded`); NotStrict for anything outside the subset.

    `loader`: the PyYAML loader whose parser is used; default: libyaml's, or the pure Python one if libyaml is missing.
    """
    import yaml

    building = _Building()
    try:
        for event in yaml.parse(text, Loader=loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            building.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or next(iter(str(error).splitlines()), "it has no structure")
        problem = (
            "a tab is used where only spaces are allowed" if "'\\t'" in problem else shown(problem).removesuffix(".")
        )
        raise NotStrict(problem, mark.line + 1 if mark is not None else 0) from None
    return Document(text=text, content=building.content, lines=building.lines)


def plain(scalar: str) -> Any:
    """The value of a scalar without quotes: None, bool, number or text; NotStrict where YAML parsers disagree."""
    if scalar in _NULL:
        return None
    if scalar in _TRUE or scalar in _FALSE:
        return scalar in _TRUE
    if _NUMBER.fullmatch(scalar):
        if len(scalar) > LONGEST_NUMBER:
            raise NotStrict(f"is a number of {len(scalar):,} characters")
        number = int(scalar) if _WHOLE.fullmatch(scalar) else float(scalar)
        if number in (float("inf"), -float("inf")):
            raise NotStrict(f"is {scalar}, which is too large for a number")
        return number
    if _TRUTH.fullmatch(scalar):
        raise NotStrict(f"is {scalar}, which some YAML parsers read as true or false: text needs quotes")
    if _NO_NUMBER.fullmatch(scalar):
        raise NotStrict(f"is {scalar}, which is not a finite number: write a decimal, or quotes around text")
    if _ODD_NUMBER.fullmatch(scalar):
        raise NotStrict(
            f"is {shown(scalar, limit=40)}, which YAML parsers read as different numbers: write plain decimals, "
            "or quotes around text"
        )
    return scalar


def written(content: Any) -> str:
    """YAML that `parse` reads as the same content: no aliases, quotes around text that needs them."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """SafeDumper that writes the strict subset."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"' if _needs_quotes(value) else None)

    Dumper.add_representer(str, text)
    return str(yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120))


def _needs_quotes(text: str) -> bool:
    try:
        return not isinstance(plain(text), str) or hides(text)
    except NotStrict:
        return True


def place(where: Iterable[str | int]) -> str:
    """ "limits.level"."""
    return ".".join(shown(str(part), limit=40) for part in where)


@dataclass
class _Open:
    """A list or mapping that is being read."""

    where: Where
    value: Any
    begins: int
    ends: int
    """Lines; `ends` grows with every value read."""
    key: str | None = None
    """In a mapping: the key whose value comes next."""
    keys: set[str] = field(default_factory=set)


class _Building:
    """Builds the content from the parser's events, without recursion."""

    def __init__(self) -> None:
        self.content: Any = None
        self.lines: dict[Where, tuple[int, int]] = {}
        self._open: list[_Open] = []
        self._documents = self._count = 0

    def take(self, event: Any) -> None:
        """Process the next event."""
        kind, line = type(event).__name__, event.start_mark.line + 1
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1 or event.tags:
                raise NotStrict("a second document begins" if self._documents > 1 else "%TAG is not supported", line)
        elif kind == "AliasEvent":
            raise NotStrict(f"the alias *{shown(event.anchor, limit=40)} is not supported, write the value out", line)
        elif kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent"):
            self._check(event, line)
            if kind == "ScalarEvent":
                self._scalar(event, line)
            else:
                self._begin({} if kind == "MappingStartEvent" else [], line)
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            done = self._open.pop()
            written_out = event.end_mark.index > event.start_mark.index  # a bracket, where blocks end without one
            self._put(done.value, (done.begins, event.end_mark.line + 1 if written_out else done.ends))

    def _check(self, event: Any, line: int) -> None:
        self._count += 1
        if self._count > MOST:
            raise NotStrict(f"it holds more than {MOST:,} values", line)
        if event.anchor is not None:
            raise NotStrict(f"the anchor &{shown(event.anchor, limit=40)} is not supported, write the value out", line)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise NotStrict(f"the tag {shown(tag, limit=60)} is not supported, write plain values", line)

    def _scalar(self, event: Any, line: int) -> None:
        top = self._open[-1] if self._open else None
        is_key = top is not None and isinstance(top.value, dict) and top.key is None
        if is_key and event.value == "<<" and not event.style:
            raise NotStrict("the merge key << is not supported, write the values out", line)
        try:
            value = event.value if event.style else plain(event.value)
        except NotStrict as problem:
            name = "the key" if is_key else place(self._where()) or "the file"
            raise NotStrict(f"{name} {problem}", line) from None
        if is_key:
            self._key(value, event.value, line)
        else:
            self._put(value, (line, max(line, event.end_mark.line + (event.end_mark.column > 0))))

    def _key(self, value: Any, scalar: str, line: int) -> None:
        if not isinstance(value, str):
            name = shown(scalar, limit=40) or "without a name"
            raise NotStrict(f"the key {name} is not text: write it in quotes", line)
        top = self._open[-1]
        same = unicodedata.normalize("NFKC", value)
        if same in top.keys:
            raise NotStrict(f"the key {place((*top.where, value))} appears twice", line)
        top.keys.add(same)
        top.key = value

    def _begin(self, value: Any, line: int) -> None:
        if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
            raise NotStrict("a list or a mapping is used as a key", line)
        if len(self._open) >= DEEPEST:
            raise NotStrict(f"it is nested too deeply, more than {DEEPEST} levels", line)
        self._open.append(_Open(where=self._where(), value=value, begins=line, ends=line))

    def _put(self, value: Any, lines: tuple[int, int]) -> None:
        self.lines[self._where()] = lines
        if not self._open:
            self.content = value
            return
        top = self._open[-1]
        top.ends = lines[1]
        if isinstance(top.value, list):
            top.value.append(value)
        else:
            top.value[top.key], top.key = value, None

    def _where(self) -> Where:
        if not self._open:
            return ()
        top = self._open[-1]
        return (*top.where, len(top.value) if isinstance(top.value, list) else top.key or "")
