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
from json.encoder import encode_basestring_ascii
from typing import Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.registry import in_key
from resurgence_harness.specs import Block, Probe, Prompt, Sampler

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
    text = f'{{"kind":{_scalar(kind)},"spec":{_text(value, place=type(value).__name__)}}}'
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _text(value: object, *, place: str) -> str:
    """`canonical_json` of a value, composed of its parts' texts; those of probes, which are large, are remembered."""
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)  # type: ignore[arg-type]
    if kind is int:
        return int.__repr__(value)
    if kind in _REMEMBERED:
        known = _texts.get(id(value))
        if known is None or known[0] is not value:
            if len(_texts) >= _MOST:
                _texts.clear()
            rows = _rows(value, place=place) if isinstance(value, Block) else None
            text = _object_text(_entries(value), place=place, named=".{}") if rows is None else rows
            known = _texts[id(value)] = value, text
        return known[1]
    if is_dataclass(value) and not isinstance(value, type):
        return _object_text(_entries(value), place=place, named=".{}")
    if kind in (tuple, list):
        if all(type(item) is int for item in value):  # type: ignore[attr-defined]
            return f"[{','.join(map(int.__repr__, value))}]"  # type: ignore[call-overload]
        return f"[{','.join([_text(item, place=f'{place}[{index}]') for index, item in enumerate(value)])}]"  # type: ignore[arg-type,var-annotated]
    if kind is dict:
        _check_names(value, place=place)  # type: ignore[arg-type]
        return _object_text(value, place=place, named="[{!r}]")  # type: ignore[arg-type]
    return _scalar(_canonical(value, place=place))


def _rows(block: Block, *, place: str) -> str | None:
    """The text of a block, without a call for each of its rows; None for seeds that are no whole numbers."""
    rows = [f"[{_text(prompt, place=place)},{seed}]" for prompt, seed in block.asked if type(seed) is int]
    if len(rows) < len(block.asked):
        return None
    return f'{{"asked":[{",".join(rows)}],"sampler":{_text(block.sampler, place=place)},"type":"Block"}}'


def _object_text(entries: dict[str, Any], *, place: str, named: str) -> str:
    parts = [f"{_scalar(name)}:{_text(entries[name], place=place + named.format(name))}" for name in sorted(entries)]
    return f"{{{','.join(parts)}}}"


def _scalar(value: object) -> str:
    if type(value) is str:
        return encode_basestring_ascii(value)
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


_REMEMBERED = (Block, Prompt, Probe, Sampler)
_MOST = 4096
_texts: dict[int, tuple[object, str]] = {}
"""id of a value → the value, which is kept so that no other gets its id, and its text."""


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


def _check_names(value: dict[Any, Any], *, place: str) -> None:
    for name in value:
        if type(name) is not str:
            raise SpecError(sentence(f"{place} has the name {name!r}, which is not text.", do="Use text as names."))


def _mapping(value: dict[Any, Any], *, place: str) -> dict[str, Any]:
    _check_names(value, place=place)
    return {name: _canonical(item, place=f"{place}[{name!r}]") for name, item in value.items()}


def _dataclass(value: Any, *, place: str) -> dict[str, Any]:
    return {name: _canonical(item, place=f"{place}.{name}") for name, item in _entries(value).items()}


def _entries(value: Any) -> dict[str, Any]:
    """What a dataclass's key contains, its fields as they are."""
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
            result[name] = item
    return result


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
