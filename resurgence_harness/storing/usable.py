"""Whether a store can be used, found out by using it."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resurgence_harness.errors import Unwritable, UserError
from resurgence_harness.storing.disk import write_synced
from resurgence_harness.storing.store import Store


def check_usable(root: str | Path, *, room: int = 1 << 20) -> None:
    """Try the store as a build would use it, by writing; UserError in one sentence where that fails. Nothing remains.

    `room` is how many bytes must fit.
    """
    with _told_to_the_user():
        _try_writing(Store(root), room)


def _try_writing(store: Store, room: int) -> None:
    existing = store.root
    while not existing.exists() and not existing.is_symlink() and existing != existing.parent:
        existing = existing.parent
    with store.here.writing():
        if existing.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        try:
            store.here.make()
            if (free := shutil.disk_usage(store.root).free) < room:
                raise OSError(errno.ENOSPC, f"{free} bytes are free and {room} are needed", str(store.root))
            _try_one_file(store.root / f"usable.{uuid.uuid4().hex[:12]}", bytes(min(room, 1 << 20)))
        finally:
            made = store.root
            while made != existing and made.is_relative_to(existing):
                with suppress(OSError):
                    made.rmdir()  # only what is empty, so only what we made
                made = made.parent
    if store.remote is not None:
        probe = uuid.uuid4().hex * 2
        store.remote.push(probe, "probe", [], b"{}", store.root)
        store.remote.remove(probe)


@contextmanager
def _told_to_the_user() -> Iterator[None]:
    try:
        yield
    except Unwritable as error:
        raise UserError(str(error)) from error


def _try_one_file(path: Path, content: bytes) -> None:
    try:
        write_synced(path, content)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
