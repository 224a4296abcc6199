"""Files behind an fsspec address: read, write, list, transfer; every failure as an error of this package.

Whatever a backend raises becomes `Unreachable` if reading fails, `Unwritable` if writing fails, `ReadOnly` if writing
is refused; transient failures are retried first. Credentials come only from the backend's own chain (environment,
profile, instance role): none is taken from here, and none appears in a message.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resurgence_harness.errors import ReadOnly, ResurgenceError, Unreachable, Unwritable, UserError, sentence
from resurgence_harness.storing.artifacts import StoredFile
from resurgence_harness.storing.remote import failures
from resurgence_harness.storing.remote.addresses import discreet
from resurgence_harness.storing.remote.parallel import side_by_side
from resurgence_harness.storing.remote.retrying import persistent

CONNECTIONS = 32
"""Requests at once."""
TRANSFERS = 4
"""Files transferred at once; with `PART` and `PARTS` at most 4 × 4 × 16 MiB are in memory."""
PART = 16 << 20
"""Bytes of one part of a multipart transfer; S3 allows 10,000 parts, here 156 GiB."""
PARTS = 4
"""Parts of one file transferred at once."""
DOWNLOADS = 3
"""How often a file is downloaded before its bytes in the store are taken to be wrong."""

_S3 = ("s3", "s3a")
_LOCAL = ("file", "local")
_CONDITIONAL = {*_S3, "gs", "gcs", "az", "abfs", "abfss"}
"""Backends whose `pipe_file(mode="create")` is a conditional put on the server (s3fs, gcsfs, adlfs)."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A listed file."""

    size: int
    """Bytes."""
    modified: datetime | None
    """When it was last written, by the server's clock; None if the backend does not know."""


