"""One run at a time writes into a folder of results: two would remove and replace each other's files.

out/.resurgence.lock is held, by flock, as long as the run lasts; the system lets it go where a process is killed.
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
    """Hold folders of results; one that is missing is made, and goes again if nothing was written into it.

    UserError where another run holds one of them; then nothing in it was touched. A folder that cannot be made or
    locked is left to whoever writes into it, and says there why it cannot.
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
                os.unlink(folder / LOCK)  # before it is released, so that nobody else's file is removed
            lock.release()
        with suppress(OSError, ValueError):
            for path in missing:
                path.rmdir()


def _locked(path: Path) -> FileLock:
    """A lock on the file that lies at the path now; filelock's Timeout where another holds it.

    A file that was opened just before its holder removed it would lock nothing.
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
