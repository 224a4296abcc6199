"""Copies of a value with one setting changed, for every setting at any depth.

The settings are found by introspection, so that none can be missed: the fields of dataclasses, of the values in them,
and the attributes of plain objects. Fields declared not to affect the answers (`specs.not_in_key`,
`judging.digesting.NO_ANSWER`) are left out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from inspect import get_annotations
from typing import Any, NamedTuple

from resurgence_harness.judging.declaring import EXAMPLES
from resurgence_harness.judging.digesting import answers

SIMPLE = (bool, int, float, str, bytes, tuple, list, frozenset, set, dict, type(None))


class Changed(NamedTuple):
    """A setting, and candidates for the value with it changed; the value's own checks may reject some."""

    place: str
    """The path of the setting: "threshold", "clip.mean"."""
    candidates: tuple[Any, ...]
    """Functions without arguments; each returns a new value."""


def changed(value: Any, *, place: str = "") -> Iterator[Changed]:
    """Every setting of a dataclass or a plain object, one changed at a time."""
    for name, item, make in _settings(value):
        where = f"{place}{name}"
        deeper = [] if isinstance(item, SIMPLE) else list(changed(item, place=f"{where}."))
        for inner in deeper:
            yield Changed(inner.place, tuple(_through(make, candidate) for candidate in inner.candidates))
        if not deeper:
            yield Changed(where, tuple(_constant(make, other) for other in _others(item)))


def with_setting(value: Any, place: str, other: Any) -> Any:
    """The value with the setting at "clip.mean" replaced."""
    name, _, rest = place.partition(".")
    make = next(make for found, _, make in _settings(value) if found == name)
    return make(with_setting(getattr(value, name), rest, other) if rest else other)


def changed_field(value: Any, name: str) -> Any:
    """A dataclass with another value of one field; None if no accepted value is found."""
    return next(changed_fields(value, name), None)


def changed_fields(value: Any, name: str) -> Iterator[Any]:
    """A dataclass with other values of one field, those that its own checks accept."""
    for other in _others(getattr(value, name)):
        try:
            yield replace(value, **{name: other})
        except (TypeError, ValueError):  # rejected by its own checks
            continue


def _settings(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, current item, function from a new item to a new value)."""
    if is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            if one.init and answers(one):
                yield one.name, getattr(value, one.name), _replacing(value, one.name)
    else:
        for name, item in sorted(getattr(value, "__dict__", {}).items()):
            # A private attribute of another type is a cache or a network, not a setting.
            if name not in EXAMPLES and (isinstance(item, SIMPLE) or name[0] != "_"):
                yield name, item, _setting(value, name)
    for name, item in sorted(constants(type(value)).items()):
        if name not in EXAMPLES:
            yield name, item, _subclassing(value, name)


def constants(kind: type) -> dict[str, Any]:
    """Settings assigned in a class that are not fields, such as "threshold = 0.5", and so are in no digest or key.

    ClassVar[…] marks a constant that cannot be set; it counts as code, which `version` covers.
    """
    kinds = kind.__mro__[:-1]
    declared = set(getattr(kind, "__dataclass_fields__", ()))
    declared |= {name for one in kinds for name, type_ in get_annotations(one).items() if "ClassVar" in str(type_)}
    found = {name: item for one in reversed(kinds) for name, item in vars(one).items()}
    return {
        name: item
        for name, item in found.items()
        if name not in declared and name[0] != "_" and isinstance(item, SIMPLE) and item is not None
    }


def _replacing(value: Any, name: str) -> Any:
    return lambda other: replace(value, **{name: other})


def _setting(value: Any, name: str) -> Any:
    def make(other: Any) -> Any:
        made = copy.copy(value)
        object.__setattr__(made, name, other)
        return made

    return make


def _subclassing(value: Any, name: str) -> Any:
    return lambda other: as_subclass(value, **{name: other})


def as_subclass(value: Any, **members: Any) -> Any:
    """A copy of the object whose class has the same name and other members."""
    kind = type(value)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__slots__": (), **members}
    made = copy.copy(value)
    object.__setattr__(made, "__class__", type(kind.__name__, (kind,), names))
    return made


def _through(make: Any, candidate: Any) -> Any:
    return lambda: make(candidate())


def _constant(make: Any, other: Any) -> Any:
    return lambda: make(other)


def _others(item: Any) -> tuple[Any, ...]:
    """Other values of the same type, the least different first."""
    if isinstance(item, bool):
        return (not item,)
    if isinstance(item, int):
        return item + 1, item - 1, item * 2
    if isinstance(item, float):
        return item * 0.5 + 0.1, item * 0.9, item + 1.0
    if isinstance(item, str):
        hexadecimal = len(item) in (40, 64) and not set(item) - set("0123456789abcdef")
        digits = ("1" if item[0] == "0" else "0") * len(item) if hexadecimal else "0" * 64
        return (digits, f"{item} other", f"{{}} {item}", f"{item}{{}}", "another")
    if isinstance(item, tuple | list) and item:
        kind = type(item)
        others = [kind([other, *item[1:]]) for other in _others(item[0])]
        others += [kind([*item, *(_others(item[-1])[:1] or (item[-1],))]), kind(item[1:])]
        turned = kind([*item[1:], item[0]])
        return tuple(other for other in (turned, *others) if other != item)
    if isinstance(item, tuple | list):
        return tuple(type(item)([one]) for one in ("another", 1, ("another", "another")))
    if isinstance(item, frozenset | set):
        return (type(item)({*item, "another"}),)
    if isinstance(item, dict):
        return ({**item, "another": "another"}, {**item, "another": 1}, dict(list(item.items())[1:]))
    return ()
