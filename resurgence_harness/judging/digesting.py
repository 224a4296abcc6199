"""A judge's digest computed from its fields, so that none of them (a threshold, say) can be forgotten.

    digest = property(digest_of_fields)

A field made with `specs.not_in_key()` is declared not to affect any answer and is left out. Values with their own
digest (weights, an embedding, another judge) enter by it. Judges with already stored digests keep their formulas.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.storing.keys import canonical_json

NO_ANSWER: Mapping[str, bool] = {"answers": False}
"""Metadata of a field that stays in keys and comparisons but does not affect answers: the location of bytes whose
digest is taken."""


def digest_of_fields(judge: object) -> str:
    """sha256 over a judge's version and fields; SpecError for a judge that is no dataclass, or a field without JSON."""
    if not is_dataclass(judge) or isinstance(judge, type):
        raise SpecError(
            sentence(
                f"The judge {type(judge).__name__} has no fields to take a digest of.",
                do="Make it a dataclass: @dataclass(frozen=True, kw_only=True), its settings as fields.",
            )
        )
    own = {one.name: _content(getattr(judge, one.name)) for one in fields(judge) if answers(one)}
    facts = {"judge": type(judge).__name__, "version": getattr(judge, "version", 0), "fields": own}
    return hashlib.sha256(canonical_json(facts).encode("ascii")).hexdigest()


def answers(one: Field[Any]) -> bool:
    """Whether answers can depend on a field, by its metadata."""
    return bool(one.metadata.get("key", True)) and bool(one.metadata.get("answers", True))


def _content(value: Any) -> Any:
    """A value as JSON data, by its content and not its location."""
    if isinstance(digest := getattr(value, "digest", None), str):
        return {"name": getattr(value, "name", ""), "version": getattr(value, "version", 0), "digest": digest}
    if is_dataclass(value) and not isinstance(value, type):
        own = {one.name: _content(getattr(value, one.name)) for one in fields(value) if answers(one)}
        return {"type": type(value).__name__, **own}
    if isinstance(value, tuple | list):
        return [_content(one) for one in value]
    if isinstance(value, frozenset | set):
        return sorted((_content(one) for one in value), key=canonical_json)
    if isinstance(value, Mapping):
        return {str(name): _content(one) for name, one in value.items()}
    return value
