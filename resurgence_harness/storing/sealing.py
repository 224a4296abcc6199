"""Keyed seals prove that an entry was written by a holder of the store's key and has not been changed since.

    seal = HMAC-SHA256(RESURGENCE_STORE_KEY, purpose ‖ canonical JSON of the whole entry)

A manifest contains its key, its digest, and name, size and sha256 of every file, so a seal is not valid for another key
or other bytes. A checksum alone is no proof, since anybody who can write to the store can compute it. The variable's
value is never printed or stored. HMAC: RFC 2104; lengths of keys: NIST SP 800-107, 5.3.4.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.storing.artifacts import Seal

VARIABLE = "RESURGENCE_STORE_KEY"
"""The environment variable that holds the key; worker processes inherit it."""
SHORTEST = 32
"""Minimum length of the key in characters: 128 bits if they are hexadecimal digits."""
FIELD = "keyed seal"
"""The JSON name of an entry's seal."""


def store_key() -> bytes | None:
    """The key, without surrounding white space; None if the variable is not set.

    UserError for an empty or short one, since setting the variable means that seals are wanted.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return None
    key = os.fsencode(given.strip())
    if not key:
        raise UserError(
            sentence(f"{VARIABLE} is empty.", do="Set it to the store's key, or unset it to work without keyed seals.")
        )
    if len(key) < SHORTEST:
        raise UserError(
            sentence(
                f"The key in {VARIABLE} is too short to protect anything.",
                length=f"{len(key)} characters; at least {SHORTEST} are needed",
                do="Make one with `openssl rand -hex 32`, and keep it where only those who build can read it.",
            )
        )
    return key


def sealed(content: Mapping[str, Any], *, purpose: str) -> dict[str, Any]:
    """The content with its seal under `FIELD`; without a seal if there is no key."""
    key, bare = store_key(), {name: value for name, value in content.items() if name != FIELD}
    return bare if key is None else {**bare, FIELD: _seal(bare, purpose=purpose, key=key)}


def seal_of(content: Mapping[str, Any], *, purpose: str) -> Seal:
    """Check the content's seal with the environment's key; compared in constant time."""
    key, found = store_key(), content.get(FIELD)
    if found is None:
        return Seal.UNSEALED
    if key is None:
        return Seal.UNCHECKED
    bare = {name: value for name, value in content.items() if name != FIELD}
    expected = _seal(bare, purpose=purpose, key=key)
    same = isinstance(found, str) and hmac.compare_digest(found.encode(), expected.encode())
    return Seal.SEALED if same else Seal.WRONG


def counts(seal: Seal) -> bool:
    """Whether an entry with this seal may be used: if a key is set, only entries sealed with it."""
    return seal is Seal.SEALED or store_key() is None


def describe_ignored(ignored: Mapping[str, Seal]) -> str:
    """How many entries counted as absent in a run, and why, from `Store.ignored`; empty if there were none."""
    if not ignored:
        return ""
    seals = list(ignored.values())
    counted = ", ".join(f"{seals.count(seal)} {seal.value}" for seal in (Seal.UNSEALED, Seal.WRONG) if seal in seals)
    return f"{len(ignored)} in the store counted as absent, not sealed with {VARIABLE}: {counted}"


def _seal(content: Mapping[str, Any], *, purpose: str, key: bytes) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hmac.new(key, f"resurgence-harness {purpose}\n{text}".encode(), hashlib.sha256).hexdigest()
