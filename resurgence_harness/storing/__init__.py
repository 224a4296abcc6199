"""What was asked (key) and what came out (digest), on disk: nothing half-made is ever taken for finished."""

from __future__ import annotations

from resurgence_harness.storing.artifacts import Artifact, Condition, StoredFile
from resurgence_harness.storing.keys import canonical, key
from resurgence_harness.storing.places import default_root
from resurgence_harness.storing.store import Store, StoreWarning
from resurgence_harness.storing.usable import check_usable

__all__ = [
    "Artifact",
    "Condition",
    "Store",
    "StoreWarning",
    "StoredFile",
    "canonical",
    "check_usable",
    "default_root",
    "key",
]
