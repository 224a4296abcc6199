"""Default locations of the store and of the local mirrors of remote stores."""

from __future__ import annotations

import os
from pathlib import Path

from resurgence_harness.errors import UserError, sentence

ANOTHER = "choose another place with --resurgence-store or RESURGENCE_STORE"
"""Advice for a location that cannot be used."""


def default_root() -> str:
    """`$RESURGENCE_STORE`, else ~/.cache/resurgence (below `$XDG_CACHE_HOME` if that is set)."""
    if chosen := os.environ.get("RESURGENCE_STORE", "").strip():
        return chosen
    return str(cache() / "resurgence")


def cache() -> Path:
    """The user's cache directory: `$XDG_CACHE_HOME`, else ~/.cache.

    UserError if there is no home directory, as in a container whose user has no passwd entry.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
    except RuntimeError as error:
        raise UserError(
            sentence(
                "There is no home directory to keep the store in.",
                reason=f"{error}; HOME is not set, and the user has no entry in the password file",
                do="Set the store: --store DIR (pytest: --resurgence-store DIR), RESURGENCE_STORE or HOME.",
            )
        ) from None


def expanded(place: str) -> Path:
    """A given directory as an absolute path; UserError for a "~" that cannot be expanded."""
    try:
        return Path(place).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(
            sentence(f"The store at {place} cannot be found.", reason=error, do="Write the path out, without ~.")
        ) from None
