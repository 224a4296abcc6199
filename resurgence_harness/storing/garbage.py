"""Removing what a remote store no longer needs, while other machines use it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.storing.remote import MANIFEST, Inventory, Remote

if TYPE_CHECKING:
    from resurgence_harness.storing.store import Store

GRACE = timedelta(days=1)
"""Default minimum age of whatever is removed from a remote store: a build may still be uploading or using it."""
SHORTEST = timedelta(hours=1)
"""Shortest grace time: clocks may differ (S3 accepts 15 minutes), and a large file takes long to upload."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """One artifact or file that `gc` removed (or would remove)."""

    place: str
    label: str
    size: int
    reason: str


def remote_garbage(
    store: Store,
    remote: Remote,
    *,
    age: timedelta,
    keep_kinds: Collection[str],
    dry_run: bool,
    grace: timedelta,
    now: datetime,
) -> Iterator[Removed]:
    """Remove remote artifacts last used before `now - age`, and files that no manifest names.

    Kept is whatever was written or used within `grace`, has a lease that was renewed within it, or is an input, at any
    remove, of such an artifact or build; and everything without a known time. UserError for a grace time under an hour.
    """
    if grace < SHORTEST:
        raise UserError(
            sentence(
                "The grace time of a remote store is too short.",
                grace=f"{grace.total_seconds() / 3600:g} hours; at least 1 is needed",
                do="Give --grace HOURS, longer than the longest upload.",
            )
        )
    found, fresh = remote.inventory(), now - grace
    live = [path for path, lease in found.leases.items() if lease.modified is None or lease.modified > fresh]
    leased = remote.leased(live)
    recent = {key for key in found.manifests if (used := found.last_used(key)) is None or used > fresh}
    kept = _with_inputs(store, leased | recent)
    old = [key for key in sorted(found.manifests) if key not in kept and _before(found, key, now - age)]
    yield from _artifacts(store, remote, found, old, keep_kinds=keep_kinds, dry_run=dry_run, now=now)
    yield from _files(remote, found, leased=leased, removed=set(old), before=fresh, dry_run=dry_run)
    if not dry_run:
        remote.files.remove(path for path in found.leases if path not in live)
        remote.files.clear_unfinished(before=fresh)
        remote.packs.renew(store.packs, manifests=remote.inventory().manifests)


def _before(found: Inventory, key: str, moment: datetime) -> bool:
    used = found.last_used(key)
    return used is not None and used <= moment


def _with_inputs(store: Store, keys: set[str]) -> set[str]:
    """The keys and, at any remove, the keys of the artifacts that they were built from."""
    kept: set[str] = set()
    new = keys
    while new:
        kept |= new
        store.read_ahead(new)
        artifacts = [artifact for key in new if (artifact := store.entry(key)) is not None]
        new = {source for artifact in artifacts for source in artifact.inputs} - kept
    return kept


def _artifacts(
    store: Store,
    remote: Remote,
    found: Inventory,
    old: list[str],
    *,
    keep_kinds: Collection[str],
    dry_run: bool,
    now: datetime,
) -> Iterator[Removed]:
    store.read_ahead(old)
    for key in old:
        artifact = store.entry(key)
        kind = artifact.kind if artifact is not None else ""
        if kind in keep_kinds:
            continue
        used = found.last_used(key)
        days = (now - used).total_seconds() / 86400 if used is not None else 0.0
        files = found.files.get(key, {})
        if not dry_run:
            remote.remove(key)
        yield Removed(
            place=f"{remote.files.root}/{key[:2]}/{key}",
            label=f"{kind}: {artifact.label}" if artifact is not None else "unreadable",
            size=sum(file.size for file in files.values()) + found.manifests[key].size,
            reason=f"last used {max(days, 0):.0f} days ago",
        )


def _files(
    remote: Remote, found: Inventory, *, leased: Iterable[str], removed: set[str], before: datetime, dry_run: bool
) -> Iterator[Removed]:
    """Files that no manifest names: from concurrent builds, or builds killed during the upload."""
    digests = remote.digests(key for key in found.files if key in found.manifests)
    for key, files in sorted(found.files.items()):
        if key in leased or key in removed:
            continue
        for path, file in sorted(files.items()):
            named = path.split("/")[-2] == digests.get(key, "")
            if named or file.modified is None or file.modified >= before or path.endswith(f"/{MANIFEST}"):
                continue
            if not dry_run:
                remote.files.remove([path])
            yield Removed(place=path, label="unfinished", size=file.size, reason="no manifest names it")
