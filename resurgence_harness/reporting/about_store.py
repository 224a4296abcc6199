"""What verdict.json says of the store that a run used."""

from __future__ import annotations

from collections.abc import Mapping

from resurgence_harness.storing import Seal, describe_ignored

IGNORED, FRESH = "store ignored", "fresh"
"""Names in `environment` of verdict.json."""


def about_store(ignored: Mapping[str, Seal], run: str) -> dict[str, str]:
    """Entries that counted as absent, and whether everything was made anew; nothing where neither applies."""
    told = {FRESH: "everything was made anew"} if run else {}
    return {**told, **({IGNORED: describe_ignored(ignored)} if ignored else {})}
