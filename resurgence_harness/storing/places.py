"""Where a store lies when nobody says, and where mirrors of far ones do."""

from __future__ import annotations

import os
from pathlib import Path

ANOTHER = "choose another place with --resurgence-store or RESURGENCE_STORE"
"""What to do where a place cannot be used."""


def default_root() -> str:
    """`$RESURGENCE_STORE`, else ~/.cache/resurgence (below `$XDG_CACHE_HOME` where that is set)."""
    if chosen := os.environ.get("RESURGENCE_STORE", "").strip():
        return chosen
    return str(cache() / "resurgence")


def cache() -> Path:
    """The user's directory for what can be made again: `$XDG_CACHE_HOME`, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
