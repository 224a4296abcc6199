"""When two names in reviewed files are one name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def same_name(name: str) -> str:
    """What two spellings of one name have in common: case, and how its letters are put together, do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def same_names(names: Iterable[str]) -> frozenset[str]:
    """What two lists of the same names have in common: their order does not count either."""
    return frozenset(map(same_name, names))
