"""What planning reads of a large or distant store: the same as the store says, with few requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from resurgence_harness.errors import UserError
from resurgence_harness.planning import Wanted, checkpoint_key, images_key, judgments_key, plan
from resurgence_harness.specs import Probe
from resurgence_harness.storing import Artifact, Condition, Snapshot, Store, keeping, key
from resurgence_harness.storing.remote import packs
from tests.test_planning import ASKED, TUNED, UNLEARNED, Eye, put

PROBES = tuple(replace(ASKED, seeds=(first, first + 1)) for first in range(1, 21, 2))
WANTED = [Wanted(recipe, probe, Eye()) for recipe in (UNLEARNED, TUNED) for probe in PROBES]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Round trips to the store in memory: one for each call, however many files it reads."""
    calls: list[str] = []
    depth = [0]  # a call that the file system makes itself is no round trip
    for name in ("cat", "cat_file", "ls", "find"):
        original = getattr(MemoryFileSystem, name)

        def counted(self: Any, *given: Any, original: Any = original, name: str = name, **named: Any) -> Any:
            if depth[0] == 0:
                calls.append(name)
            depth[0] += 1
            try:
                return original(self, *given, **named)
            finally:
                depth[0] -= 1

        monkeypatch.setattr(MemoryFileSystem, name, counted)
    yield calls


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store in which a part of what is wanted is present, and one thing was built from other inputs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "builder"))
    store = Store(tmp_path / "store" if request.param == "local" else f"memory://snapshot-{tmp_path.name}")
    put(store, checkpoint_key(UNLEARNED), "checkpoint")
    for probe in PROBES[:6]:
        judged(store, probe)
    put(store, images_key(UNLEARNED, PROBES[2]), "images", content=b"drawn again, differently")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "planner"))
    return Store(store.name)


def judged(store: Store, probe: Probe) -> None:
    """Images and judgments of the unlearned model."""
    images = put(store, images_key(UNLEARNED, probe), "images", work={"group": "draw 64×64, 10 steps", "units": 2})
    put(store, judgments_key(UNLEARNED, probe, Eye()), "judgments", inputs={images.key: images.digest})


def planned(store: Store) -> list[tuple[str, Condition]]:
    """The plan that a snapshot gives; it is the store's own."""
    snapshot = Snapshot(store)
    actions = snapshot.settled(lambda: plan(snapshot, WANTED)).actions
    assert [one.key for one in actions] == [one.key for one in plan(Store(store.name), WANTED).actions]
    assert actions == plan(Store(store.name), WANTED).actions
    return [(one.key, one.reason) for one in actions]


def test_a_snapshot_plans_as_the_store(store: Store) -> None:
    """Present, missing and changed artifacts, with the times of earlier builds."""
    reasons = [reason for _, reason in planned(store)]
    assert {Condition.PRESENT, Condition.MISSING} <= set(reasons)
    changed = judgments_key(UNLEARNED, PROBES[2], Eye())
    assert dict(planned(store))[changed] is Condition.PRESENT  # built again by `put` only if its key is asked for


def test_a_store_without_packs_is_read_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    """As many round trips as the graph is deep, and not one for each artifact."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "builder"))
    store = Store(f"memory://unpacked-{tmp_path.name}")
    for probe in PROBES:
        judged(store, probe)
    assert store.remote is not None
    files = store.remote.files
    files.remove(files.listing(f"{files.root}/packs"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "planner"))
    reads.clear()
    snapshot = Snapshot(Store(store.name))
    actions = snapshot.settled(lambda: plan(snapshot, WANTED)).actions
    assert sum(one.reason is Condition.PRESENT for one in actions) == len(PROBES)
    assert len(reads) - reads.count("ls") <= 8
    assert actions == plan(Store(store.name), WANTED).actions


def test_a_store_with_packs_is_read_in_a_few_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    """Packs and what changed since; a removed artifact is missing again, another version's is found by gc."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "builder"))
    store = Store(f"memory://packed-{tmp_path.name}")
    for probe in PROBES[:7]:
        judged(store, probe)
    remote = store.remote
    assert remote is not None
    remote.packs.renew(None)
    assert remote.files.names(f"{remote.files.root}/changes") == []
    remote.remove(judgments_key(UNLEARNED, PROBES[0], Eye()))
    judged(store, PROBES[8])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "planner"))
    reads.clear()
    snapshot = Snapshot(Store(store.name))
    actions = snapshot.settled(lambda: plan(snapshot, WANTED)).actions
    assert len(reads) <= 6
    assert actions == plan(Store(store.name), WANTED).actions
    present = {one.key for one in actions if one.reason is Condition.PRESENT}
    expected = {judgments_key(UNLEARNED, probe, Eye()) for probe in (*PROBES[1:7], PROBES[8])}
    assert expected <= present and judgments_key(UNLEARNED, PROBES[0], Eye()) not in present
    for change in remote.files.listing(f"{remote.files.root}/changes"):
        remote.files.remove([change])  # as a version that knows no packs would leave it
    keeping.gc(Store(store.name), older_than_days=1000)
    assert set(dict(packs.Packs(remote.files).read(None)[0])) == set(remote.keys())  # type: ignore[index]


