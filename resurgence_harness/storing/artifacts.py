"""The contents of a store: artifacts, their files, their condition and their seals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any


class Condition(Enum):
    """The state of a key in the store; the values are printed in plans."""

    PRESENT = "present"
    MISSING = "missing"
    CORRUPT = "corrupt"
    CHANGED = "inputs changed"


class Seal(Enum):
    """The state of an entry's seal, checked with the environment's key."""

    SEALED = "sealed"
    UNSEALED = "unsealed"
    WRONG = "wrongly sealed"
    """Sealed with another key, or changed after sealing."""
    UNCHECKED = "sealed, not checked"
    """It has a seal, but no key is set to check it with."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """sha256 and size of one file of an artifact when it was written."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished product: the key of its spec, the digest of its content, and the path of its files."""

    key: str
    kind: str
    """checkpoint, images, judgments, tensors …"""
    label: str
    """A readable description."""
    digest: str
    """sha256 over the sorted (name, sha256) of its files."""
    path: Path
    """The local directory that holds its files."""
    files: Mapping[str, StoredFile] = field(hash=False)
    inputs: Mapping[str, str] = field(hash=False)
    """Key → digest of the artifacts that it was built from."""
    facts: Mapping[str, Any] = field(hash=False)
    """Provenance, as the build returned it."""
    seconds: float
    """Duration of the build, without waiting for other processes."""
    made: datetime
    """Time of the build, with time zone."""
    used: datetime
    """When it was last opened."""
    seal: Seal
    run: str
    """The fresh run that built it; empty if it was not built by one."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())
