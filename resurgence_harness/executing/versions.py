"""Whether two versions of this package write one store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.planning import Action
from resurgence_harness.storing import Condition, Store
from resurgence_harness.storing.manifests import FORMAT
from resurgence_harness.storing.remote import MANIFEST


def check_written(store: Store, actions: Iterable[Action]) -> None:
    """UserError if planned artifacts have manifests of another format: each version would replace the other's.

    Versions with the same format may share a store: equal keys mean equal artifacts.
    """
    for action in actions:
        if action.reason is Condition.CORRUPT and (found := _format(store, action.key)) not in (None, FORMAT):
            raise UserError(
                sentence(
                    "The store is written by another version of resurgence-harness as well.",
                    store=store.here.name,
                    artifact=action.label,
                    format=f"{found}; this version reads and writes {FORMAT}",
                    do="Use one version on all machines, or another store for each.",
                )
            )


def _format(store: Store, key: str) -> object:
    """The format in a manifest; None if it cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        local = store.root / key[:2] / key / MANIFEST
        text = local.read_bytes() if local.is_file() else None
        if text is None and store.remote is not None:
            text = store.remote.manifest(key)
        return json.loads(text or b"{}").get("format")
    return None