def test_packs_are_merged_and_may_be_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs become one; an unreadable one says nothing, and never that an artifact is present."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(packs, "MANY", 3)
    store = Store(f"memory://merged-{tmp_path.name}")
    assert store.remote is not None
    files, made = store.remote.files, []
    for number in range(6):
        made.append(put(store, key("thing", number), "thing"))
        store.remote.packs.renew(None)
    assert len(files.names(f"{files.root}/packs")) <= 3
    found = store.remote.packs.read(None)
    assert found is not None and set(found[0]) == {one.key for one in made} and found[1] == set()
    for path in files.listing(f"{files.root}/packs"):
        files.write(path, b"no gzip")
    assert store.remote.packs.read(None) == ({}, set())
    assert store.open(made[0].key)


# Garbage


def aged(store: Store, days: float, *parts: str) -> None:
    """Let the remote files whose paths have one of these parts be this old."""
    assert store.remote is not None
    memory = store.remote.files.filesystem.store
    for path in store.remote.files.listing(store.remote.files.root):
        if any(part in path for part in parts):
            memory[path].modified = datetime.now(UTC) - timedelta(days=days)


def test_gc_keeps_what_a_lease_or_a_fresh_artifact_is_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old it is, at any remove; so does a download by any machine. The rest goes, and dead leases with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "builder"))
    store = Store(f"memory://grace-{tmp_path.name}")
    names = [key("thing", number) for number in range(8)]
    base, middle, fresh, leased, used, old, building, dead = names

    def made(name: str, *inputs: Artifact) -> Artifact:
        return put(store, name, "thing", inputs={one.key: one.digest for one in inputs})

    made(fresh, made(middle, made(base)))
    made(leased), made(used), made(old)
    assert store.remote is not None
    files = store.remote.files
    for name, days in ((building, 0.0), (dead, 40.0)):
        lease = store.remote.leases.acquire(name, label="", inputs=[leased], instead=lambda: None)
        assert lease is not None
        aged(store, days, f"leases/{name}")
    aged(store, 40, base, middle, leased, used, old)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    Store(store.name).open(used)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    third = Store(store.name)
    dry = keeping.gc(third, older_than_days=30, dry_run=True)
    removed = keeping.gc(third, older_than_days=30)
    assert [one.place.rpartition("/")[2] for one in removed] == [old] == [one.place.rpartition("/")[2] for one in dry]
    assert set(third.keys()) == {base, middle, fresh, leased, used}
    assert files.names(f"{files.root}/leases/{dead}") == [] and files.names(f"{files.root}/leases/{building}") == ["1"]
    with pytest.raises(UserError, match="grace time"):
        keeping.gc(third, older_than_days=30, grace=timedelta(minutes=5))


@pytest.mark.parametrize("name", ["file", "local"])
def test_a_shared_directory_excludes_by_the_file_system(name: str, tmp_path: Path) -> None:
    """local:// goes through fsspec: a file is created by O_EXCL, and leases hold."""
    if name == "file":
        assert Store(f"file://{tmp_path}/shared").remote is None
        return
    store = Store(f"local://{tmp_path}/shared", mirror=tmp_path / "mirror")
    (tmp_path / "mirror").mkdir()
    assert store.remote is not None and store.remote.leases.hold
    path = f"{store.remote.files.root}/leases/x/1"
    assert store.remote.files.create(path, b"mine") and not store.remote.files.create(path, b"other")
    assert put(store, key("thing", 1), "thing") and store.remote.keys() == [key("thing", 1)]
