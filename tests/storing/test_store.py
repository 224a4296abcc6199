"""What is in the store is whole; what is half-made, broken or outdated is never served."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import BuildError, Corrupt, ResurgenceError, StoreError, Unwritable, UserError
from resurgence_harness.storing import Artifact, Condition, Store, StoreWarning, default_root, keeping, key

KEY = key("thing", "one")
OTHER = key("thing", "two")


class Building:
    """A build that writes what it is told and counts how often it was asked."""

    def __init__(self, **files: bytes) -> None:
        """Name the files and their contents."""
        self.files = files or {"a": b"some bytes", "b": b"more"}
        self.times = 0

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        """Write them."""
        self.times += 1
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return {"loss": 0.1, "time": self.times}


def make(store: Store, build: Callable[[Path], Mapping[str, Any]], *, key: str = KEY, **inputs: str) -> Artifact:
    """Ask for a thing."""
    return store.make(key, kind="thing", label="a thing", inputs=inputs, build=build)


def test_who_is_making_something_is_seen(tmp_path: Path) -> None:
    """While a build runs its key is busy, for others too; before and afterwards it is not."""
    store, other = Store(tmp_path / "store"), Store(tmp_path / "store")
    seen: list[bool] = []

    def build(folder: Path) -> dict[str, Any]:
        (folder / "a").write_bytes(b"some bytes")
        code = "import sys; from resurgence_harness.storing import Store; print(Store(sys.argv[1]).busy(sys.argv[2]))"
        told = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "store"), KEY], check=True, capture_output=True, text=True
        )
        seen.append(told.stdout.strip() == "True")
        return {}

    assert not other.busy(KEY)
    make(store, build)
    assert seen == [True] and not other.busy(KEY)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on the disk, and one behind an fsspec URL."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "local":
        return Store(tmp_path / "store")
    return Store(f"memory://store-{tmp_path.name}-{request.node.name}")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A store on the disk."""
    return Store(tmp_path / "store")


def test_what_is_made_is_found_and_opened(store: Store) -> None:
    """An artifact has its files, its facts, its size and its words."""
    build = Building()
    made = make(store, build, **{OTHER: "d"})
    opened = store.open(KEY)
    assert (opened.path / "a").read_bytes() == b"some bytes"
    assert opened.facts == {"loss": 0.1, "time": 1}
    assert (opened.size, opened.kind, opened.label, opened.inputs) == (14, "thing", "a thing", {OTHER: "d"})
    assert opened.digest == made.digest
    assert store.find(KEY) is not None


def test_what_is_there_is_not_made_again(store: Store) -> None:
    """The second asking reads."""
    build = Building()
    first, second = make(store, build), make(store, build)
    assert build.times == 1
    assert (first.digest, first.facts) == (second.digest, second.facts)


def test_equal_bytes_have_equal_digests(local: Store) -> None:
    """The digest is over file names and contents alone."""
    same = make(local, Building(a=b"x")).digest, make(local, Building(a=b"x"), key=OTHER).digest
    different = make(local, Building(b=b"x"), key=key("thing", 3)).digest
    assert same[0] == same[1] != different


def test_what_was_never_made_is_missing(store: Store) -> None:
    """Missing is None when looked for, an error when opened, and its own condition."""
    assert store.find(KEY) is None
    assert store.current(KEY) is None
    assert store.condition(KEY) is Condition.MISSING
    with pytest.raises(StoreError, match="does not have"):
        store.open(KEY)


def test_other_inputs_make_it_again(store: Store) -> None:
    """What was made from something that has come out differently since is outdated."""
    build = Building()
    make(store, build, **{OTHER: "old"})
    make(store, build, **{OTHER: "new"})
    assert build.times == 2
    assert store.open(KEY).inputs == {OTHER: "new"}


