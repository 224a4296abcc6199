"""Locks a folder of results for one run: two runs would remove and replace each other's files.

out/.resurgence.lock is locked with flock as long as the run lasts; the system releases it if the process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from resurgence_harness.errors import UserError, sentence, shown

LOCK = ".resurgence.lock"


@contextmanager
def held(folders: Iterable[Path], *, option: str = "--out") -> Iterator[None]:
    """Lock folders of results; missing ones are created, and removed again if nothing was written into them.

    UserError if another run has locked one of them; then nothing in it was changed. A folder that cannot be created or
    locked is ignored here; writing into it raises the error.
    """
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_held(folder, option))
        yield


@contextmanager
def _held(folder: Path, option: str) -> Iterator[None]:
    missing = [path for path in (folder, *folder.parents) if not _exists(path)]
    lock = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder / LOCK)
    except Timeout:
        first = f"Another run is writing into {shown(str(folder))}."
        do = f"Wait until it has ended, or give another folder with {option}."
        raise UserError(sentence(first, do=do)) from None
    except (OSError, ValueError, NotImplementedError):  # not writable, not a name, or a file system without locks
        pass
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                os.unlink(folder / LOCK)  # before it is released, so that another run's file is not removed
            lock.release()
        with suppress(OSError, ValueError):
            for path in missing:
                path.rmdir()


def _locked(path: Path) -> FileLock:
    """A lock on the file that exists at the path now; filelock's Timeout if another process has it.

    Tried again if the previous holder removed the file after it was opened: such a lock would protect nothing.
    """
    while True:
        lock = FileLock(path, timeout=0, fallback_to_soft=False)
        lock.acquire()
        if path.exists():
            return lock
        lock.release()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return True
