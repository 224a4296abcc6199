"""Checks that a store can be read and written, by trying it."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resurgence_harness.errors import ReadOnly, Unreachable, Unwritable, UserError, sentence
from resurgence_harness.storing.disk import write_synced
from resurgence_harness.storing.store import Store


def check_usable(root: str | Path, *, room: int = 1 << 20) -> None:
    """Check that a run can use the store, by writing to it; UserError if that fails. Leaves no files behind.

    `room` is the number of bytes that must fit. A read-only store passes if it is not empty: a missing artifact is then
    an error when it has to be built.
    """
    store = Store(root)
    with _as_user_error():
        try:
            _try_writing(store, room)
        except ReadOnly:
            if not store.keys():
                raise
            return
        try:
            _try_far(store)
        except ReadOnly:
            if not store.keys():
                raise


def check_writable(root: str | Path, *, room: int = 1 << 20) -> None:
    """As `check_usable`, but the store must be writable."""
    store = Store(root)
    with _as_user_error():
        _try_writing(store, room)
        _try_far(store)


def check_readable(store: Store) -> None:
    """UserError for a remote store that does not answer. A missing local directory counts as an empty store."""
    with _as_user_error():
        if store.remote is not None:
            store.remote.reach()


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
                    made.rmdir()  # fails unless empty, so it removes only what was created here
                made = made.parent


def _try_far(store: Store) -> None:
    if store.remote is None:
        return
    store.remote.reach()
    if not store.remote.try_writing():
        raise Unreachable(
            sentence(
                f"The store {store.here.name} does not return what was written to it.",
                do="Choose another store with --resurgence-store.",
            )
        )


@contextmanager
def _as_user_error() -> Iterator[None]:
    try:
        yield
    except (Unwritable, Unreachable) as error:
        raise UserError(str(error)) from error


def _try_one_file(path: Path, content: bytes) -> None:
    try:
        write_synced(path, content)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
