"""Copying artifacts between a local and a remote store, and verifying a remote store's bytes. All can be interrupted.

What is complete at the destination is not copied again, so an interrupted copy goes on where it stopped. A destination
that has another build of the same artifact keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

from resurgence_harness.errors import Corrupt, UserError, sentence, shown
from resurgence_harness.storing.artifacts import Artifact
from resurgence_harness.storing.keeping import Checked
from resurgence_harness.storing.remote import MANIFEST, Damaged, Remote
from resurgence_harness.storing.remote.packs import ENOUGH
from resurgence_harness.storing.store import Store

BATCH = 256
"""Manifests read at once."""
CONTINUED = timedelta(days=7)
"""A verification that was interrupted longer ago starts again."""

Progress = Callable[[str, int, int], None]
"""progress(label, artifacts done, artifacts in all)"""


class Outcome(Enum):
    """What happened to one artifact; the values are printed."""

    COPIED = "copied"
    THERE = "there already"
    OTHER = "left, since the destination has another build of it"
    DAMAGED = "damaged"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """One artifact of a copy."""

    key: str
    label: str
    size: int
    outcome: Outcome
    problem: str = ""
    """Why it is damaged at its source; empty otherwise."""


def remote_of(url: str) -> str:
    """The address, if it is one of a remote store; UserError for a directory."""
    if "://" not in url or url.startswith("file://"):
        raise UserError(
            sentence(
                f"{shown(url)} is not the address of a remote store.",
                do="Give an address with --remote, such as s3://bucket/prefix, and a directory with --store.",
            )
        )
    return url


def push(local: Store, url: str, *, kinds: Collection[str] = (), progress: Progress) -> Iterator[Copied]:
    """Upload the usable artifacts of a local store, inputs first; each is verified before it is sent."""
    there = Store(remote_of(url))
    remote = _remote(there)
    artifacts = [artifact for artifact in local.ls() if not kinds or artifact.kind in kinds]
    for first in range(0, len(artifacts), BATCH):
        batch = artifacts[first : first + BATCH]
        manifests = remote.manifests(artifact.key for artifact in batch)
        for place, artifact in enumerate(batch, first):
            progress(f"sending {artifact.kind}: {artifact.label}", place, len(artifacts))
            yield _pushed(local, there, artifact, manifests.get(artifact.key))
    if len(artifacts) > ENOUGH:
        remote.packs.renew(there.packs)


def _pushed(local: Store, there: Store, artifact: Artifact, manifest: bytes | None) -> Copied:
    outcome, problem = Outcome.COPIED, ""
    present = there.parsed_or_none(manifest, artifact.key)
    if present is not None:
        outcome = Outcome.THERE if present.digest == artifact.digest else Outcome.OTHER
    else:
        try:
            local.verified(artifact)
            written = (artifact.path / MANIFEST).read_bytes()
            _remote(there).push(artifact.key, artifact.digest, artifact.files, written, artifact.path)
        except Corrupt as error:
            outcome, problem = Outcome.DAMAGED, str(error).splitlines()[0]
    return Copied(
        key=artifact.key,
        label=f"{artifact.kind}: {artifact.label}",
        size=artifact.size,
        outcome=outcome,
        problem=problem,
    )


def pull(local: Store, url: str, *, kinds: Collection[str] = (), progress: Progress) -> Iterator[Copied]:
    """Download all artifacts of a remote store into a local one, checking the sha256 of every file."""
    local.here.make()
    there = Store(remote_of(url), mirror=local.root)
    remote = _remote(there)
    keys = remote.keys()
    for first in range(0, len(keys), BATCH):
        batch = keys[first : first + BATCH]
        manifests = remote.manifests(batch)
        for place, key in enumerate(batch, first):
            progress("bringing artifacts", place, len(keys))
            copied = _pulled(local, there, key, manifests.get(key), kinds)
            if copied is not None:
                yield copied


def _pulled(local: Store, there: Store, key: str, manifest: bytes | None, kinds: Collection[str]) -> Copied | None:
    """None for an artifact of another kind, and one that was removed since it was listed."""
    if manifest is None:
        return None
    artifact = there.parsed_or_none(manifest, key)
    if artifact is None:
        return Copied(key=key, label="", size=0, outcome=Outcome.DAMAGED, problem="its manifest cannot be read")
    if kinds and artifact.kind not in kinds:
        return None
    label = f"{artifact.kind}: {artifact.label}"
    outcome, problem, present = Outcome.COPIED, "", local.entry(key)
    if present is not None:
        outcome = Outcome.THERE if present.digest == artifact.digest else Outcome.OTHER
    else:
        try:
            there.verified(artifact)
        except Corrupt as error:
            outcome, problem = Outcome.DAMAGED, str(error).splitlines()[0]
    return Copied(key=key, label=label, size=artifact.size, outcome=outcome, problem=problem)


def verify_remote(url: str, *, progress: Progress) -> Iterator[Checked]:
    """Download every byte of a remote store and compare it with the manifests; keeps nothing.

    The artifacts found intact are noted in the store's local mirror, and are left out if the verification was
    interrupted and begins again within `CONTINUED`.
    """
    there = Store(remote_of(url))
    remote, note = _remote(there), _Note(there)
    keys = remote.keys()
    done = note.read()
    for first in range(0, len(keys), BATCH):
        batch = keys[first : first + BATCH]
        manifests = remote.manifests(batch)
        for place, key in enumerate(batch, first):
            if (manifest := manifests.get(key)) is None:
                continue  # removed since it was listed
            artifact = there.parsed_or_none(manifest, key)
            if artifact is None:
                yield Checked(key=key, label="", size=0, seal=None, problem="its manifest cannot be read")
                continue
            problem = ""
            if f"{key} {artifact.digest}" not in done:
                progress(f"verifying {artifact.kind}: {artifact.label}", place, len(keys))
                problem = _problem(remote, artifact)
                if not problem:
                    note.add(f"{key} {artifact.digest}")
            yield Checked(key=key, label=artifact.label, size=artifact.size, seal=artifact.seal, problem=problem)
    note.remove()


def _problem(remote: Remote, artifact: Artifact) -> str:
    with TemporaryDirectory(prefix="resurgence-verify") as folder:
        try:
            remote.pull(artifact.key, artifact.digest, artifact.files, Path(folder))
        except FileNotFoundError:
            return f"a file of {artifact.kind} {artifact.key[:12]} ({artifact.label}) is missing"
        except Damaged as error:
            return f"{artifact.kind} {artifact.key[:12]} ({artifact.label}) is not what was written: {error}"
    return ""


class _Note:
    """The artifacts that an unfinished verification found intact, one a line."""

    def __init__(self, store: Store) -> None:
        self._store, self._path = store, store.root / "verified"

    def read(self) -> set[str]:
        """The lines; none if the note is too old."""
        try:
            made = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
            if datetime.now(UTC) - made < CONTINUED:
                return set(self._path.read_text().splitlines())
        except OSError:
            return set()
        self.remove()
        return set()

    def add(self, line: str) -> None:
        with self._store.here.writing():
            self._store.here.make()
            with self._path.open("a") as stream:
                stream.write(f"{line}\n")

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _remote(store: Store) -> Remote:
    assert store.remote is not None
    return store.remote
