"""What a store holds: artifacts and their files, and the condition that each is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any


class Condition(Enum):
    """What the store has for a key, in the words that a plan prints."""

    PRESENT = "present"
    MISSING = "missing"
    CORRUPT = "corrupt"
    CHANGED = "inputs changed"


class Seal(Enum):
    """How an entry is sealed, seen with the key of the environment."""

    SEALED = "sealed"
    UNSEALED = "unsealed"
    WRONG = "wrongly sealed"
    """With another key, or changed since."""
    UNCHECKED = "sealed, not checked"
    """It carries a seal, and there is no key to check it with."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of an artifact, as it was when it was written."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something finished: what was asked (key), what came out (digest), and where its bytes lie (path)."""

    key: str
    kind: str
    """checkpoint, images, judgments, tensors …"""
    label: str
    """What it is, for people."""
    digest: str
    """sha256 over the sorted (name, sha256) of its files."""
    path: Path
    """The local directory that holds its files."""
    files: Mapping[str, StoredFile] = field(hash=False)
    inputs: Mapping[str, str] = field(hash=False)
    """Key → digest of what it was made from."""
    facts: Mapping[str, Any] = field(hash=False)
    """Provenance, as the build returned it."""
    seconds: float
    """How long the build took, waiting for others excluded."""
    made: datetime
    """With its time zone; only shown, nothing is decided by it."""
    used: datetime
    """When it was last opened."""
    seal: Seal
    run: str
    """The fresh run that made it; empty for any other."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())
