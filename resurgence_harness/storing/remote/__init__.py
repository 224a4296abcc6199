"""A remote store (s3://, gs://, abfs://, memory:// …): the only subpackage that uses fsspec."""

from __future__ import annotations

from resurgence_harness.storing.remote.addresses import discreet
from resurgence_harness.storing.remote.artifacts import MANIFEST, Inventory, Remote
from resurgence_harness.storing.remote.failures import Damaged
from resurgence_harness.storing.remote.leases import Lease, Leases

__all__ = ["MANIFEST", "Damaged", "Inventory", "Lease", "Leases", "Remote", "discreet"]