class Files:
    """The files below one address."""

    def __init__(self, url: str) -> None:
        """Open the file system of the address; UserError if no installed package supports it."""
        import fsspec

        self.url = url.rstrip("/")
        self.shown = discreet(self.url)
        self.protocol = self.url.partition("://")[0]
        self.shared = self.protocol != "memory"
        """Whether other machines can see these files."""
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url, **self._options())
        except Exception as error:  # missing packages, credentials or settings: different for each backend
            raise UserError(
                sentence(
                    f"The store {self.shown} cannot be reached.",
                    reason=failures.reason(error),
                    do="Install the package that supports this kind of address, or give a local directory.",
                )
            ) from error
        self.filesystem: Any = filesystem
        self.root: str = root.rstrip("/")
        if self.protocol in _S3:
            self.filesystem.retries = 2  # `persistent` repeats; five times five attempts would take minutes

    def reach(self) -> None:
        """Unreachable unless the backend answers and, if it has buckets, has this one. An empty store passes."""
        bucket = self.root.partition("/")[0]
        with self.reading():
            self.filesystem.invalidate_cache()
            try:
                self.filesystem.ls(self.root or bucket, detail=False)
            except FileNotFoundError:
                if bucket:  # without a bucket, the path is created by the first write
                    self.filesystem.ls(bucket, detail=False)

    # Small files

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None if it is not there."""

        def act() -> bytes | None:
            try:
                return bytes(self.filesystem.cat_file(path))
            except FileNotFoundError:
                return None

        with self.reading():
            return persistent(act)

    def read_many(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """As `read`, for many files with many requests at once."""
        waiting, result = list(dict.fromkeys(paths)), dict[str, bytes | None]()

        def act() -> None:
            found: Mapping[str, object] = self.filesystem.cat(waiting, on_error="return") if waiting else {}
            failed: Exception | None = None
            for path, content in found.items():
                if isinstance(content, bytes | bytearray):
                    result[path] = bytes(content)
                elif isinstance(content, FileNotFoundError):
                    result[path] = None
                elif isinstance(content, Exception):
                    failed = content
            waiting[:] = [path for path in waiting if path not in result]
            if failed is not None:
                raise failed

        with self.reading():
            persistent(act)
        return result

    def write(self, path: str, content: bytes) -> None:
        """Write a small file at once."""
        with self.writing():
            persistent(lambda: self._pipe(path, content))

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file only if there is none; whether this call wrote it.

        An object store decides on the server (If-None-Match), a file system by O_EXCL. If the answer to a write was
        lost, the file's content tells whether it is this one; so `content` must be different for every caller.
        """

        def act() -> bool:
            try:
                self._create(path, content)
            except Exception as error:
                if failures.exists_already(error):
                    return self.read(path) == content
                raise
            return True

        with self.writing():
            return persistent(act)

    def conditional(self) -> bool:
        """Whether `create` excludes all other machines, tried on the server; S3 servers differ."""
        if self.protocol in _LOCAL:
            return True
        if self.protocol not in _CONDITIONAL:
            return False
        probe = f"{self.root}/leases/probe-{uuid.uuid4().hex[:12]}/1"
        try:
            return self.create(probe, b"first") and not self.create(probe, b"second")
        finally:
            with suppress(ResurgenceError):
                self.remove([probe])

    # Listing and removing

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder; empty if there is none."""

        def act() -> list[str]:
            self.filesystem.invalidate_cache()  # other machines write there as well
            try:
                return [str(path).rstrip("/").rpartition("/")[2] for path in self.filesystem.ls(folder, detail=False)]
            except FileNotFoundError:
                return []

        with self.reading():
            return persistent(act)

    def listing(self, folder: str) -> dict[str, Found]:
        """Path → size and time of all files below a folder."""

        def act() -> dict[str, Found]:
            self.filesystem.invalidate_cache()
            try:
                found: Mapping[str, Mapping[str, Any]] = self.filesystem.find(folder, detail=True)
            except FileNotFoundError:
                return {}
            return {
                path: Found(size=int(info.get("size") or 0), modified=self._modified(path, info))
                for path, info in found.items()
            }

        with self.reading():
            return persistent(act)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; absent ones count as removed."""

        def one(path: str) -> None:
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(path)

        with self.writing():
            for _ in self._many(lambda path: persistent(lambda: one(path)), list(paths), workers=CONNECTIONS):
                pass

    # Transfers

    def download(self, files: Mapping[str, StoredFile], folder: str, into: Path) -> None:
        """Download files and check the sha256 of what arrived; FileNotFoundError if one is missing.

        `failures.Damaged` if the bytes are wrong after several attempts: they are wrong in the store.
        """

        def part(job: tuple[str, int, int]) -> None:
            name, start, end = job
            whole = end - start == files[name].size
            limits = {} if whole else {"start": start, "end": end}
            content = self._part(f"{folder}/{name}", limits, length=end - start)
            with (into / name).open("r+b") as stream:
                stream.seek(start)
                stream.write(content)

        with self.reading(passing=(FileNotFoundError, failures.Damaged)):
            waiting = list(files)
            for attempt in range(DOWNLOADS):
                for name in waiting:
                    (into / name).write_bytes(b"")
                jobs = [(name, *limits) for name in waiting for limits in _parts(files[name].size)]
                for _ in self._many(lambda job: persistent(lambda: part(job)), jobs, workers=TRANSFERS * PARTS):
                    pass
                waiting = [name for name in waiting if _sha256(into / name) != files[name].sha256]
                if not waiting:
                    return
                if attempt == DOWNLOADS - 1:
                    raise failures.Damaged(f"{waiting[0]} does not have the sha256 that it had when it was uploaded")

    def _part(self, path: str, limits: Mapping[str, int], *, length: int) -> bytes:
        try:
            content = bytes(self.filesystem.cat_file(path, **limits))
        except Exception as error:
            if failures.answer(error)[1] == 416:  # the range begins after the end
                raise failures.Damaged(f"{path.rpartition('/')[2]} is shorter than it was") from error
            raise
        if len(content) != length:
            raise failures.Damaged(f"{path.rpartition('/')[2]} has another length than it had when it was uploaded")
        return content

    def upload(self, files: Mapping[str, StoredFile], source: Path, folder: str) -> None:
        """Upload files; those that are there with their full size are not sent again."""
        with self.writing():
            there = self.listing(folder)
            absent = [
                name
                for name, file in files.items()
                if f"{folder}/{name}" not in there or there[f"{folder}/{name}"].size != file.size
            ]
            if absent:
                self.filesystem.makedirs(folder, exist_ok=True)

            def one(name: str) -> None:
                self.filesystem.put_file(str(source / name), f"{folder}/{name}", **self._transfer())

            for _ in self._many(lambda name: persistent(lambda: one(name)), absent, workers=TRANSFERS):
                pass

    def clear_unfinished(self, *, before: datetime) -> int:
        """Give up multipart uploads below this address that began before this time; returns their number."""
        if self.protocol not in _S3:
            return 0
        bucket, _, prefix = self.root.partition("/")
        with self.writing():
            uploads = [
                upload
                for upload in self.filesystem.list_multipart_uploads(bucket)
                if str(upload["Key"]).startswith(f"{prefix}/" if prefix else "") and upload["Initiated"] < before
            ]
            for upload in uploads:
                self.filesystem.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        return len(uploads)

    # Errors

    @contextmanager
    def reading(self, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Convert every exception except those in `passing` to Unreachable."""
        try:
            yield
        except ResurgenceError:
            raise
        except passing:
            raise
        except Exception as error:
            otherwise = "Check the address, the network and your credentials, or choose another store."
            raise Unreachable(
                sentence(
                    f"The store {self.shown} cannot be read.",
                    reason=failures.reason(error),
                    do=failures.advice(error, otherwise=otherwise),
                )
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Convert every exception to Unwritable, or to ReadOnly if writing is refused."""
        try:
            yield
        except ResurgenceError:
            raise
        except Exception as error:
            otherwise = "Check the address and your permissions, or choose another store with --resurgence-store."
            raise (ReadOnly if failures.refused(error) else Unwritable)(
                sentence(
                    f"The store {self.shown} cannot be written.",
                    reason=failures.reason(error),
                    do=failures.advice(error, otherwise=otherwise),
                )
            ) from error

    # Backends

    def _options(self) -> dict[str, Any]:
        """Settings of the connection, none of them a credential."""
        if self.protocol not in _S3:
            return {}
        retries = {"mode": "standard", "total_max_attempts": 2}
        return {"config_kwargs": {"max_pool_connections": 2 * CONNECTIONS, "retries": retries}}

    def _transfer(self) -> dict[str, int]:
        """Settings of a transfer in parts."""
        return {"chunksize": PART, "max_concurrency": PARTS} if self.protocol in _S3 else {}

    def _pipe(self, path: str, content: bytes) -> None:
        if self.protocol in _LOCAL:
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.filesystem.pipe_file(path, content)

    def _create(self, path: str, content: bytes) -> None:
        if self.protocol in _LOCAL:  # fsspec's own would look first and write then, which excludes nobody
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            with Path(path).open("xb") as stream:
                stream.write(content)
        else:
            self.filesystem.pipe_file(path, content, mode="create")

    def _many(self, act: Any, items: Sequence[object], *, workers: int) -> Iterator[object]:
        """Call `act` for each item; side by side if the backend serves several threads, as asynchronous ones do."""
        if getattr(self.filesystem, "async_impl", False) and len(items) > 1:
            yield from side_by_side(act, items, workers=workers)
        else:
            for item in items:
                yield act(item)

    def _modified(self, path: str, info: Mapping[str, Any]) -> datetime | None:
        for name in ("LastModified", "last_modified", "updated", "mtime"):
            moment = info.get(name)
            if isinstance(moment, str):
                with suppress(ValueError):
                    moment = datetime.fromisoformat(moment)
            elif isinstance(moment, int | float):
                moment = datetime.fromtimestamp(moment, UTC)
            if isinstance(moment, datetime):
                return moment.replace(tzinfo=moment.tzinfo or UTC)
        try:
            moment = self.filesystem.modified(path)
        except (FileNotFoundError, NotImplementedError):
            return None
        return moment.replace(tzinfo=moment.tzinfo or UTC) if isinstance(moment, datetime) else None


def _parts(size: int) -> list[tuple[int, int]]:
    """(start, end) of the parts of a file of this size."""
    return [(start, min(start + PART, size)) for start in range(0, size, PART)]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
