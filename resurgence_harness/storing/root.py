"""The local directory of a store: created when first needed, one lock per key, file system errors as messages."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resurgence_harness.errors import ReadOnly, ResurgenceError, Unwritable, UserError, sentence
from resurgence_harness.storing.disk import make_directory
from resurgence_harness.storing.places import ANOTHER, cache

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ESTALE, errno.EIO)


@dataclass(frozen=True)
class Root:
    """The local directory of a store."""

    path: Path
    name: str
    """As the user gave it."""

    @contextmanager
    def locked(self, key: str, *, wait: bool = True) -> Iterator[None]:
        """Hold the key's lock; filelock's Timeout if another process holds it and `wait` is False."""
        from filelock import FileLock

        self.make()
        make_directory(self.path / "locks")
        # A soft lock would outlive its process: without flock, fail instead of falling back to one.
        with FileLock(self.path / "locks" / f"{key}.lock", timeout=-1 if wait else 0, fallback_to_soft=False):
            yield

    def busy(self, key: str) -> bool:
        """Whether another process holds the key's lock."""
        from filelock import Timeout

        if not (self.path / "locks" / f"{key}.lock").exists():
            return False
        try:
            with self.locked(key, wait=False):
                return False
        except Timeout:
            return True
        except OSError:  # a store that cannot be written is not being written
            return False

    def make(self) -> None:
        """Create the root if only its last part is missing: a missing mount must not be replaced by a new folder."""
        if self.path.is_dir():
            return
        self.path.mkdir(parents=self._in_cache(), exist_ok=True)

    def _in_cache(self) -> bool:
        try:
            return self.path.is_relative_to(cache())
        except UserError:  # there is no home directory, so the path was given explicitly
            return False

    @contextmanager
    def writing(self, building: str = "") -> Iterator[None]:
        """Convert file system errors of a full, read-only or missing store into Unwritable or ReadOnly.

        `building` is the label of the artifact that is being built, for the message.
        """
        try:
            yield
        except ResurgenceError:
            raise
        except Exception as error:
            problem = self._problem(error, building)
            if problem is None:
                raise
            raise problem from error

    def _problem(self, error: Exception, building: str) -> Unwritable | None:
        number, kind = _error_number(error), Unwritable
        reason = " ".join(str(error).split())
        if number in FULL:
            first, do = f"The store at {self.name} is full.", f"Free space (`resurgence store gc`), or {ANOTHER}."
        elif number in READ_ONLY and self._concerns(error):
            first, do = f"The store at {self.name} is read-only.", f"Allow writing there, or {ANOTHER}."
            kind = ReadOnly
        elif number in VANISHED and not self.path.is_dir():
            first, do = self._absence(), f"Make the directory, mount its disk, or {ANOTHER}."
        elif number == errno.ENOENT and getattr(error, "filename", None) and self._concerns(error):
            first, do = f"Something in the store at {self.name} was removed during a build.", "Run the build again."
        elif number in (errno.ENOSYS, errno.EOPNOTSUPP):
            first, do = f"The store at {self.name} is on a file system without locks.", f"C{ANOTHER[1:]}."
        else:
            return None
        facts = {"building": building} if building else {}
        return kind(sentence(first, reason=reason, **facts, do=do))

    def _absence(self) -> str:
        if self.path.is_symlink():
            return f"The store at {self.name} is a link whose target is missing."
        if self.path.exists():
            return f"The store at {self.name} is not a directory."
        if not self.path.parent.is_dir():
            return f"The store at {self.name} cannot be created: {self.path.parent} is not a directory."
        return f"The store at {self.name} is gone."

    def _concerns(self, error: Exception) -> bool:
        """Whether the error is about the store, and not about a file that the build read."""
        name = getattr(error, "filename", None)
        if not isinstance(name, str | bytes | os.PathLike):
            return True
        path = Path(os.fsdecode(name))
        return path.is_relative_to(self.path) or self.path.is_relative_to(path)


def _error_number(error: BaseException | None) -> int | None:
    """The errno of an error or its causes; safetensors gives it only as text, "… (os error 28)"."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
            return int(found.group(1))
        error = error.__cause__
    return None
