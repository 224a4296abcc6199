"""Compares names in reviewed files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def same_name(name: str) -> str:
    """A name in canonical form: without case, and Unicode-normalised (NFKC), so that equal names compare equal."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def same_names(names: Iterable[str]) -> frozenset[str]:
    """Names in canonical form, without order."""
    return frozenset(map(same_name, names))
