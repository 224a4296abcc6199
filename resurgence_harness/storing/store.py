"""The store: key → artifact, whole or absent.

    root/ab/abcdef…/<files>           what was made
    root/ab/abcdef…/manifest.json     written last: without it nothing here is finished
    root/tmp/<key>.<random>/          being made; left behind only by a builder that was killed
    root/locks/<key>.lock             held while making; an flock, which dies with its process

Every file's sha256 stands in the manifest and is checked at every read; the manifest carries its own. One process makes
an artifact while the others wait for it. What is corrupt is named and made again, never served.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import resurgence_harness
from resurgence_harness.errors import BuildError, Corrupt, ResurgenceError, StoreError, Unwritable, UserError, sentence
from resurgence_harness.storing.remote import MANIFEST, Remote

FORMAT = 1
"""The manifest's layout; raised when an older package could misread a newer one."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ESTALE, errno.EIO)

ANOTHER = "choose another place with --resurgence-store or RESURGENCE_STORE"
_KEY = re.compile(r"[0-9a-f]{64}")


class StoreWarning(UserWarning):
    """Something in the store was wrong and has been put right."""


class Condition(Enum):
    """What the store has for a key, in the words that a plan prints."""

    PRESENT = "present"
    MISSING = "missing"
    CORRUPT = "corrupt"
    CHANGED = "inputs changed"


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of an artifact, as it was when it was written."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something finished: what was asked (key), what came out (digest), and where its bytes lie (path)."""

    key: str
    kind: str
    """checkpoint, images, judgments, tensors …"""
    words: str
    """What it is, for people."""
    digest: str
    """sha256 over the sorted (name, sha256) of its files."""
    path: Path
    """The local directory that holds its files."""
    files: Mapping[str, StoredFile] = field(hash=False)
    inputs: Mapping[str, str] = field(hash=False)
    """Key → digest of what it was made from."""
    facts: Mapping[str, Any] = field(hash=False)
    """Provenance, as the build returned it."""
    seconds: float
    """How long the build took, waiting for others excluded."""
    made: datetime
    used: datetime
    """When it was last opened."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `verify` found for one artifact."""

    key: str
    words: str
    size: int
    problem: str = ""
    """Empty where every byte is the one that was written."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What `gc` took away (or would)."""

    place: str
    words: str
    size: int
    reason: str


def default_root() -> str:
    """`$RESURGENCE_STORE`, else ~/.cache/resurgence (below `$XDG_CACHE_HOME` where that is set)."""
    if chosen := os.environ.get("RESURGENCE_STORE", "").strip():
        return chosen
    return str(_cache() / "resurgence")


def check_usable(root: str | Path, *, room: int = 1 << 20) -> None:
    """Try the store as a build would use it, by writing; UserError in one sentence where that fails. Nothing remains.

    `room` is how many bytes must fit.
    """
    with _told_to_the_user():
        Store(root)._try_writing(room)


