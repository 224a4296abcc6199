"""Artifacts in a remote store. Files are written before the manifest.

The layout there:

    url/ab/abcdef…/<digest>/<file>        the bytes; the digest in the path separates the files of concurrent builds
    url/ab/abcdef…/manifest.json          written last: if it exists, the artifact is complete
    url/used/<key>                        written at every download of the artifact, for the time of its last use
    url/leases/<key>/<generation>         who builds it now (leases.py)
    url/packs/…, url/changes/…            copies of the manifests, for plans (packs.py)
    url/store.json                        the version of this layout
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from resurgence_harness.errors import ResurgenceError, UserError, sentence, shown
from resurgence_harness.storing.artifacts import StoredFile
from resurgence_harness.storing.remote.files import Files, Found
from resurgence_harness.storing.remote.leases import Leases, inputs_in
from resurgence_harness.storing.remote.packs import Packs

MANIFEST = "manifest.json"
"""The file that marks an artifact as finished."""
LAYOUT = 1
"""Version of the layout; increased when an older package could misread or damage a newer store."""
SAMPLE = 256
"""About how many artifacts `sample` returns."""
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(kw_only=True)
class Inventory:
    """One listing of a whole remote store."""

    manifests: dict[str, Found] = field(default_factory=dict)
    """Key → its manifest."""
    used: dict[str, datetime] = field(default_factory=dict)
    """Key → when a machine last downloaded it."""
    leases: dict[str, Found] = field(default_factory=dict)
    """Path → the lease."""
    files: dict[str, dict[str, Found]] = field(default_factory=dict)
    """Key → path → the artifact's files, of all builds."""

    def last_used(self, key: str) -> datetime | None:
        """When an artifact was written or last downloaded; None if the backend has no file times."""
        moments = [self.manifests[key].modified, self.used.get(key)]
        return max((moment for moment in moments if moment is not None), default=None)


