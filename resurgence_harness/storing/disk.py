"""Writing directories and files so that they survive a power failure."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def make_directory(path: Path) -> None:
    """Create one directory, not its parents: a missing root must not be created silently."""
    with suppress(FileExistsError):
        path.mkdir()


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and sync it to the disk."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_last(path: Path, content: bytes) -> None:
    """Write a manifest atomically and sync it, so that even after a power failure it is complete or absent."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_synced(draft, content)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    for folder in (path.parent, path.parent.parent):
        _sync_directory(folder)


def _sync_directory(path: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a directory to sync it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_in(folder: Path) -> int:
    """Total size in bytes of all files below a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