class Store:
    """Artifacts under one root: a local directory, or a URL that fsspec knows, mirrored in the local cache."""

    def __init__(self, root: str | Path | None = None, *, read_only: bool = False) -> None:
        """Name the root (default: `default_root()`); nothing is touched before something is made."""
        chosen = str(root) if root is not None else default_root()
        if not chosen.strip():
            raise UserError(sentence("The store's path is empty.", do=f"Give a directory, or {ANOTHER}."))
        self.read_only = read_only
        self.remote: Remote | None = None
        if chosen.startswith("file://"):
            chosen = chosen.removeprefix("file://")
        if "://" in chosen:
            self.remote = Remote(chosen)
            self.root = _cache() / "resurgence-mirrors" / hashlib.sha256(self.remote.url.encode()).hexdigest()[:16]
        else:
            self.root = Path(chosen).expanduser().absolute()
        self.name = chosen
        """The root as it was given."""

    # Reading

    def find(self, key: str) -> Artifact | None:
        """The artifact as its manifest tells it, its bytes unread; None where there is no readable manifest."""
        try:
            return self._manifest(key)
        except Corrupt:
            return None

    def open(self, key: str) -> Artifact:
        """The artifact with every byte verified. Corrupt names the file that is not what was written."""
        artifact = self._manifest(key)
        if artifact is None:
            raise StoreError(sentence("The store does not have what was asked for.", store=self.name, key=key))
        if self.remote is not None and not artifact.path.is_dir():
            with self._writing(), self._locked(key):
                self._fetch(artifact)
        return self._verified(artifact)

    def _verified(self, artifact: Artifact) -> Artifact:
        for name, expected in artifact.files.items():
            _verify(artifact, name, expected)
        with suppress(OSError):  # a store that cannot be written can still be read
            if not self.read_only:
                os.utime(artifact.path / MANIFEST)
        return artifact

    def condition(self, key: str) -> Condition:
        """What the store has, from manifests and file sizes alone; nothing is read through and nothing is written.

        CHANGED: something it was made from has since been made again and came out different. Inputs that are no longer
        in the store cannot have changed: old judgments outlive the images and checkpoints that were cleared away.
        """
        try:
            artifact = self._manifest(key)
            if artifact is None:
                return Condition.MISSING
            if self.remote is None or artifact.path.is_dir():
                for name, expected in artifact.files.items():
                    _verify_size(artifact, name, expected)
        except Corrupt:
            return Condition.CORRUPT
        for source, digest in artifact.inputs.items():
            found = self.find(source)
            if found is not None and found.digest != digest:
                return Condition.CHANGED
        return Condition.PRESENT

    def current(self, key: str) -> Artifact | None:
        """The artifact, verified, if it is there, whole, and made from what the store holds now; else None."""
        if self.condition(key) is not Condition.PRESENT:
            return None
        try:
            return self.open(key)
        except StoreError:
            return None

    # Making

    def make(
        self,
        key: str,
        *,
        kind: str,
        words: str,
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artifact:
        """The artifact under `key`: the one that is there, or a new one that `build` makes.

        `build` writes files into the directory it is given and returns facts, which must be JSON. One process builds
        while others wait. What is there is made again where it is corrupt or was made from other `inputs`.
        """
        if (existing := self._existing(key, inputs)) is not None:
            return existing
        if self.read_only:
            raise Unwritable(
                sentence(f"{words} is not in the store, which was opened for reading only.", store=self.name, key=key)
            )
        with self._writing(), self._locked(key):
            self._clear(key)
            if (existing := self._existing(key, inputs, under_lock=True)) is not None:
                return existing
            return self._build(key, kind=kind, words=words, inputs=inputs, build=build)

    # Keeping

    def busy(self, key: str) -> bool:
        """Whether somebody is making this now."""
        from filelock import Timeout

        if not (self.root / "locks" / f"{key}.lock").exists():
            return False
        try:
            with self._locked(key, wait=False):
                return False
        except Timeout:
            return True

    def keys(self) -> list[str]:
        """The keys of everything that has a manifest."""
        here = [path.parent.name for path in self.root.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST}")]
        there = self.remote.keys() if self.remote is not None else []
        return sorted({name for name in (*here, *there) if _KEY.fullmatch(name)})

    def ls(self) -> list[Artifact]:
        """Everything finished, oldest first. What cannot be read is left to `verify`."""
        found = (self.find(key) for key in self.keys())
        return sorted((artifact for artifact in found if artifact is not None), key=lambda artifact: artifact.made)

    def verify(self) -> Iterator[Checked]:
        """Read every byte of every artifact and tell which are whole."""
        for key in self.keys():
            artifact = self.find(key)
            words, size = (artifact.words, artifact.size) if artifact is not None else ("", 0)
            try:
                self.open(key)
            except StoreError as error:
                yield Checked(key=key, words=words, size=size, problem=str(error).splitlines()[0])
            else:
                yield Checked(key=key, words=words, size=size)

    def gc(self, *, older_than_days: float, keep_kinds: Collection[str] = (), dry_run: bool = False) -> list[Removed]:
        """Take away what was last used more than `older_than_days` ago, and what killed builders left behind.

        Anything removed can be made again. Artifacts that are being made now are left alone.
        """
        removed: list[Removed] = []
        with self._writing():
            for leftover, reason in self._leftovers():
                removed += self._remove(leftover, key=leftover.name.split(".")[0], reason=reason, dry_run=dry_run)
            now = datetime.now(UTC)
            for artifact in self.ls():
                days = (now - artifact.used).total_seconds() / 86400
                if artifact.kind not in keep_kinds and days >= older_than_days:
                    removed += self._remove(
                        artifact.path,
                        key=artifact.key,
                        words=f"{artifact.kind}: {artifact.words}",
                        reason=f"last used {days:.0f} days ago",
                        dry_run=dry_run,
                    )
        return removed

    # Inside

    def _folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise UserError(sentence(f"{key!r} is not a key.", do="A key is 64 hexadecimal digits."))
        return self.root / key[:2] / key

    def _manifest(self, key: str) -> Artifact | None:
        """The parsed manifest; None where there is none; Corrupt where it is not the one that was written."""
        path = self._folder(key) / MANIFEST
        used = time.time()
        try:
            text: bytes | None = path.read_bytes()
            used = path.stat().st_mtime
        except OSError:
            text = self.remote.manifest(key) if self.remote is not None else None
        if text is None:
            return None
        try:
            return _parsed(text, key=key, folder=path.parent, used=used)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(
                sentence(
                    f"The manifest of {key[:12]} is not the one that was written.",
                    file=path,
                    reason=" ".join(str(error).split()) or type(error).__name__,
                    do="Run `resurgence store verify`; the next build makes it again.",
                )
            ) from error

    def _existing(self, key: str, inputs: Mapping[str, str], *, under_lock: bool = False) -> Artifact | None:
        """What is there and fits; under the key's lock, what does not fit is named and removed."""
        try:
            artifact = self._manifest(key)
            if artifact is not None and dict(artifact.inputs) == dict(inputs):
                if self.remote is not None and not artifact.path.is_dir():
                    if not under_lock:
                        return self.open(key)
                    self._fetch(artifact)
                return self._verified(artifact)
        except Corrupt as error:
            if under_lock:
                warnings.warn(StoreWarning(f"{error}\n  It is being made again."), stacklevel=3)
        except StoreError:  # taken away between the two looks
            pass
        if under_lock:
            self._discard(key)
        return None

    def _discard(self, key: str) -> None:
        folder = self._folder(key)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        if self.remote is not None:
            self.remote.remove(key)

    def _clear(self, key: str) -> None:
        """Remove what a killed builder of this key left; the lock is ours, so nobody is writing there."""
        for leftover in (self.root / "tmp").glob(f"{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _build(
        self,
        key: str,
        *,
        kind: str,
        words: str,
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artifact:
        folder = self._folder(key)
        work = self._workplace(key)
        try:
            start = time.monotonic()
            facts = build(work)
            seconds = time.monotonic() - start
            files = _described(work, words=words)
            manifest = _manifest_bytes(
                key=key, kind=kind, words=words, inputs=inputs, facts=facts, files=files, seconds=seconds
            )
            _make_directory(folder.parent)
            work.rename(folder)
            _write_last(folder / MANIFEST, manifest)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            if not (folder / MANIFEST).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        artifact = _parsed(manifest, key=key, folder=folder, used=time.time())
        if self.remote is not None:
            self.remote.push(key, artifact.digest, list(files), manifest, folder)
        return artifact

    def _fetch(self, artifact: Artifact) -> None:
        """Bring a remote artifact into the mirror, as a build would have made it; its key is locked."""
        assert self.remote is not None
        manifest = self.remote.manifest(artifact.key)
        if (artifact.path / MANIFEST).is_file() or manifest is None:
            return
        self._clear(artifact.key)
        work = self._workplace(artifact.key)
        try:
            self.remote.pull(artifact.key, artifact.digest, list(artifact.files), work)
        except FileNotFoundError as error:
            shutil.rmtree(work, ignore_errors=True)
            raise Corrupt(
                sentence(f"A file of {artifact.words} is missing from {self.name}.", key=artifact.key)
            ) from error
        shutil.rmtree(artifact.path, ignore_errors=True)
        _make_directory(artifact.path.parent)
        work.rename(artifact.path)
        _write_last(artifact.path / MANIFEST, manifest)

    def _workplace(self, key: str) -> Path:
        work = self.root / "tmp" / f"{key}.{uuid.uuid4().hex[:12]}"
        _make_directory(work.parent)
        work.mkdir()
        return work

    def _leftovers(self) -> Iterator[tuple[Path, str]]:
        for path in sorted((self.root / "tmp").glob("*")):
            yield path, "left by a builder that was stopped"
        for path in sorted(self.root.glob("[0-9a-f][0-9a-f]/*")):
            if not (path / MANIFEST).is_file():
                yield path, "never finished"

    def _remove(self, path: Path, *, key: str, reason: str, dry_run: bool, words: str = "unfinished") -> list[Removed]:
        from filelock import Timeout

        try:
            with nullcontext() if dry_run else self._locked(key, wait=False):
                if words == "unfinished" and (path / MANIFEST).is_file():
                    return []  # finished while we looked
                removed = Removed(place=str(path), words=words, size=_bytes_in(path), reason=reason)
                if not dry_run:
                    (path / MANIFEST).unlink(missing_ok=True)
                    shutil.rmtree(path, ignore_errors=True)
                    if self.remote is not None and words != "unfinished":
                        self.remote.remove(key)
                return [removed]
        except Timeout:
            return []

    @contextmanager
    def _locked(self, key: str, *, wait: bool = True) -> Iterator[None]:
        from filelock import FileLock

        self._make_root()
        _make_directory(self.root / "locks")
        # A soft lock would outlive its process: where flock does not work, say so instead of falling back to one.
        with FileLock(self.root / "locks" / f"{key}.lock", timeout=-1 if wait else 0, fallback_to_soft=False):
            yield

    def _make_root(self) -> None:
        """Make the root if only its last part is missing: a vanished disk must not be replaced by a new folder."""
        if self.root.is_dir():
            return
        self.root.mkdir(parents=self.root.is_relative_to(_cache()), exist_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the system says about a full, read-only or vanished store into one sentence."""
        try:
            yield
        except ResurgenceError:
            raise
        except Exception as error:
            problem = self._problem(error)
            if problem is None:
                raise
            raise problem from error

    def _problem(self, error: Exception) -> Unwritable | None:
        number = _error_number(error)
        reason = " ".join(str(error).split())
        if number in FULL:
            first, do = f"The store at {self.name} is full.", f"Free space (`resurgence store gc`), or {ANOTHER}."
        elif number in READ_ONLY and self._concerns(error):
            first, do = f"The store at {self.name} is read-only.", f"Allow writing there, or {ANOTHER}."
        elif number in VANISHED and not self.root.is_dir():
            first, do = self._absence(), f"Make the directory, mount its disk, or {ANOTHER}."
        elif number == errno.ENOENT and getattr(error, "filename", None) and self._concerns(error):
            first, do = f"Something in the store at {self.name} was removed during a build.", "Run the build again."
        elif number in (errno.ENOSYS, errno.EOPNOTSUPP):
            first, do = f"The store at {self.name} is on a file system without locks.", f"C{ANOTHER[1:]}."
        else:
            return None
        return Unwritable(sentence(first, reason=reason, do=do))

    def _absence(self) -> str:
        if self.root.is_symlink():
            return f"The store at {self.name} is a link to something that is not there."
        if self.root.exists():
            return f"The store at {self.name} is not a directory."
        if not self.root.parent.is_dir():
            return f"The store at {self.name} cannot be made: {self.root.parent} is not a directory."
        return f"The store at {self.name} has vanished."

    def _concerns(self, error: Exception) -> bool:
        """Whether the system's complaint is about the store, and not about something that the build read."""
        name = getattr(error, "filename", None)
        if not isinstance(name, str | bytes | os.PathLike):
            return True
        path = Path(os.fsdecode(name))
        return path.is_relative_to(self.root) or self.root.is_relative_to(path)

    def _try_writing(self, room: int) -> None:
        existing = self.root
        while not existing.exists() and not existing.is_symlink() and existing != existing.parent:
            existing = existing.parent
        with self._writing():
            if existing.is_file():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
            try:
                self._make_root()
                if (free := shutil.disk_usage(self.root).free) < room:
                    raise OSError(errno.ENOSPC, f"{free} bytes are free and {room} are needed", str(self.root))
                _try_one_file(self.root / f"usable.{uuid.uuid4().hex[:12]}", bytes(min(room, 1 << 20)))
            finally:
                made = self.root
                while made != existing and made.is_relative_to(existing):
                    with suppress(OSError):
                        made.rmdir()  # only what is empty, so only what we made
                    made = made.parent
        if self.remote is not None:
            probe = uuid.uuid4().hex * 2
            self.remote.push(probe, "probe", [], b"{}", self.root)
            self.remote.remove(probe)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()


@contextmanager
def _told_to_the_user() -> Iterator[None]:
    try:
        yield
    except Unwritable as error:
        raise UserError(str(error)) from error


def _error_number(error: BaseException | None) -> int | None:
    """The errno of a failure; safetensors reports the system's errors as text, "… (os error 28)"."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
            return int(found.group(1))
        error = error.__cause__
    return None


def _try_one_file(path: Path, content: bytes) -> None:
    try:
        _write_synced(path, content)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _make_directory(path: Path) -> None:
    """Make one directory, not its parents: a root that vanished is not put back in silence."""
    with suppress(FileExistsError):
        path.mkdir()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _write_last(path: Path, content: bytes) -> None:
    """Write a manifest so that it is there whole or not at all, also after a power cut."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    _write_synced(draft, content)
    os.replace(draft, path)
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


def _described(folder: Path, *, words: str) -> dict[str, StoredFile]:
    """The files that a build wrote, on the disk and hashed."""
    files: dict[str, StoredFile] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(MANIFEST):
            raise BuildError(sentence(f"The build of {words} wrote {path.name}, which cannot be stored."))
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
            files[path.name] = StoredFile(
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size=path.stat().st_size
            )
    if not files:
        raise BuildError(sentence(f"The build of {words} wrote no file."))
    return files


def _digest(files: Mapping[str, StoredFile]) -> str:
    listing = [[name, files[name].sha256] for name in sorted(files)]
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def _manifest_bytes(
    *,
    key: str,
    kind: str,
    words: str,
    inputs: Mapping[str, str],
    facts: Mapping[str, Any],
    files: Mapping[str, StoredFile],
    seconds: float,
) -> bytes:
    content: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "kind": kind,
        "words": words,
        "digest": _digest(files),
        "files": {name: {"sha256": file.sha256, "size": file.size} for name, file in files.items()},
        "inputs": dict(inputs),
        "facts": dict(facts),
        "seconds": round(seconds, 3),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": resurgence_harness.__version__,
    }
    try:
        seal = _seal(content)
    except (ValueError, TypeError) as error:
        raise BuildError(sentence(f"The facts about {words} cannot be written as JSON.", reason=error)) from error
    return (json.dumps({**content, "seal": seal}, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _seal(content: Mapping[str, Any]) -> str:
    """sha256 of the manifest's own content: the facts that verdicts rest on are guarded like the files."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _parsed(text: bytes, *, key: str, folder: Path, used: float) -> Artifact:
    """A manifest read back; ValueError, KeyError or TypeError where it is not the one that was written."""
    content: dict[str, Any] = json.loads(text)
    seal = content.pop("seal")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, and this version reads {FORMAT}")
    if seal != _seal(content):
        raise ValueError("its content does not match its seal")
    if content["key"] != key:
        raise ValueError(f"it belongs to {content['key']}")
    files = {name: StoredFile(**file) for name, file in content["files"].items()}
    return Artifact(
        key=key,
        kind=content["kind"],
        words=content["words"],
        digest=content["digest"],
        path=folder,
        files=files,
        inputs=content["inputs"],
        facts=content["facts"],
        seconds=content["seconds"],
        made=datetime.fromisoformat(content["made"]),
        used=datetime.fromtimestamp(used, UTC),
    )


def _verify_size(artifact: Artifact, name: str, expected: StoredFile) -> None:
    path = artifact.path / name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _corrupt(artifact, name, f"the file cannot be read: {error.strerror}") from error
    if size != expected.size:
        raise _corrupt(artifact, name, f"{size} bytes instead of {expected.size}")


def _verify(artifact: Artifact, name: str, expected: StoredFile) -> None:
    _verify_size(artifact, name, expected)
    try:
        with (artifact.path / name).open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _corrupt(artifact, name, f"the file cannot be read: {error.strerror}") from error
    if sha256 != expected.sha256:
        raise _corrupt(artifact, name, f"sha256 {sha256[:12]}… instead of {expected.sha256[:12]}…")


def _corrupt(artifact: Artifact, name: str, reason: str) -> Corrupt:
    return Corrupt(
        sentence(
            f"{name} of {artifact.kind} {artifact.key[:12]} ({artifact.words}) is not the file that was written.",
            file=artifact.path / name,
            reason=reason,
            key=artifact.key,
            do="Whatever needs it next makes it again.",
        )
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
