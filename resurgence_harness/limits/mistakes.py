"""Messages for mistakes in a reviewed file, from pydantic's errors: the key, the value, and what is expected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.strict_yaml import place

Context = Mapping[str, Any]
_EXPECTED: Mapping[str, Callable[[Context], str]] = {
    "string_type": lambda _: "text is expected; numbers and true or false need quotes to be text",
    "string_too_short": lambda _: "text is expected that is not empty",
    "string_too_long": lambda context: f"at most {context['max_length']:,} characters are read",
    "string_pattern_mismatch": lambda _: "text is expected that is not empty",
    "int_type": lambda _: "a whole number is expected, without quotes",
    "int_from_float": lambda _: "a whole number is expected",
    "float_type": lambda _: "a number is expected, without quotes",
    "finite_number": lambda _: "a finite number is expected",
    "greater_than": lambda context: f"a number above {context['gt']:g} is expected",
    "greater_than_equal": lambda context: f"a number of at least {context['ge']:g} is expected",
    "less_than": lambda context: f"a number below {context['lt']:g} is expected",
    "less_than_equal": lambda context: f"a number of at most {context['le']:,} is expected",
    "multiple_of": lambda context: f"a multiple of {context['multiple_of']:g} is expected",
    "literal_error": lambda context: f"{context['expected'].replace(chr(39), chr(34))} is expected",
    "tuple_type": lambda _: "a list is expected",
    "dict_type": lambda _: "keys with values are expected",
    "model_type": lambda _: "keys with values are expected",
    "model_attributes_type": lambda _: "keys with values are expected",
    "too_short": lambda context: f"at least {context['min_length']} must be given",
    "too_long": lambda context: f"at most {context['max_length']:,} are read",
    "no_list": lambda _: "a list of names is expected, or the path of a file with one name a line",
    "no_model": lambda _: "a model is expected, or a list of a model and its LoRAs",
    "value_error": lambda context: str(context["error"]),
}
"""What is expected, by the type of a pydantic error. `_describe` handles the other types."""


def wrong(path: str, content: Any, error: ValidationError) -> UserError:
    """A UserError with the first mistake in its sentence, the next ones below. `content`: the parsed file."""
    every = error.errors(include_url=False)
    within = {one["loc"][:length] for one in every for length in range(len(one["loc"]))}
    first, *others = [one for one in every if one["loc"] not in within]  # innermost errors only
    facts = {"value": as_written(first["input"])} if first["type"] == "extra_forbidden" else {}
    if others:
        facts["also"] = "; ".join(_describe(content, other) for other in others[:5])
    return UserError(
        sentence(
            f"{shown(path, limit=None)}: {_describe(content, first)}.", **facts, do="Correct the file; nothing was run."
        )
    )


def as_written(value: Any) -> str:
    """A value as written in the file: text in quotes, true, null."""
    return shown(json.dumps(value, ensure_ascii=False, default=str))


def _describe(content: Any, error: Any) -> str:
    """ "limits.level is "0.1": a number is expected"."""
    where, kind = _place(content, error["loc"], missing=error["type"] == "missing"), error["type"]
    if kind == "extra_forbidden":
        return f"{where} is not a known key"
    if kind == "missing":
        return f"{where} is missing"
    expected = shown(
        _EXPECTED[kind](error.get("ctx", {})) if kind in _EXPECTED else "another value is expected", limit=300
    )
    if kind == "value_error" and isinstance(error["input"], Mapping | list | tuple):
        return f"{where}: {expected}" if where else expected
    return f"{where or 'the file'} is {as_written(error['input'])}: {expected}"


def _place(content: Any, parts: Sequence[int | str], *, missing: bool) -> str:
    """The keys that lead to a value; the validator's own steps, which are not in the file, are left out."""
    found: list[int | str] = []
    for number, part in enumerate(parts):
        if _has(content, part):
            content = content[part]
        elif not (missing and number == len(parts) - 1):
            continue
        found.append(part)
    return place(found)


def _has(content: Any, part: int | str) -> bool:
    if isinstance(content, Mapping):
        return part in content
    return isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
