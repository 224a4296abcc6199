"""A store elsewhere (s3://, gs://, memory:// …): fsspec's one appearance. Files first, manifest last.

The layout there:

    url/ab/abcdef…/<digest>/<file>        the bytes; the digest in the path keeps two builders' files apart
    url/ab/abcdef…/manifest.json          written last: where it is, the artifact is whole

Each kind of address has exceptions of its own (botocore's, aiohttp's, OSError, timeouts, missing packages). Here they
become one of ours: `Unreachable` where reading fails, `Unwritable` where writing does, `ReadOnly` where it is refused.
Transient failures are tried again by the package that serves the address, as often as it does.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resurgence_harness.errors import ReadOnly, ResurgenceError, Unreachable, Unwritable, UserError, sentence, shown

MANIFEST = "manifest.json"
"""The file that says an artifact is finished."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ACCOUNT = re.compile(r"(://)[^/\s@]+@")


class Remote:
    """The far side of a store: whole artifacts go up after they are made and come down before they are opened."""

    def __init__(self, url: str) -> None:
        """Reach for the address; UserError where no installed package serves it."""
        import fsspec

        self.url = url.rstrip("/")
        self._shown = discreet(self.url)
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # missing packages, credentials or settings: each kind of address has its own
            raise UserError(
                sentence(
                    f"The store {self._shown} cannot be reached.",
                    reason=_reason(error),
                    do="Install the package that serves this kind of address, or give a local directory.",
                )
            ) from error
        self._filesystem: Any = filesystem
        self._root: str = root.rstrip("/")

    def reach(self) -> None:
        """Unreachable unless the far side answers and, where it has buckets, has this one. An empty store is one."""
        bucket = self._root.partition("/")[0]
        with self._reading():
            self._filesystem.invalidate_cache()
            try:
                self._filesystem.ls(bucket or self._root, detail=False)
            except FileNotFoundError:
                if bucket:  # a path that begins with its root is made when it is first written
                    raise

    def manifest(self, key: str) -> bytes | None:
        """The far manifest's bytes, or None where the artifact is not there."""
        with self._reading():
            try:
                return bytes(self._filesystem.cat_file(f"{self._folder(key)}/{MANIFEST}"))
            except FileNotFoundError:
                return None

    def keys(self) -> list[str]:
        """The keys of all finished artifacts there."""
        found = (path.split("/") for path in self._files(self._root))
        return sorted(parts[-2] for parts in found if parts[-1] == MANIFEST and len(parts) > 1)

    def pull(self, key: str, digest: str, names: list[str], into: Path) -> None:
        """Bring an artifact's files into a local directory; FileNotFoundError where one of them is gone."""
        for name in names:
            with self._reading(missing=FileNotFoundError):
                self._filesystem.get_file(f"{self._folder(key)}/{digest}/{name}", str(into / name))

    def push(self, key: str, digest: str, names: list[str], manifest: bytes, source: Path) -> None:
        """Send an artifact there: its files, then its manifest; then the files of the manifest that this one replaced.

        What another builder is still sending has no manifest yet and is left alone: `orphans` finds it if it stays.
        """
        folder = self._folder(key)
        with self._writing():
            self._filesystem.makedirs(f"{folder}/{digest}", exist_ok=True)
            for name in names:
                self._filesystem.put_file(str(source / name), f"{folder}/{digest}/{name}")
        replaced = _digest_in(self.manifest(key))
        self.push_manifest(key, manifest)
        if replaced and replaced != digest:
            self._remove_files(self._files(f"{folder}/{replaced}"))

    def push_manifest(self, key: str, manifest: bytes) -> None:
        """Write the manifest alone."""
        with self._writing():
            self._filesystem.pipe_file(f"{self._folder(key)}/{MANIFEST}", manifest)

    def remove(self, key: str) -> None:
        """Take an artifact away, its manifest first, so that a removal that is cut short leaves nothing finished."""
        folder = self._folder(key)
        self._remove_files([f"{folder}/{MANIFEST}"])
        self._remove_files(self._files(folder))

    def orphans(self, *, before: datetime) -> Iterator[tuple[str, int]]:
        """Files that no manifest names, last written before then: (path, bytes). Left by builders that came second."""
        files = self._files(self._root)
        named = {path.rpartition("/")[0] for path in files if path.endswith(f"/{MANIFEST}")}
        digests = {folder: _digest_in(self.manifest(folder.rpartition("/")[2])) for folder in named}
        for path in files:
            folder, _, digest = path.rpartition("/")[0].rpartition("/")
            if path.endswith(f"/{MANIFEST}") or digests.get(folder, "") == digest:
                continue
            with self._reading():
                try:
                    size, moment = int(self._filesystem.size(path) or 0), self._filesystem.modified(path)
                except (FileNotFoundError, NotImplementedError):  # gone, or its age cannot be known
                    continue
            if moment.replace(tzinfo=moment.tzinfo or UTC) < before:
                yield path, size

    def remove_file(self, path: str) -> None:
        """Take one file away."""
        self._remove_files([path])

    # Inside

    def _files(self, folder: str) -> list[str]:
        with self._reading():
            self._filesystem.invalidate_cache()  # others write there, too
            try:
                return [str(path) for path in self._filesystem.find(folder)]
            except FileNotFoundError:
                return []

    def _remove_files(self, paths: list[str]) -> None:
        with self._writing():
            for path in paths:
                try:
                    self._filesystem.rm_file(path)
                except FileNotFoundError:
                    continue

    @contextmanager
    def _reading(self, *, missing: type[Exception] | None = None) -> Iterator[None]:
        """Whatever goes wrong is Unreachable; `missing` passes."""
        try:
            yield
        except ResurgenceError:
            raise
        except Exception as error:
            if missing is not None and isinstance(error, missing):
                raise
            raise Unreachable(
                sentence(
                    f"The store {self._shown} cannot be read.",
                    reason=_reason(error),
                    do="Check the address, the network and your credentials, or choose another store.",
                )
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Whatever goes wrong is Unwritable, and ReadOnly where writing is refused."""
        try:
            yield
        except ResurgenceError:
            raise
        except Exception as error:
            refused = isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED
            raise (ReadOnly if refused else Unwritable)(
                sentence(
                    f"The store {self._shown} cannot be written.",
                    reason=_reason(error),
                    do="Check the address and your permissions, or choose another store with --resurgence-store.",
                )
            ) from error

    def _folder(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}"


def discreet(address: str) -> str:
    """An address, fit for a message: without the account that it may hold."""
    return _ACCOUNT.sub(r"\1***@", address)


def _digest_in(manifest: bytes | None) -> str:
    """The digest that a manifest names; empty where it names none."""
    try:
        return str(json.loads(manifest or b"{}").get("digest", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _reason(error: Exception) -> str:
    """What a library's exception says, in one line."""
    said = " ".join(str(error).split())
    return shown(discreet(f"{type(error).__name__}: {said}" if said else type(error).__name__), limit=300)
