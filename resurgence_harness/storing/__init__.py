"""What was asked (key) and what came out (digest), on disk: nothing half-made is ever taken for finished."""

from __future__ import annotations

from resurgence_harness.storing.keys import canonical, key
from resurgence_harness.storing.store import Artifact, Store, StoredFile, StoreWarning, check_usable, default_root

__all__ = ["Artifact", "Store", "StoreWarning", "StoredFile", "canonical", "check_usable", "default_root", "key"]
