"""The store: key → artifact, complete or absent.

    root/ab/abcdef…/<files>           the artifact's files
    root/ab/abcdef…/manifest.json     written last: without it the artifact is not finished
    root/tmp/<key>.<random>/          a build in progress; left behind only if its process was killed
    root/locks/<key>.lock             held during a build; an flock, released when its process ends

The manifest contains every file's sha256, checked at every read, and a checksum of itself. One process builds an
artifact while the others wait for it, also on other machines if the store is remote and its backend has conditional
writes (remote/leases.py). Corrupt artifacts are reported and built again, never used.

    root/unsent/<key>                 built here, but not yet in the remote store: sent by the next run that needs it

With RESURGENCE_STORE_KEY, artifacts not sealed with that key count as absent. Opened for a fresh run, a store contains
only what that run built. In both cases the old artifact stays until the new one replaces it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from resurgence_harness.errors import Corrupt, ReadOnly, StoreError, Unreachable, Unwritable, UserError, sentence, shown
from resurgence_harness.storing.artifacts import Artifact, Condition, Seal
from resurgence_harness.storing.disk import make_directory, write_last
from resurgence_harness.storing.manifests import described, manifest_bytes, parsed, verify, verify_size
from resurgence_harness.storing.places import ANOTHER, cache, default_root, expanded
from resurgence_harness.storing.remote import MANIFEST, Damaged, Lease, Remote, discreet
from resurgence_harness.storing.root import Root
from resurgence_harness.storing.sealing import counts, store_key

_KEY = re.compile(r"[0-9a-f]{64}")


class StoreWarning(UserWarning):
    """A corrupt artifact was found and is built again, or two machines may build the same one."""


class Store:
    """Artifacts under one root: a local directory, or a URL supported by fsspec, mirrored in the local cache."""

    def __init__(
        self, root: str | Path | None = None, *, read_only: bool = False, run: str = "", mirror: Path | None = None
    ) -> None:
        """Open a store (default root: `default_root()`); directories are created by the first build.

        `mirror` is the local directory of a remote store (default: one in the cache for each address).

        `run` identifies a fresh run, the same in all its processes and never used before: artifacts that it did not
        build count as absent. UserError for an invalid RESURGENCE_STORE_KEY.
        """
        chosen = str(root) if root is not None else default_root()
        if not chosen.strip():
            raise UserError(sentence("The store's path is empty.", do=f"Give a directory, or {ANOTHER}."))
        store_key()
        self.read_only, self.run = read_only, run
        self.ignored: dict[str, Seal] = {}
        """Requested keys whose artifacts count as absent because of their seals."""
        self.remote: Remote | None = None
        self._ahead: dict[str, bytes | None] = {}
        """Remote manifests that `read_ahead` has read."""
        if chosen.startswith("file://"):
            chosen = chosen.removeprefix("file://")
        if "://" in chosen:
            self.remote = Remote(chosen)
            name = hashlib.sha256(self.remote.url.encode()).hexdigest()[:16]
            self.root = cache() / "resurgence-mirrors" / name if mirror is None else mirror
        else:
            self.root = expanded(chosen)
        self.name = chosen
        """The root as the user gave it."""
        self.here = Root(self.root, discreet(chosen))
        """The local directory, with its locks and error messages."""

    @property
    def packs(self) -> Path | None:
        """Where copies of a remote store's packs are kept; None if the mirror is not there yet."""
        return self.root / "packs" if self.root.is_dir() else None

    # Reading

    def find(self, key: str) -> Artifact | None:
        """The artifact from its manifest, its files unread; None if there is no readable manifest."""
        try:
            return self._manifest(key)
        except Corrupt:
            return None

    def open(self, key: str) -> Artifact:
        """The artifact with every byte verified. StoreError if it is absent, Corrupt naming the first damaged file."""
        artifact = self._manifest(key)
        if artifact is None:
            raise StoreError(sentence("The store does not have the requested artifact.", store=self.here.name, key=key))
        return self.verified(artifact)

    def verified(self, artifact: Artifact) -> Artifact:
        """An artifact of this store with every byte verified, downloaded first if it is only in the remote store."""
        if self.remote is not None and not self._is_here(artifact):
            with self.here.writing(), self.here.locked(artifact.key):
                self._fetch(artifact)
        return self._verified(artifact)

    def _verified(self, artifact: Artifact) -> Artifact:
        for name, expected in artifact.files.items():
            verify(artifact, name, expected)
        with suppress(OSError):  # a read-only store can still be read
            if not self.read_only:
                os.utime(artifact.path / MANIFEST)
        return artifact

    def condition(self, key: str) -> Condition:
        """The state of a key, from manifests and file sizes alone; reads no whole files and writes nothing.

        CHANGED: one of its inputs has been built again with another digest. Inputs that are no longer in the store do
        not count as changed: judgments stay valid after their images and checkpoints were removed.
        """
        try:
            artifact = self._manifest(key)
            if artifact is None:
                return Condition.MISSING
            if self.remote is None or self._is_here(artifact):
                for name, expected in artifact.files.items():
                    verify_size(artifact, name, expected)
        except Corrupt:
            return Condition.CORRUPT
        for source, digest in artifact.inputs.items():
            found = self.find(source)
            if found is not None and found.digest != digest:
                return Condition.CHANGED
        return Condition.PRESENT

    def current(self, key: str) -> Artifact | None:
        """The artifact, verified, if it is present, intact and built from the store's current inputs; else None."""
        if self.condition(key) is not Condition.PRESENT:
            return None
        try:
            return self.open(key)
        except (Unreachable, Unwritable):  # a new artifact could not be stored, either
            raise
        except StoreError:
            return None

    # Building

    def make(
        self,
        key: str,
        *,
        kind: str,
        label: str,
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
        stale: Callable[[Artifact], bool] = lambda artifact: False,
    ) -> Artifact:
        """The artifact under `key`: the stored one, or a new one from `build`.

        `build` gets a directory, writes files into it and returns facts, which must be JSON. One process builds while
        others wait. A stored artifact is built again if it is corrupt, was built from other `inputs`, or is `stale`.
        ReadOnly if it is missing from a read-only store.
        """
        if (existing := self._existing(key, inputs)) is not None and not stale(existing):
            if self._unsent(key).exists():
                with self.here.writing(f"{kind}: {label}"), self.here.locked(key):
                    self._send(existing)
            return existing
        if self.read_only:
            raise ReadOnly(
                sentence(
                    f"{label} is not in the store, which was opened for reading only.", store=self.here.name, key=key
                )
            )
        with self.here.writing(f"{kind}: {label}"), self.here.locked(key):
            self._clear(key)
            if (existing := self._existing(key, inputs, under_lock=True)) is not None and not stale(existing):
                return existing

            def found() -> Artifact | None:
                found = self._existing(key, inputs, under_lock=True)
                return None if found is None or stale(found) else found

            lease = self._lease(key, label=f"{kind}: {label}", inputs=inputs, instead=found)
            if isinstance(lease, Artifact):
                return lease
            with lease or nullcontext():
                if lease is not None and (existing := found()) is not None:
                    return existing  # another machine finished it before this one got the lease
                return self._build(key, kind=kind, label=label, inputs=inputs, build=build)

    # Listing and resealing

    def busy(self, key: str) -> bool:
        """Whether another process, or another machine that shares the remote store, is building this artifact now."""
        return self.here.busy(key) or (self.remote is not None and self.remote.leases.busy(key))

    def keys(self) -> list[str]:
        """The keys of all artifacts that have a manifest, sorted."""
        return sorted({*self._local_keys(), *(self.remote.keys() if self.remote is not None else [])})

    def ls(self) -> list[Artifact]:
        """All usable artifacts, oldest first. Unreadable ones are left out; `verify` reports them."""
        return [artifact for artifact in self.entries() if self._counts(artifact)]

    def entries(self) -> list[Artifact]:
        """All finished artifacts, oldest first, whatever their seal and the run that built them."""
        with self.reading_ahead():
            keys = self.keys()
            self.read_ahead(keys)
            found = [self.entry(key) for key in keys]
        return sorted((artifact for artifact in found if artifact is not None), key=lambda artifact: artifact.made)

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """While the context is open, manifests that `read_ahead` has read are not read again."""
        before = dict(self._ahead)
        try:
            yield
        finally:
            self._ahead = before

    def read_ahead(self, keys: Iterable[str]) -> None:
        """Read the remote manifests of the keys that are not in the mirror, many at once; in `reading_ahead`."""
        if self.remote is not None:
            absent = [key for key in keys if key not in self._ahead and not self._usable_here(key)]
            self._ahead.update(self.remote.manifests(absent))

    def local_entries(self) -> list[Artifact]:
        """As `entries`, of the local directory alone."""
        found = []
        for key in self._local_keys():
            with suppress(Corrupt):
                found.append(self._read_here(key))
        return sorted((one for one in found if one is not None), key=lambda one: one.made)

    def entry(self, key: str) -> Artifact | None:
        """As `find`, whatever its seal and the run that built it."""
        try:
            return self._best(key)
        except Corrupt:
            return None

    def parsed_or_none(self, manifest: bytes | None, key: str) -> Artifact | None:
        """The artifact of a manifest that was read; None if there is none, or it is damaged."""
        try:
            return None if manifest is None else self._parsed(manifest, key, used=time.time())
        except Corrupt:
            return None

    def replace_manifest(self, artifact: Artifact, change: Callable[[bytes], bytes]) -> None:
        """Rewrite an artifact's manifest, locally and remotely, if it is still the same artifact."""
        path = artifact.path / MANIFEST
        with self.here.writing(), self.here.locked(artifact.key):
            if not self._is_here(artifact):
                return
            manifest = change(path.read_bytes())
            write_last(path, manifest)
            if self.remote is not None:
                self.remote.push_manifest(artifact.key, manifest)

    # Internals

    def _local_keys(self) -> list[str]:
        names = (path.parent.name for path in self.root.glob(f"[0-9a-f][0-9a-f]/*/{MANIFEST}"))
        return [name for name in names if _KEY.fullmatch(name)]

    def _folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise UserError(sentence(f"{key!r} is not a key.", do="A key is 64 hexadecimal digits."))
        return self.root / key[:2] / key

    def _manifest(self, key: str) -> Artifact | None:
        """The usable artifact from its manifest, or None; Corrupt if the manifest is damaged."""
        artifact = self._best(key)
        if artifact is None or self._counts(artifact):
            return artifact
        if not counts(artifact.seal):
            self.ignored.setdefault(key, artifact.seal)
        return None

    def _counts(self, artifact: Artifact) -> bool:
        return counts(artifact.seal) and self.run in ("", artifact.run)

    def _best(self, key: str) -> Artifact | None:
        """The local artifact; if it is absent or not usable, the remote one."""
        here = self._read_here(key)
        if self.remote is None or (here is not None and self._counts(here)):
            return here
        text = self._manifest_there(key)
        return here if text is None else self._parsed(text, key, used=time.time())

    def _manifest_there(self, key: str) -> bytes | None:
        """The remote store's manifest."""
        assert self.remote is not None
        return self._ahead[key] if key in self._ahead else self.remote.manifest(key)

    def _usable_here(self, key: str) -> bool:
        try:
            here = self._read_here(key)
        except Corrupt:
            return True  # reported as such, whatever the remote store has
        return here is not None and self._counts(here)

    def _read_here(self, key: str) -> Artifact | None:
        path = self._folder(key) / MANIFEST
        try:
            text, used = path.read_bytes(), path.stat().st_mtime
        except OSError:
            return None
        return self._parsed(text, key, used=used)

    def _parsed(self, text: bytes, key: str, *, used: float) -> Artifact:
        folder = self._folder(key)
        try:
            return parsed(text, key=key, folder=folder, used=used)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise Corrupt(
                sentence(
                    f"The manifest of {key[:12]} is not the one that was written.",
                    file=folder / MANIFEST,
                    reason=shown(" ".join(str(error).split()) or type(error).__name__),
                    do="Run `resurgence store verify`; the next build makes it again.",
                )
            ) from error

    def _is_here(self, artifact: Artifact) -> bool:
        """Whether the local directory has this same artifact; its files may be damaged."""
        try:
            here = self._read_here(artifact.key)
        except Corrupt:
            return False
        return here is not None and (here.digest, here.made, here.seal) == (
            artifact.digest,
            artifact.made,
            artifact.seal,
        )

    def _existing(self, key: str, inputs: Mapping[str, str], *, under_lock: bool = False) -> Artifact | None:
        """The stored artifact, if it was built from these inputs; warns of a corrupt one if the lock is held."""
        try:
            artifact = self._manifest(key)
            if artifact is not None and dict(artifact.inputs) == dict(inputs):
                if self.remote is not None and not self._is_here(artifact):
                    if not under_lock:
                        return self.verified(artifact)
                    self._fetch(artifact)
                return self._verified(artifact)
        except Corrupt as error:
            if under_lock:
                warnings.warn(StoreWarning(f"{error}\n  It is being built again."), stacklevel=3)
        return None

    def _clear(self, key: str) -> None:
        """Remove the leftovers of killed builds of this key; the lock is held, so no other process writes there."""
        for leftover in (self.root / "tmp").glob(f"{key}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _build(
        self,
        key: str,
        *,
        kind: str,
        label: str,
        inputs: Mapping[str, str],
        build: Callable[[Path], Mapping[str, Any]],
    ) -> Artifact:
        folder = self._folder(key)
        work = self._workplace(key)
        try:
            start = time.monotonic()
            facts = build(work)
            seconds = time.monotonic() - start
            files = described(work, label=label)
            manifest = manifest_bytes(
                key=key, kind=kind, label=label, inputs=inputs, facts=facts, files=files, seconds=seconds, run=self.run
            )
            if self.remote is not None:
                make_directory(self._unsent(key).parent)
                self._unsent(key).touch()
            self._put(work, folder, manifest)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            if not (folder / MANIFEST).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        artifact = parsed(manifest, key=key, folder=folder, used=time.time())
        if self.remote is not None:
            self.remote.push(key, artifact.digest, files, manifest, folder)
            self._unsent(key).unlink(missing_ok=True)
        return artifact

    def _unsent(self, key: str) -> Path:
        """Exists while an artifact that was built here is not yet in the remote store."""
        return self.root / "unsent" / key

    def _send(self, artifact: Artifact) -> None:
        """Upload an artifact whose upload failed; another machine's may be there by now, and is kept."""
        if self.remote is not None and self._unsent(artifact.key).exists():
            if self.remote.manifest(artifact.key) is not None:
                self.remote.packs.note(artifact.key)
            else:
                manifest = (artifact.path / MANIFEST).read_bytes()
                self.remote.push(artifact.key, artifact.digest, artifact.files, manifest, artifact.path)
            self._unsent(artifact.key).unlink(missing_ok=True)

    def _lease(
        self, key: str, *, label: str, inputs: Mapping[str, str], instead: Callable[[], Artifact | None]
    ) -> Lease | Artifact | None:
        """The remote store's lease on a key, or the artifact that another machine built while this one waited.

        None for a local store, and if the backend has no conditional writes: then two machines may build it at once.
        """
        if self.remote is None:
            return None
        if self.remote.leases.hold:
            return self.remote.leases.acquire(key, label=label, inputs=inputs, instead=instead)
        if self.remote.files.shared:
            warnings.warn(
                StoreWarning(
                    f"Two machines that use {self.here.name} may build the same artifact at once: "
                    "this kind of store has no conditional writes."
                ),
                stacklevel=3,
            )
        return None

    def _fetch(self, artifact: Artifact) -> None:
        """Download a remote artifact into the mirror, laid out like a build; the key's lock must be held."""
        assert self.remote is not None
        manifest = self.remote.manifest(artifact.key)
        while manifest is not None and not self._is_here(artifact):
            now = self._parsed(manifest, artifact.key, used=time.time())
            self._clear(artifact.key)
            work = self._workplace(artifact.key)
            try:
                self.remote.pull(artifact.key, now.digest, now.files, work)
                self._put(work, artifact.path, manifest)
                self.remote.note_use(artifact.key)
                return
            except (FileNotFoundError, Damaged) as error:
                before, manifest = manifest, self.remote.manifest(artifact.key)
                if manifest == before:  # else another machine replaced the artifact meanwhile
                    what = f"{type(error).__name__}: {error}" if isinstance(error, Damaged) else "a file is missing"
                    raise Corrupt(
                        sentence(
                            f"{artifact.label} in {self.here.name} is not what was uploaded.",
                            reason=shown(what),
                            key=artifact.key,
                            do="The next build that needs it builds it again.",
                        )
                    ) from error
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _put(self, work: Path, folder: Path, manifest: bytes) -> None:
        """Move a finished folder to its final place, replacing an existing one."""
        make_directory(folder.parent)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
        write_last(folder / MANIFEST, manifest)

    def _workplace(self, key: str) -> Path:
        work = self.root / "tmp" / f"{key}.{uuid.uuid4().hex[:12]}"
        make_directory(work.parent)
        work.mkdir()
        return work
