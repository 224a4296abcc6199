"""Single flight across machines: who builds an artifact holds a lease on its key, and others wait for the result.

    url/leases/<key>/<generation>     JSON: who holds it, for what, and how often it was renewed

A lease is created by a conditional put, so only one machine gets generation n. Its holder renews it by rewriting it.
Others take it over by creating generation n + 1, after they have seen it unchanged for its whole duration on their own
clock: no two clocks are compared, and only one of them can create that generation. A holder that finds a higher
generation has lost its lease.

A lease saves work; it does not protect content. If a holder is frozen for longer than its lease and two machines build
the same artifact after all, each uploads complete files under its own digest, and the manifest names one of them.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from resurgence_harness.errors import ResurgenceError
from resurgence_harness.storing.remote.files import Files

SECONDS = 120.0
"""Duration of a lease: a killed builder delays the others by this much. It is renewed three times in this time."""
PAUSE = 5.0
"""Longest pause in seconds between two looks at another machine's lease."""
LONG_PAST = timedelta(minutes=30)
"""S3 refuses requests from clocks that are off by 15 minutes, so a lease that expired longer ago has expired."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Lease:
    """A held lease; a context manager that renews it meanwhile and releases it afterwards."""

    files: Files
    folder: str
    generation: int
    content: dict[str, Any]
    lost: bool = False
    """Whether another machine has taken it over."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self._thread = threading.Thread(target=self._renew, name="resurgence lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)  # a request that hangs is left behind
        if not self.lost:
            with suppress(ResurgenceError):  # it expires
                self.files.remove(f"{self.folder}/{number}" for number in range(1, self.generation + 1))

    def _renew(self) -> None:
        while not self._ended.wait(float(self.content["seconds"]) / 3):
            with suppress(ResurgenceError):  # tried again at the next turn
                if not self._is_ours():
                    self.lost = True
                    return
                self.content["renewals"] += 1
                if not self._ended.is_set():
                    self.files.write(f"{self.folder}/{self.generation}", _written(self.content))

    def _is_ours(self) -> bool:
        if _highest(self.files.names(self.folder)) != self.generation:
            return False
        content = self.files.read(f"{self.folder}/{self.generation}")
        return content is not None and self.content["owner"].encode() in content


class Leases:
    """The leases of one remote store."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._holds: bool | None = None
        self._listed: tuple[float, frozenset[str]] = (-1e9, frozenset())

    @property
    def hold(self) -> bool:
        """Whether leases exclude other machines on this backend; found out once by trying.

        ReadOnly or Unwritable if the store cannot be written: then nothing that is built could be stored there, either.
        """
        if self._holds is None:
            self._holds = self._files.conditional()
        return self._holds

    def acquire(self, key: str, *, label: str, inputs: Collection[str], instead: Callable[[], T | None]) -> Lease | T:
        """Wait for the lease on a key; what `instead` returns, if that is not None before the lease is free.

        `instead` looks for the artifact that the present holder builds.
        """
        folder = f"{self._files.root}/leases/{key}"
        seen: tuple[int, bytes | None] = (0, None)
        since = time.monotonic()
        pause = min(0.5, PAUSE)
        while True:
            top = _highest(self._files.names(folder))
            content = self._files.read(f"{folder}/{top}") if top else None
            if top and content is None:  # released just now
                time.sleep(0.1)
                continue
            if (top, content) != seen:
                seen, since = (top, content), time.monotonic()
            if not top or _expired(content or b"", unchanged=time.monotonic() - since):
                lease = self._created(folder, top + 1, label=label, inputs=inputs)
                if lease is not None:
                    self._files.remove([f"{folder}/{top}"] if top else [])
                    return lease
                continue
            time.sleep(pause)
            pause = min(1.5 * pause, PAUSE)
            if (found := instead()) is not None:
                return found

    def busy(self, key: str) -> bool:
        """Whether a machine holds a lease on this key, as of at most `PAUSE` seconds ago."""
        moment, names = self._listed
        if time.monotonic() - moment > PAUSE:
            names = frozenset(path.split("/")[-2] for path in self._files.listing(f"{self._files.root}/leases"))
            self._listed = (time.monotonic(), names)
        return key in names

    def _created(self, folder: str, generation: int, *, label: str, inputs: Collection[str]) -> Lease | None:
        content: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "machine": socket.gethostname(),
            "process": os.getpid(),
            "label": label,
            "inputs": sorted(inputs),
            "seconds": SECONDS,
            "renewals": 0,
        }
        if not self._files.create(f"{folder}/{generation}", _written(content)):
            return None
        return Lease(files=self._files, folder=folder, generation=generation, content=content)


def _highest(names: list[str]) -> int:
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _written(content: dict[str, Any]) -> bytes:
    content["expires"] = (datetime.now(UTC) + timedelta(seconds=content["seconds"])).isoformat(timespec="seconds")
    return json.dumps(content, indent=1).encode()


def _expired(content: bytes, *, unchanged: float) -> bool:
    """Whether a lease is over that was seen unchanged for this many seconds. An unreadable one lasts `SECONDS`."""
    try:
        lease = json.loads(content)
        seconds, expires = float(lease["seconds"]), datetime.fromisoformat(lease["expires"])
    except (ValueError, KeyError, TypeError):
        return unchanged > SECONDS
    return unchanged > seconds or (expires.tzinfo is not None and datetime.now(UTC) - expires > LONG_PAST)


def inputs_in(content: bytes | None) -> set[str]:
    """The keys that a lease's build uses; empty for an unreadable lease."""
    try:
        return {str(key) for key in json.loads(content or b"{}").get("inputs", [])}
    except (ValueError, TypeError, AttributeError):
        return set()
