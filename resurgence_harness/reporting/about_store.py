"""What `environment` of verdict.json holds about the store of a run."""

from __future__ import annotations

from collections.abc import Mapping

from resurgence_harness.storing import Seal, describe_ignored

IGNORED, FRESH = "store ignored", "fresh"
"""Names in `environment` of verdict.json."""


def about_store(ignored: Mapping[str, Seal], run: str) -> dict[str, str]:
    """Entries that were treated as absent, and whether everything was made anew; empty if neither applies."""
    found = {FRESH: "everything was made anew"} if run else {}
    return {**found, **({IGNORED: describe_ignored(ignored)} if ignored else {})}
