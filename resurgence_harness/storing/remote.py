"""A remote store (s3://, gs://, memory:// …); the only module that uses fsspec. Files are written before the manifest.

The layout there:

    url/ab/abcdef…/<digest>/<file>        the bytes; the digest in the path separates the files of concurrent builds
    url/ab/abcdef…/manifest.json          written last: if it exists, the artifact is complete

Each fsspec backend raises its own exceptions (botocore's, aiohttp's, OSError, timeouts, missing packages). They are
converted to `Unreachable` if reading fails, `Unwritable` if writing fails, `ReadOnly` if writing is refused.
Transient failures are retried by the backend itself, as it is configured.
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
"""The file that marks an artifact as finished."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ACCOUNT = re.compile(r"(://)[^/\s@]+@")


class Remote:
    """The remote part of a store: artifacts are uploaded after they are built and downloaded before they are opened."""

    def __init__(self, url: str) -> None:
        """Open the file system of the address; UserError if no installed package supports it."""
        import fsspec

        self.url = url.rstrip("/")
        self._shown = discreet(self.url)
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # missing packages, credentials or settings: different for each backend
            raise UserError(
                sentence(
                    f"The store {self._shown} cannot be reached.",
                    reason=_reason(error),
                    do="Install the package that supports this kind of address, or give a local directory.",
                )
            ) from error
        self._filesystem: Any = filesystem
        self._root: str = root.rstrip("/")

    def reach(self) -> None:
        """Unreachable unless the backend answers and, if it has buckets, has this one. An empty store passes."""
        bucket = self._root.partition("/")[0]
        with self._reading():
            self._filesystem.invalidate_cache()
            try:
                self._filesystem.ls(bucket or self._root, detail=False)
            except FileNotFoundError:
                if bucket:  # without a bucket, the path is created by the first write
                    raise

    def manifest(self, key: str) -> bytes | None:
        """The bytes of the remote manifest; None if the artifact is not there."""
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
        """Download an artifact's files into a local directory; FileNotFoundError if one is missing."""
        for name in names:
            with self._reading(missing=FileNotFoundError):
                self._filesystem.get_file(f"{self._folder(key)}/{digest}/{name}", str(into / name))

    def push(self, key: str, digest: str, names: list[str], manifest: bytes, source: Path) -> None:
        """Upload an artifact: its files, then its manifest; then remove the files of the manifest that it replaced.

        Files that another build is still uploading have no manifest yet and are kept; `orphans` finds them later.
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
        """Write only the manifest."""
        with self._writing():
            self._filesystem.pipe_file(f"{self._folder(key)}/{MANIFEST}", manifest)

    def remove(self, key: str) -> None:
        """Remove an artifact, its manifest first, so that an interrupted removal leaves no finished artifact."""
        folder = self._folder(key)
        self._remove_files([f"{folder}/{MANIFEST}"])
        self._remove_files(self._files(folder))

    def orphans(self, *, before: datetime) -> Iterator[tuple[str, int]]:
        """(path, bytes) of the files that no manifest names and that were last written before this time."""
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
                except (FileNotFoundError, NotImplementedError):  # removed, or the backend has no file times
                    continue
            if moment.replace(tzinfo=moment.tzinfo or UTC) < before:
                yield path, size

    def remove_file(self, path: str) -> None:
        """Remove one file."""
        self._remove_files([path])

    def _files(self, folder: str) -> list[str]:
        with self._reading():
            self._filesystem.invalidate_cache()  # other machines write there as well
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
        """Convert every exception except `missing` to Unreachable."""
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
        """Convert every exception to Unwritable, or to ReadOnly if writing is refused."""
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
    """An address without user name and password, for messages."""
    return _ACCOUNT.sub(r"\1***@", address)


def _digest_in(manifest: bytes | None) -> str:
    """The digest in a manifest; empty if there is none."""
    try:
        return str(json.loads(manifest or b"{}").get("digest", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _reason(error: Exception) -> str:
    """The type and message of an exception, in one line."""
    message = " ".join(str(error).split())
    return shown(discreet(f"{type(error).__name__}: {message}" if message else type(error).__name__), limit=300)