def test_a_remade_input_is_seen_without_making_anything(local: Store) -> None:
    """The condition compares recorded inputs with what the store holds, and forgives what was cleared away."""
    parent = make(local, Building(a=b"first"), key=OTHER)
    make(local, Building(), **{OTHER: parent.digest})
    assert local.condition(KEY) is Condition.PRESENT
    make(local, Building(a=b"second"), key=OTHER, changed="yes")
    assert local.condition(KEY) is Condition.CHANGED
    assert local.current(KEY) is None
    keeping.gc(local, older_than_days=-1, keep_kinds=[])
    make(local, Building(), **{OTHER: parent.digest})
    assert local.condition(KEY) is Condition.PRESENT


# Damage


def damage_bits(artifact: Artifact) -> None:
    """Change one byte, keeping the size."""
    path = artifact.path / "a"
    path.write_bytes(b"S" + path.read_bytes()[1:])


def damage_length(artifact: Artifact) -> None:
    """Cut a file short."""
    os.truncate(artifact.path / "a", 3)


def damage_missing(artifact: Artifact) -> None:
    """Lose a file."""
    (artifact.path / "b").unlink()


def damage_facts(artifact: Artifact) -> None:
    """Make a recorded loss look better than it was."""
    path = artifact.path / "manifest.json"
    path.write_text(path.read_text().replace("0.1", "0.01"))


def damage_manifest(artifact: Artifact) -> None:
    """Cut the manifest short."""
    os.truncate(artifact.path / "manifest.json", 40)


def damage_emptied(artifact: Artifact) -> None:
    """What a power cut can leave of a file."""
    os.truncate(artifact.path / "manifest.json", 0)


DAMAGES = [damage_bits, damage_length, damage_missing, damage_facts, damage_manifest, damage_emptied]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_never_served(local: Store, damage: Callable[[Artifact], None]) -> None:
    """Reading what is not what was written is an error that names the file or the key."""
    damage(make(local, Building()))
    with pytest.raises(Corrupt, match=f"(a|b) of thing {KEY[:12]}|manifest of {KEY[:12]}"):
        local.open(KEY)
    assert local.current(KEY) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_warned_about_and_made_again(local: Store, damage: Callable[[Artifact], None]) -> None:
    """The next build says what was wrong and puts it right."""
    build = Building()
    first = make(local, build)
    damage(first)
    with pytest.warns(StoreWarning, match="is not the"):
        second = make(local, build)
    assert build.times == 2
    assert second.digest == first.digest
    assert local.open(KEY).facts["time"] == 2


@pytest.mark.parametrize("damage", [damage_length, damage_missing, damage_facts, damage_manifest, damage_emptied])
def test_a_plan_sees_most_damage_without_reading_it_through(local: Store, damage: Callable[[Artifact], None]) -> None:
    """Sizes and manifests are checked when planning; changed bits are left to the read."""
    damage(make(local, Building()))
    assert local.condition(KEY) is Condition.CORRUPT


def test_an_artifact_under_a_wrong_key_is_not_believed(local: Store) -> None:
    """Copying a folder under another key does not make it the answer to another question."""
    made = make(local, Building())
    target = local.root / OTHER[:2] / OTHER
    target.parent.mkdir(exist_ok=True)
    made.path.rename(target)
    with pytest.raises(Corrupt, match=f"manifest of {OTHER[:12]}"):
        local.open(OTHER)


def test_a_manifest_of_another_format_is_not_guessed_at(local: Store) -> None:
    """What a later version wrote is not read as if it were ours."""
    path = make(local, Building()).path / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(Corrupt, match="not the one"):
        local.open(KEY)


def test_damage_in_a_mirror_of_a_remote_store_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The far copy does not excuse the near one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(f"memory://damaged-{tmp_path.name}")
    build = Building()
    damage_bits(make(store, build))
    with pytest.raises(Corrupt):
        store.open(KEY)
    with pytest.warns(StoreWarning):
        make(store, build)
    assert store.open(KEY).facts["time"] == 2