class Remote:
    """The remote part of a store: artifacts are uploaded after they are built and downloaded before they are opened."""

    def __init__(self, url: str) -> None:
        """Open the file system of the address; UserError if no installed package supports it."""
        self.files = Files(url)
        self.url = self.files.url
        self.leases = Leases(self.files)
        self.packs = Packs(self.files)
        self._checked = False
        self._notes_use = True

    def reach(self) -> None:
        """Unreachable unless the backend answers and, if it has buckets, has this one. An empty store passes.

        UserError for a store with the layout of a newer version of this package.
        """
        self.files.reach()
        self._check_layout(self.files.read(f"{self.files.root}/store.json"))

    def manifest(self, key: str) -> bytes | None:
        """The bytes of the remote manifest; None if the artifact is not there."""
        return self.files.read(f"{self._folder(key)}/{MANIFEST}")

    def manifests(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """As `manifest`, for many keys with many requests at once."""
        paths = {f"{self._folder(key)}/{MANIFEST}": key for key in keys}
        return {paths[path]: content for path, content in self.files.read_many(paths).items()}

    def keys(self) -> list[str]:
        """The keys of all finished artifacts there."""
        return sorted(self.inventory().manifests)

    def digests(self, keys: Iterable[str]) -> dict[str, str]:
        """Key → the digest in its manifest."""
        return {key: digest_in(manifest) for key, manifest in self.manifests(keys).items()}

    def sample(self) -> list[str]:
        """About `SAMPLE` keys, the first ones: as keys are hashes, a random sample. All of them if there are few."""
        found: list[str] = []
        for prefix in sorted(name for name in self.files.names(self.files.root) if re.fullmatch(r"[0-9a-f]{2}", name)):
            found += [name for name in self.files.names(f"{self.files.root}/{prefix}") if _KEY.fullmatch(name)]
            if len(found) >= SAMPLE:
                break
        return found

    def inventory(self) -> Inventory:
        """List the whole store."""
        found = Inventory()
        for path, one in self.files.listing(self.files.root).items():
            parts = path.removeprefix(f"{self.files.root}/").split("/")
            match parts:
                case ["leases", _, _]:
                    found.leases[path] = one
                case ["used", key] if one.modified is not None:
                    found.used[key] = one.modified
                case [_, key, name] if name == MANIFEST and _KEY.fullmatch(key):
                    found.manifests[key] = one
                case [_, key, _, _] if _KEY.fullmatch(key):
                    found.files.setdefault(key, {})[path] = one
        return found

    def leased(self, leases: Iterable[str]) -> set[str]:
        """The keys that are being built under these leases, and the keys of the artifacts that those builds use."""
        contents = self.files.read_many(leases)
        held = {path.split("/")[-2] for path, content in contents.items() if content is not None}
        return held.union(*(inputs_in(content) for content in contents.values()))

    def pull(self, key: str, digest: str, files: Mapping[str, StoredFile], into: Path) -> None:
        """Download an artifact's files into a local directory and check their sha256.

        FileNotFoundError if one is missing, `failures.Damaged` if one is not what was uploaded.
        """
        self.files.download(files, f"{self._folder(key)}/{digest}", into)

    def note_use(self, key: str) -> None:
        """Record that an artifact was used now, so that `gc` keeps it. Does nothing where writing is refused."""
        if self._notes_use:
            try:
                self.files.write(f"{self.files.root}/used/{key}", b"")
            except ResurgenceError:
                self._notes_use = False

    def push(self, key: str, digest: str, files: Mapping[str, StoredFile], manifest: bytes, source: Path) -> None:
        """Upload an artifact: its files, then its manifest; then remove the files of the manifest that it replaced.

        Files that another build is still uploading have no manifest yet and are kept; `gc` finds them later.
        """
        self._mark_layout()
        folder = self._folder(key)
        self.files.upload(files, source, f"{folder}/{digest}")
        replaced = digest_in(self.manifest(key))
        self.push_manifest(key, manifest)
        if replaced and replaced != digest:
            self.files.remove(self.files.listing(f"{folder}/{replaced}"))

    def push_manifest(self, key: str, manifest: bytes) -> None:
        """Write only the manifest."""
        self.files.write(f"{self._folder(key)}/{MANIFEST}", manifest)
        self.packs.note(key)

    def try_writing(self) -> bool:
        """Write, read and remove a small file; whether it came back as it was."""
        self._mark_layout()
        path, content = f"{self.files.root}/leases/probe-{uuid.uuid4().hex}/1", uuid.uuid4().hex.encode()
        self.files.write(path, content)
        found = self.files.read(path)
        self.files.remove([path])
        return found == content

    def remove(self, key: str) -> None:
        """Remove an artifact, its manifest first, so that an interrupted removal leaves no finished artifact."""
        folder = self._folder(key)
        self.files.remove([f"{folder}/{MANIFEST}"])
        self.files.remove([*self.files.listing(folder), f"{self.files.root}/used/{key}"])
        self.packs.note(key)

    def _folder(self, key: str) -> str:
        return f"{self.files.root}/{key[:2]}/{key}"

    def _mark_layout(self) -> None:
        """Check the store's layout before the first write of this process, and record it in a new store."""
        if self._checked:
            return
        path = f"{self.files.root}/store.json"
        content = self.files.read(path)
        self._check_layout(content)
        if content is None:
            if not self.sample():
                self.packs.begin()
            self.files.write(path, json.dumps({"layout": LAYOUT}).encode() + b"\n")
        self._checked = True

    def _check_layout(self, content: bytes | None) -> None:
        if content is None:
            return
        layout: object = None
        with suppress(ValueError, AttributeError, RecursionError):
            layout = json.loads(content).get("layout")
        if type(layout) is not int or layout > LAYOUT:
            raise UserError(
                sentence(
                    f"The store {self.files.shown} was written by a newer version of resurgence-harness.",
                    layout=f"{shown(str(layout))}; this version reads {LAYOUT}",
                    do="Upgrade resurgence-harness on this machine, or choose another store.",
                )
            )


def digest_in(manifest: bytes | None) -> str:
    """The digest in a manifest; empty if there is none."""
    try:
        return str(json.loads(manifest or b"{}").get("digest", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""
