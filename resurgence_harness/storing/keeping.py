"""Maintenance of a store: verifying, sealing and removing artifacts."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.errors import StoreError, Unreachable, Unwritable, UserError, sentence
from resurgence_harness.storing.artifacts import Seal
from resurgence_harness.storing.disk import bytes_in
from resurgence_harness.storing.garbage import GRACE, Removed, remote_garbage
from resurgence_harness.storing.manifests import sealed_again
from resurgence_harness.storing.remote import MANIFEST
from resurgence_harness.storing.sealing import VARIABLE, store_key

if TYPE_CHECKING:
    from resurgence_harness.storing.store import Store


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of `verify` for one artifact."""

    key: str
    label: str
    size: int
    seal: Seal | None
    """The state of its seal; None if its manifest cannot be read."""
    problem: str = ""
    """Empty if every file is intact."""


def verify(store: Store) -> Iterator[Checked]:
    """Read every byte of every artifact; yields whether each is intact, and the state of its seal."""
    every = store.keys()
    for key in every:
        artifact = store.entry(key)
        label, size, seal = (artifact.label, artifact.size, artifact.seal) if artifact is not None else ("", 0, None)
        problem = ""
        try:
            if artifact is not None:
                store.verified(artifact)
            else:
                store.open(key)  # raises the error with the reason
        except (Unreachable, Unwritable):
            raise
        except StoreError as error:
            problem = str(error).splitlines()[0]
        yield Checked(key=key, label=label, size=size, seal=seal, problem=problem)


def seal(store: Store) -> Iterator[Checked]:
    """Seal the entries without a keyed seal, after verifying every byte; yields every entry's state afterwards.

    Earlier changes by anybody with write access are sealed as well. Entries sealed with another key stay as they are.
    UserError if no key is set.
    """
    if store_key() is None:
        raise UserError(
            sentence(
                "There is no key to seal the store with.",
                do=f"Set {VARIABLE} to the store's key; `openssl rand -hex 32` makes one.",
            )
        )
    for checked in verify(store):
        artifact = store.entry(checked.key)
        if artifact is not None and artifact.seal is Seal.UNSEALED and not checked.problem:
            store.replace_manifest(artifact, sealed_again)
            artifact = store.entry(checked.key)
        yield replace(checked, seal=artifact.seal if artifact is not None else None)


def gc(
    store: Store,
    *,
    older_than_days: float,
    keep_kinds: Collection[str] = (),
    dry_run: bool = False,
    grace: timedelta = GRACE,
    now: datetime | None = None,
) -> list[Removed]:
    """Remove artifacts last used at least `older_than_days` ago, and the leftovers of killed builds.

    Everything removed can be built again. Artifacts that are being built are kept. In a remote store, the last use is
    the upload or the last download by any machine, and nothing is removed that was written or used within `grace`, or
    that such an artifact or a build under a lease is built from. `now` is for tests.
    """
    removed: list[Removed] = []
    now = now or datetime.now(UTC)
    with store.here.writing():
        for leftover, reason in _leftovers(store):
            removed += _remove(store, leftover, key=leftover.name.split(".")[0], reason=reason, dry_run=dry_run)
        for artifact in store.local_entries():
            days = max((now - artifact.used).total_seconds(), 0) / 86400  # a file's time may lie in the future
            if artifact.kind not in keep_kinds and days >= older_than_days:
                removed += _remove(
                    store,
                    artifact.path,
                    key=artifact.key,
                    label=f"{artifact.kind}: {artifact.label}",
                    reason=_last_used(days),
                    dry_run=dry_run,
                )
    if store.remote is not None:
        age = timedelta(days=older_than_days)
        with store.reading_ahead():
            removed += remote_garbage(
                store, store.remote, age=age, keep_kinds=keep_kinds, dry_run=dry_run, grace=grace, now=now
            )
    return removed


def _last_used(days: float) -> str:
    return f"last used {days:.0f} days ago"


def _leftovers(store: Store) -> Iterator[tuple[Path, str]]:
    for path in sorted((store.root / "tmp").glob("*")):
        yield path, "left by a build that was stopped"
    for path in sorted(store.root.glob("[0-9a-f][0-9a-f]/*")):
        if not (path / MANIFEST).is_file():
            yield path, "never finished"


def _remove(
    store: Store, path: Path, *, key: str, reason: str, dry_run: bool, label: str = "unfinished"
) -> list[Removed]:
    from filelock import Timeout

    try:
        with nullcontext() if dry_run else store.here.locked(key, wait=False):
            if label == "unfinished" and (path / MANIFEST).is_file():
                return []  # finished in the meantime
            removed = Removed(place=str(path), label=label, size=bytes_in(path), reason=reason)
            if not dry_run:
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
            return [removed]
    except Timeout:
        return []