def test_another_machine_reads_a_remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one machine made comes down to another's mirror, whole, without being made again."""
    url = f"memory://shared-{tmp_path.name}"
    build = Building()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    make(Store(url), build)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    there = Store(url)
    assert there.condition(KEY) is Condition.PRESENT
    assert not (tmp_path / "there").exists()
    assert (make(there, build).path / "a").read_bytes() == b"some bytes"
    assert build.times == 1
    assert [artifact.key for artifact in there.ls()] == [KEY]


def test_an_address_nobody_serves_is_a_users_mistake() -> None:
    """An unknown protocol is told in a sentence."""
    with pytest.raises(UserError, match="nosuch://place cannot be reached"):
        Store("nosuch://place")


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    """file:// needs no mirror."""
    store = Store(f"file://{tmp_path}/store")
    assert store.remote is None
    assert store.root == tmp_path / "store"


# Builds that go wrong


def test_a_failed_build_leaves_nothing(store: Store) -> None:
    """An exception in a build passes through, and nothing of the build remains."""

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "a").write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(store, build)
    assert store.find(KEY) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_an_error_about_a_file_outside_the_store_is_not_blamed_on_it(local: Store, tmp_path: Path) -> None:
    """A missing weight file is not a vanished store."""

    def build(folder: Path) -> Mapping[str, Any]:
        return {"weights": (tmp_path / "base.safetensors").read_text()}

    with pytest.raises(FileNotFoundError):
        make(local, build)


def test_our_own_errors_pass_through_a_build(local: Store) -> None:
    """A sentence about a base is not rewritten as one about the store, whatever caused it."""

    def build(folder: Path) -> Mapping[str, Any]:
        try:
            (folder / "absent").read_text()
        except OSError as error:
            raise UserError("the base is gone") from error
        return {}

    with pytest.raises(UserError, match="the base is gone"):
        make(local, build)


@pytest.mark.parametrize("facts", [{"loss": float("nan")}, {"what": object()}], ids=["nan", "object"])
def test_facts_that_are_not_json_are_refused(local: Store, facts: dict[str, Any]) -> None:
    """A NaN loss never becomes a fact in the store."""

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "a").write_bytes(b"x")
        return facts

    with pytest.raises(BuildError, match="cannot be written as JSON"):
        make(local, build)
    assert local.find(KEY) is None


def test_a_build_without_files_is_refused(local: Store) -> None:
    """Nothing is not something."""
    with pytest.raises(BuildError, match="wrote no file"):
        make(local, lambda folder: {})


def test_a_build_may_not_write_the_manifest(local: Store) -> None:
    """Only the store says that something is finished."""
    with pytest.raises(BuildError, match=r"manifest\.json"):
        make(local, Building(**{"manifest.json": b"{}"}))


def test_builds_may_ask_for_other_things(local: Store) -> None:
    """A build that needs another artifact makes it on the way."""
    inner = Building()

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "a").write_bytes((make(local, inner, key=OTHER).path / "a").read_bytes())
        return {}

    make(local, build)
    assert {artifact.key for artifact in local.ls()} == {KEY, OTHER}


def test_a_store_opened_for_reading_makes_nothing(local: Store) -> None:
    """It serves what is there, leaves every byte and date as it was, and refuses to build."""
    make(local, Building())
    before = {path: path.stat().st_mtime_ns for path in local.root.rglob("*")}
    time.sleep(0.02)
    reader = Store(local.root, read_only=True)
    assert make(reader, Building()).facts["time"] == 1
    with pytest.raises(Unwritable, match="reading only"):
        make(reader, Building(), key=OTHER)
    assert {path: path.stat().st_mtime_ns for path in local.root.rglob("*")} == before


# Keeping


def test_ls_tells_what_is_finished(store: Store) -> None:
    """Everything finished is listed, and nothing else."""
    make(store, Building())
    make(store, Building(a=b"x"), key=OTHER)
    assert {artifact.key for artifact in store.ls()} == {KEY, OTHER}


def test_ls_of_no_store_is_empty_and_makes_none(local: Store) -> None:
    """Looking does not create."""
    assert local.ls() == []
    assert list(keeping.verify(local)) == []
    assert keeping.gc(local, older_than_days=0) == []
    assert not local.root.exists()


