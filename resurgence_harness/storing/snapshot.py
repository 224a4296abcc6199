"""A store as planning sees it: a large or distant store is not read one manifest at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from heapq import nlargest
from pathlib import Path
from typing import TypeVar

from resurgence_harness.errors import Corrupt
from resurgence_harness.storing.artifacts import Artifact, Condition
from resurgence_harness.storing.remote import MANIFEST
from resurgence_harness.storing.remote.packs import ENOUGH
from resurgence_harness.storing.store import Store

NEWEST = 2000
"""How many local manifests `ls` reads, those used last."""

_HEX = re.compile("[0-9a-f]+")
T = TypeVar("T")


class Snapshot(Store):
    """A store for planning, as it was when first read: packs and batches replace single requests."""

    def __init__(self, store: Store) -> None:
        """Look at this store; nothing is read yet."""
        super().__init__(store.name, read_only=True, run=store.run, mirror=store.root if store.remote else None)
        self._packed: tuple[dict[str, bytes], set[str]] | None = None
        self._conditions: dict[str, Condition] = {}
        self._found: dict[str, Artifact | None] = {}
        self._wanted: set[str] = set()
        self._some: list[Artifact] | None = None

    def settled(self, act: Callable[[], T]) -> T:
        """What `act` returns if it asks this snapshot for conditions, all of them true.

        `act` may be called several times: conditions that neither the mirror nor a pack tells are answered with PRESENT
        and are read together afterwards, so that the number of round trips is the depth of the graph and not its size.
        """
        with self.reading_ahead():
            if self.remote is not None:
                self._packed = self.remote.packs.read(self.packs)
                if self._packed is not None and len(self._packed[1]) > ENOUGH:
                    self.remote.packs.renew(self.packs)
                    self._packed = self.remote.packs.read(self.packs)
            while True:
                result = act()
                if not self._wanted:
                    return result
                self.read_ahead(self._wanted)
                inputs = {source for key in self._wanted for source in self._inputs(key)}
                self._wanted.clear()
                self.read_ahead(inputs)

    def condition(self, key: str) -> Condition:
        """As of the store; PRESENT inside of `settled` while it is not known."""
        if key not in self._conditions:
            if self.remote is not None and not self._told(key) and not self._usable_here(key):
                self._wanted.add(key)
                return Condition.PRESENT
            self._conditions[key] = super().condition(key)
        return self._conditions[key]

    def ls(self) -> list[Artifact]:
        """Some usable artifacts, oldest first: those used last on this machine, and a sample of the remote store."""
        if self._some is None:
            self._some = self._read_some()
        return self._some

    def _best(self, key: str) -> Artifact | None:
        if key not in self._found:
            self._found[key] = super()._best(key)
        return self._found[key]

    def _manifest_there(self, key: str) -> bytes | None:
        if self._packed is not None and key not in self._packed[1]:
            return self._packed[0].get(key) or None
        return super()._manifest_there(key)

    def _told(self, key: str) -> bool:
        """Whether the remote store's manifest of a key, or its absence, is known."""
        return key in self._ahead or (self._packed is not None and key not in self._packed[1])

    def _read_some(self) -> list[Artifact]:
        found = {artifact.key: artifact for artifact in self._newest()}
        if self.remote is not None:
            if self._packed is None:
                sample = self.remote.sample()
            else:
                sample = [*self._packed[0], *sorted(self._packed[1])][-NEWEST:]
            with self.reading_ahead():
                self.read_ahead(key for key in sample if not self._told(key))
                found |= {key: one for key in sample if key not in found and (one := self.entry(key)) is not None}
        return sorted((one for one in found.values() if self._counts(one)), key=lambda artifact: artifact.made)

    def _inputs(self, key: str) -> list[str]:
        artifact = self.find(key)
        return list(artifact.inputs) if artifact is not None else []

    def _newest(self) -> list[Artifact]:
        times: list[tuple[float, str]] = []
        for folder in _folders(self.root, 2):
            for entry in _folders(folder, 64):
                with suppress(OSError):
                    times.append((os.stat(f"{entry.path}/{MANIFEST}").st_mtime, entry.name))
        found = []
        for _, key in nlargest(NEWEST, times):
            with suppress(Corrupt):
                found.append(self._read_here(key))
        return [artifact for artifact in found if artifact is not None]


def _folders(path: Path | os.DirEntry[str], length: int) -> list[os.DirEntry[str]]:
    """The entries of a directory whose names are this many hexadecimal digits; without pathlib, for 100,000 of them."""
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if len(entry.name) == length and _HEX.fullmatch(entry.name)]
    except OSError:
        return []
