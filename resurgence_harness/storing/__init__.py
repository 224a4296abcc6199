"""The artifact store: the key of a spec → the built artifact with its digest. Incomplete artifacts are never used."""

from __future__ import annotations

from resurgence_harness.storing.artifacts import Artifact, Condition, Seal, StoredFile
from resurgence_harness.storing.keys import canonical, key
from resurgence_harness.storing.manifests import content_of
from resurgence_harness.storing.places import default_root, expanded
from resurgence_harness.storing.sealing import describe_ignored
from resurgence_harness.storing.snapshot import Snapshot
from resurgence_harness.storing.store import Store, StoreWarning
from resurgence_harness.storing.usable import check_readable, check_usable, check_writable

__all__ = [
    "Artifact",
    "Condition",
    "Seal",
    "Snapshot",
    "Store",
    "StoreWarning",
    "StoredFile",
    "canonical",
    "check_readable",
    "check_usable",
    "check_writable",
    "content_of",
    "default_root",
    "expanded",
    "describe_ignored",
    "key",
]