def test_verify_names_what_is_broken(local: Store) -> None:
    """Every artifact is read through; the whole and the broken are told apart."""
    make(local, Building())
    damage_bits(make(local, Building(), key=OTHER))
    damage_manifest(make(local, Building(), key=key("thing", 3)))
    checked = {one.key: one.problem for one in keeping.verify(local)}
    assert checked[KEY] == ""
    assert "a of thing" in checked[OTHER]
    assert "manifest" in checked[key("thing", 3)]


def age(artifact: Artifact, days: float) -> None:
    """Pretend that it was last used so long ago."""
    then = time.time() - days * 86400
    os.utime(artifact.path / "manifest.json", (then, then))


def test_gc_takes_what_was_not_used_for_long(local: Store) -> None:
    """Age counts from the last reading, kinds can be kept, and a dry run only tells."""
    old, new = make(local, Building()), make(local, Building(), key=OTHER)
    age(old, 40)
    age(new, 40)
    local.open(OTHER)
    assert keeping.gc(local, older_than_days=30, keep_kinds=["thing"]) == []
    told = keeping.gc(local, older_than_days=30, dry_run=True)
    assert [(one.place, one.label, one.reason) for one in told] == [
        (str(old.path), "thing: a thing", "last used 40 days ago")
    ]
    assert told[0].size > old.size
    assert local.find(KEY) is not None
    assert len(keeping.gc(local, older_than_days=30)) == 1
    assert [artifact.key for artifact in local.ls()] == [OTHER]


def test_gc_clears_what_was_never_finished(local: Store) -> None:
    """Temporary folders and folders without manifest go, whatever their age; finished things stay."""
    make(local, Building())
    leftover = local.root / "tmp" / f"{OTHER}.abc"
    leftover.mkdir()
    (leftover / "a").write_bytes(b"half")
    unfinished = local.root / OTHER[:2] / OTHER
    unfinished.mkdir(parents=True)
    reasons = {one.reason for one in keeping.gc(local, older_than_days=1000)}
    assert reasons == {"left by a build that was stopped", "never finished"}
    assert not leftover.exists() and not unfinished.exists()
    assert local.open(KEY)


def test_gc_reaches_a_remote_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cleared away is cleared there too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store(f"memory://gc-{tmp_path.name}")
    make(store, Building())
    later = datetime.now(UTC) + timedelta(days=2)
    assert len(keeping.gc(store, older_than_days=1, now=later)) == 2  # the mirror's, and the remote one
    assert store.find(KEY) is None
    assert store.keys() == []


def test_a_key_must_be_a_key(local: Store) -> None:
    """A path or a short prefix is refused before it can reach the disk."""
    for wrong in ("../x", "abc", KEY.upper()):
        with pytest.raises(ResurgenceError, match="is not a key"):
            local.find(wrong)


def test_the_default_root_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """RESURGENCE_STORE wins, then the cache directory, then ~/.cache."""
    monkeypatch.delenv("RESURGENCE_STORE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == str(tmp_path / ".cache" / "resurgence")
    monkeypatch.setenv("RESURGENCE_STORE", "/elsewhere")
    assert default_root() == "/elsewhere"


def test_an_artifact_of_a_newer_version_is_refused_and_not_replaced(store: Store) -> None:
    """Called corrupt, it would be built again by each version in turn; its checksum shows that it is whole."""
    build = Building()
    made = make(store, build)
    content = json.loads((made.path / "manifest.json").read_bytes())
    del content["seal"]
    content |= {"format": 2, "new": True}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    manifest = json.dumps({**content, "seal": seal}).encode()
    (made.path / "manifest.json").write_bytes(manifest)
    for use in (store.find, store.open, store.condition, lambda key: make(store, build, key=key)):
        with pytest.raises(UserError, match="newer version of resurgence-harness wrote"):
            use(KEY)
    assert build.times == 1 and (made.path / "manifest.json").read_bytes() == manifest
