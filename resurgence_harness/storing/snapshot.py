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
from resurgence_harness.storing.store import Store

NEWEST = 2000
"""How many local manifests `ls` reads, those used last."""

_HEX = re.compile("[0-9a-f]+")
T = TypeVar("T")


class Snapshot(Store):
    """A store for planning, read with few requests: conditions in batches, times of builds from a part of it."""

    def __init__(self, store: Store) -> None:
        """Look at this store; nothing is read yet."""
        super().__init__(store.name, read_only=True, run=store.run, mirror=store.root if store.remote else None)
        self._wanted: set[str] = set()
        self._some: list[Artifact] | None = None

    def settled(self, act: Callable[[], T]) -> T:
        """What `act` returns if it asks this snapshot for conditions, all of them true.

        `act` is called several times: conditions that are not known yet are answered with PRESENT and are read together
        afterwards, so that the number of round trips is the depth of the graph and not its size.
        """
        with self.reading_ahead():
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
        if self.remote is not None and key not in self._ahead and not self._usable_here(key):
            self._wanted.add(key)
            return Condition.PRESENT
        return super().condition(key)

    def ls(self) -> list[Artifact]:
        """Some usable artifacts, oldest first: those used last on this machine, and a sample of the remote store."""
        if self._some is None:
            self._some = self._read_some()
        return self._some

    def _read_some(self) -> list[Artifact]:
        found = {artifact.key: artifact for artifact in self._newest()}
        if self.remote is not None:
            with self.reading_ahead():
                sample = [key for key in self.remote.sample() if key not in found]
                self.read_ahead(sample)
                found |= {key: artifact for key in sample if (artifact := self.entry(key)) is not None}
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
