"""Looking after a store: is every byte the one that was written, and what may go."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.errors import StoreError
from resurgence_harness.storing.disk import bytes_in
from resurgence_harness.storing.remote import MANIFEST

if TYPE_CHECKING:
    from resurgence_harness.storing.store import Store


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


def verify(store: Store) -> Iterator[Checked]:
    """Read every byte of every artifact and tell which are whole."""
    every = store.keys()
    for key in every:
        artifact = store.find(key)
        words, size = (artifact.words, artifact.size) if artifact is not None else ("", 0)
        try:
            store.open(key)
        except StoreError as error:
            yield Checked(key=key, words=words, size=size, problem=str(error).splitlines()[0])
        else:
            yield Checked(key=key, words=words, size=size)


def gc(
    store: Store, *, older_than_days: float, keep_kinds: Collection[str] = (), dry_run: bool = False
) -> list[Removed]:
    """Take away what was last used more than `older_than_days` ago, and what killed builders left behind.

    Anything removed can be made again. Artifacts that are being made now are left alone.
    """
    removed: list[Removed] = []
    with store.here.writing():
        for leftover, reason in _leftovers(store):
            removed += _remove(store, leftover, key=leftover.name.split(".")[0], reason=reason, dry_run=dry_run)
        now = datetime.now(UTC)
        for artifact in store.ls():
            days = (now - artifact.used).total_seconds() / 86400
            if artifact.kind not in keep_kinds and days >= older_than_days:
                removed += _remove(
                    store,
                    artifact.path,
                    key=artifact.key,
                    words=f"{artifact.kind}: {artifact.words}",
                    reason=f"last used {days:.0f} days ago",
                    dry_run=dry_run,
                )
    return removed


def _leftovers(store: Store) -> Iterator[tuple[Path, str]]:
    for path in sorted((store.root / "tmp").glob("*")):
        yield path, "left by a builder that was stopped"
    for path in sorted(store.root.glob("[0-9a-f][0-9a-f]/*")):
        if not (path / MANIFEST).is_file():
            yield path, "never finished"


def _remove(
    store: Store, path: Path, *, key: str, reason: str, dry_run: bool, words: str = "unfinished"
) -> list[Removed]:
    from filelock import Timeout

    try:
        with nullcontext() if dry_run else store.here.locked(key, wait=False):
            if words == "unfinished" and (path / MANIFEST).is_file():
                return []  # finished while we looked
            removed = Removed(place=str(path), words=words, size=bytes_in(path), reason=reason)
            if not dry_run:
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)
                if store.remote is not None and words != "unfinished":
                    store.remote.remove(key)
            return [removed]
    except Timeout:
        return []
