"""The key of a spec is the hash of its canonical JSON: equal specs have the same key on every machine.

The resolved values are hashed, defaults included: changing a default in code changes the key, so an old result is never
used for a new spec. A dataclass is written as its class's `name` (else the class name), its `version` if it has one,
and its fields. Fields made with `specs.not_in_key()` are left out, fields with the metadata `specs.ADDED` only if they
have their default. A class of another package or of a conftest.py has its package, version and source digest, as
"from" (`registry.in_key`).

    key = sha256(canonical JSON of {"kind": kind, "spec": canonical(spec)})
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import Field, fields, is_dataclass
from typing import Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.registry import in_key

type_of_float = ("float", float)
"""The annotation of a float field, with and without postponed evaluation."""


def canonical(value: object) -> Any:
    """The value as JSON types, the same for equal values; SpecError for types without a stable JSON form."""
    return _canonical(value, place=type(value).__name__)


def canonical_json(value: object) -> str:
    """The text that is hashed: sorted names, no spaces, ASCII, shortest floats that read back equal."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def key(kind: str, value: object) -> str:
    """64 hexadecimal digits: sha256 of the kind of product and the spec that it is built from."""
    text = canonical_json({"kind": kind, "spec": canonical(value)})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: object, *, place: str) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return _finite(float(value), place=place)
    if is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value, place=place)
    if type(value) in (tuple, list):
        return [_canonical(item, place=f"{place}[{index}]") for index, item in enumerate(value)]  # type: ignore[arg-type,var-annotated]
    if type(value) is dict:
        return _mapping(value, place=place)
    raise SpecError(
        sentence(
            f"{place} is {_article(type(value).__name__)}, which cannot be part of a key.",
            value=repr(value)[:80],
            do="Use dataclasses, tuples, text, whole numbers, finite floats, booleans or None.",
        )
    )


def _finite(value: float, *, place: str) -> float:
    if not math.isfinite(value):
        raise SpecError(sentence(f"{place} is {value}, which is not finite.", do="Give a finite number."))
    return value + 0.0  # −0.0 equals 0.0 and must have the same key


def _mapping(value: dict[Any, Any], *, place: str) -> dict[str, Any]:
    for name in value:
        if type(name) is not str:
            raise SpecError(sentence(f"{place} has the name {name!r}, which is not text.", do="Use text as names."))
    return {name: _canonical(item, place=f"{place}[{name!r}]") for name, item in value.items()}


def _dataclass(value: Any, *, place: str) -> dict[str, Any]:
    kind = type(value)
    own: dict[str, Field[Any]] = {field.name: field for field in fields(value)}
    if "type" in own:
        raise SpecError(sentence(f"{kind.__name__} has a field called type, which keys use for the class itself."))
    label = getattr(kind, "name", None)
    result: dict[str, Any] = {"type": label if isinstance(label, str) and "name" not in own else kind.__name__}
    version = getattr(kind, "version", None)
    if isinstance(version, int | str) and "version" not in own:
        result["version"] = version
    if (origin := in_key(kind)) is not None:
        result["from"] = origin
    for name, field in own.items():
        item = getattr(value, name)
        if field.metadata.get("key", True) == "unless default" and item == field.default:
            continue  # artifacts stored before the field existed have its default
        if field.metadata.get("key", True):
            if field.type in type_of_float and type(item) is int:
                item = float(item)  # guidance=7 and guidance=7.0 are equal specs
            result[name] = _canonical(item, place=f"{place}.{name}")
    return result


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
