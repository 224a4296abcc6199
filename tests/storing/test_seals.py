"""With RESURGENCE_STORE_KEY only what that key sealed is used; what was changed on purpose is not there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness import cli
from resurgence_harness.errors import Corrupt, UserError
from resurgence_harness.storing import Artifact, Condition, Seal, Store, content_of, describe_ignored, keeping, key

KEY, OTHER = key("thing", "one"), key("thing", "two")
MINE, THEIRS = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test sets the key itself."""
    monkeypatch.delenv("RESURGENCE_STORE_KEY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def use_key(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the variable."""
    return lambda value: monkeypatch.setenv("RESURGENCE_STORE_KEY", value)


@pytest.fixture(params=["local", "far"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A directory, and an address."""
    return str(tmp_path / "store") if request.param == "local" else f"memory://seals-{tmp_path.name}"


def make(store: Store, content: bytes = b"hit", *, name: str = KEY, **inputs: str) -> Artifact:
    """Have a thing with this content, unless one is there."""

    def build(folder: Path) -> Mapping[str, Any]:
        (folder / "judgments.json").write_bytes(content)
        return {"loss": 0.1}

    return store.make(name, kind="judgments", label="a thing", inputs=inputs, build=build)


def rewritten(manifest: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A manifest changed by somebody who knows the format: digest and checksum are computed anew."""
    content = json.loads(manifest)
    del content["seal"]
    change(content)
    listing = [[name, content["files"][name]["sha256"]] for name in sorted(content["files"])]
    content["digest"] = hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "seal": checksum}).encode()


def tamper(artifact: Artifact, content: bytes = b"clear") -> None:
    """Put another content in its place, consistently."""
    (artifact.path / "judgments.json").write_bytes(content)
    file = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    path = artifact.path / "manifest.json"
    path.write_bytes(rewritten(path.read_bytes(), lambda told: told["files"].update({"judgments.json": file})))


def content(artifact: Artifact) -> bytes:
    """What is served."""
    return (artifact.path / "judgments.json").read_bytes()


def test_a_checksum_alone_does_not_find_a_consistent_change(tmp_path: Path) -> None:
    """Without a key this is served, as docs/what-it-proves.md says."""
    store = Store(tmp_path / "store")
    tamper(make(store))
    assert content(make(store)) == b"clear"


def test_with_the_key_a_consistent_change_is_not_there(tmp_path: Path, use_key: Callable[[str], None]) -> None:
    """It is made again, counted and named; the store is right afterwards."""
    use_key(MINE)
    tamper(make(Store(tmp_path / "store")))
    store = Store(tmp_path / "store")
    assert store.condition(KEY) is Condition.MISSING
    assert store.find(KEY) is None and store.current(KEY) is None and store.ls() == []
    assert content(make(store)) == b"hit"
    assert store.ignored == {KEY: Seal.WRONG}
    assert "1 in the store counted as absent" in describe_ignored(store.ignored)
    again = Store(tmp_path / "store")
    assert content(make(again, b"not asked for")) == b"hit"
    assert again.ignored == {} and describe_ignored({}) == ""


def test_a_seal_is_known_by_its_key_alone(place: str, use_key: Callable[[str], None]) -> None:
    """Sealed with mine: there for me, absent for another key, and there for who has none and cannot check."""
    use_key(MINE)
    assert make(Store(place)).seal is Seal.SEALED
    use_key(f" {MINE}\n")
    assert Store(place).open(KEY).seal is Seal.SEALED
    use_key(THEIRS)
    store = Store(place)
    assert store.find(KEY) is None and store.ignored == {KEY: Seal.WRONG}


def test_without_the_key_a_seal_is_not_checked(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has no key still reads."""
    monkeypatch.setenv("RESURGENCE_STORE_KEY", MINE)
    made = make(Store(place))
    monkeypatch.delenv("RESURGENCE_STORE_KEY")
    assert Store(place).open(KEY).digest == made.digest
    assert Store(place).open(KEY).seal is Seal.UNCHECKED


def test_what_carries_no_seal_is_absent_where_there_is_a_key(place: str, use_key: Callable[[str], None]) -> None:
    """Removing the seal is no way around it, and an entry of before the key is made again."""
    make(Store(place), b"old")
    use_key(MINE)
    store = Store(place)
    assert content(make(store, b"new")) == b"new"
    assert store.ignored == {KEY: Seal.UNSEALED}
    assert content(make(Store(place), b"newer")) == b"new"


def test_the_old_entry_stays_until_the_new_one_is_whole(place: str, use_key: Callable[[str], None]) -> None:
    """A build that fails takes nothing away from those who can use what is there."""
    make(Store(place), b"old")
    use_key(MINE)
    store = Store(place)

    def build(folder: Path) -> Mapping[str, Any]:
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError):
        store.make(KEY, kind="judgments", label="a thing", inputs={}, build=build)
    entry = store.entry(KEY)
    assert entry is not None and content(store.verified(entry)) == b"old"


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "kind": lambda told: told.update(kind="images"),
    "words": lambda told: told.update(words="another thing"),
    "inputs": lambda told: told.update(inputs={OTHER: "0" * 64}),
    "facts": lambda told: told["facts"].update(loss=0.01),
    "a new fact": lambda told: told["facts"].update({"benign losses": [1]}),
    "seconds": lambda told: told.update(seconds=1e9),
    "made": lambda told: told.update(made="2001-01-01T00:00:00+00:00"),
    "run": lambda told: told.update(run="a fresh run"),
    "package": lambda told: told.update(package="0.0.0"),
    "something new": lambda told: told.update(more=1),
    "file": lambda told: told["files"]["judgments.json"].update(sha256="0" * 64),
    "file's name": lambda told: told["files"].update(other=told["files"].pop("judgments.json")),
    "seal's type": lambda told: told.update({"keyed seal": 5}),
    "seal's letters": lambda told: told.update({"keyed seal": "é" * 64}),
    "seal emptied": lambda told: told.update({"keyed seal": ""}),
    "seal removed": lambda told: told.pop("keyed seal"),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_nothing_of_a_manifest_can_be_changed(tmp_path: Path, use_key: Callable[[str], None], change: str) -> None:
    """Every field is covered by the seal, also ones that this version does not know."""
    use_key(MINE)
    path = make(Store(tmp_path / "store")).path / "manifest.json"
    path.write_bytes(rewritten(path.read_bytes(), CHANGES[change]))
    store = Store(tmp_path / "store")
    assert store.condition(KEY) is Condition.MISSING
    assert list(store.ignored) == [KEY]


def test_a_sealed_entry_cannot_be_moved_to_another_question(tmp_path: Path, use_key: Callable[[str], None]) -> None:
    """Neither as it is, nor with the key rewritten."""
    use_key(MINE)
    store = Store(tmp_path / "store")
    innocent = make(store, b"clear", name=OTHER)
    folder = store.root / KEY[:2] / KEY
    folder.parent.mkdir(exist_ok=True)
    innocent.path.rename(folder)
    assert store.condition(KEY) is Condition.CORRUPT
    path = folder / "manifest.json"
    path.write_bytes(rewritten(path.read_bytes(), lambda told: told.update(key=KEY)))
    assert store.condition(KEY) is Condition.MISSING
    assert content(make(store)) == b"hit"


@pytest.mark.parametrize("value", ["", "  \n", "hunter2", "x" * 31])
def test_what_is_no_key_is_a_users_mistake(tmp_path: Path, use_key: Callable[[str], None], value: str) -> None:
    """One sentence before anything is done, without the value."""
    use_key(value)
    with pytest.raises(UserError, match="RESURGENCE_STORE_KEY") as error:
        Store(tmp_path / "store")
    assert value.strip() == "" or value not in str(error.value)


def test_the_key_is_stored_nowhere(place: str, tmp_path: Path, use_key: Callable[[str], None]) -> None:
    """No file of the store holds it."""
    use_key(MINE)
    make(Store(place))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(MINE.encode() in path.read_bytes() for path in files)


def test_an_older_package_reads_a_sealed_entry(tmp_path: Path, use_key: Callable[[str], None]) -> None:
    """The checksum is what it was before there were keyed seals: over everything else in the manifest."""
    use_key(MINE)
    told = json.loads((make(Store(tmp_path / "store")).path / "manifest.json").read_bytes())
    checksum = told.pop("seal")
    assert checksum == hashlib.sha256(json.dumps(told, sort_keys=True, allow_nan=False).encode()).hexdigest()
    assert told["format"] == 1


# Far stores and mirrors


def test_a_tampered_far_store_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_key: Callable[[str], None]
) -> None:
    """Another machine, with an empty mirror and the key, makes it again."""
    use_key(MINE)
    store = Store(f"memory://tampered-{tmp_path.name}")
    made = make(store)
    assert store.remote is not None
    manifest = store.remote.manifest(KEY)
    assert manifest is not None
    store.remote.push_manifest(KEY, rewritten(manifest, lambda told: told["facts"].update(loss=0)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    there = Store(store.name)
    assert there.condition(KEY) is Condition.MISSING and there.ignored == {KEY: Seal.WRONG}
    assert make(there).digest == made.digest
    assert json.loads(there.remote.manifest(KEY) or b"")["facts"] == {"loss": 0.1}  # type: ignore[union-attr]


def test_a_far_manifest_cannot_write_outside_the_mirror(tmp_path: Path) -> None:
    """A file's name that leads elsewhere makes the entry corrupt; nothing is written there."""
    store = Store(f"memory://paths-{tmp_path.name}")
    make(store)
    assert store.remote is not None
    manifest = store.remote.manifest(KEY) or b""
    for name in ("../../../evil", "/tmp/evil", "..", "a/b", "a\\b", "manifest.json"):
        changed = rewritten(manifest, lambda told, to=name: told["files"].update({to: told["files"].popitem()[1]}))
        store.remote.push_manifest(KEY, changed)
        (store.root / KEY[:2] / KEY / "manifest.json").unlink(missing_ok=True)
        with pytest.raises(Corrupt, match="not the one that was written"):
            store.open(KEY)
    assert not list(tmp_path.rglob("evil"))


def test_a_stale_mirror_gives_way_to_a_sealed_far_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_key: Callable[[str], None]
) -> None:
    """What one machine sealed is used by another whose mirror has it unsealed; nothing is made again."""
    url = f"memory://stale-{tmp_path.name}"
    make(Store(url))
    use_key(MINE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert [checked.seal for checked in keeping.seal(Store(url))] == [Seal.SEALED]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(url)
    assert store.condition(KEY) is Condition.PRESENT
    assert content(make(store, b"not asked for")) == b"hit" and store.ignored == {}
    assert Store(url).open(KEY).seal is Seal.SEALED


# Adopting a key


def run(*words: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The command line in this process: exit code, and everything printed."""
    monkeypatch.setattr(sys, "argv", ["resurgence", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(str(left.value.code or 0)), said.out + said.err


def test_a_store_adopts_a_key(
    place: str,
    use_key: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`store seal` warns, seals what is whole, and leaves damage and other seals as they are."""
    if place.startswith("memory"):
        pytest.skip("the far store of this process is tried above")

    def said(*words: str) -> tuple[int, str]:
        return run("store", *words, "--store", place, capsys=capsys, monkeypatch=monkeypatch)

    make(Store(place))
    make(Store(place), name=OTHER)
    code, told = said("seal")
    assert code == 4 and "no key to seal" in told
    assert "2 unsealed" in said("verify")[1]
    use_key(THEIRS)
    make(Store(place), name=key("thing", 3))
    use_key(MINE)
    code, told = said("verify")
    assert (code, "0 sealed, 2 unsealed, 1 wrongly sealed; 3 of them count as absent" in told) == (12, True), told
    assert "counted as absent: 3" in said("ls")[1]
    (Store(place).root / OTHER[:2] / OTHER / "judgments.json").write_bytes(b"hut")
    code, told = said("seal")
    assert code == 12 and told.startswith("Sealing trusts the present content")
    assert "1 sealed, 1 unsealed, 1 wrongly sealed" in told
    store = Store(place)
    assert content(store.open(KEY)) == b"hit"
    assert (store.find(OTHER), store.find(key("thing", 3))) == (None, None)
    assert MINE not in told


def test_sealing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """kill -9 at any moment: every entry is still whole, sealed or not, and sealing again finishes."""
    root, names = tmp_path / "store", [key("thing", number) for number in range(40)]
    for name in names:
        make(Store(root), name=name)
    script = (
        "import sys; from resurgence_harness.storing import Store, keeping; "
        "print(1, flush=True); list(keeping.seal(Store(sys.argv[1])))"
    )
    env = {**os.environ, "RESURGENCE_STORE_KEY": MINE, "PYTHONPATH": os.pathsep.join(sys.path)}
    for delay in (0.0, 0.01, 0.03):
        process = subprocess.Popen([sys.executable, "-c", script, str(root)], env=env, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        checked = list(keeping.verify(Store(root)))
        assert [one.problem for one in checked] == [""] * 40
    subprocess.run(
        [sys.executable, "-c", script, str(root)], env=env, check=True, stdout=subprocess.DEVNULL, timeout=60
    )
    assert {one.seal for one in keeping.verify(Store(root))} == {Seal.UNCHECKED}


# Fresh runs


def test_a_fresh_run_uses_what_it_made_and_nothing_else(place: str) -> None:
    """Its processes share its entries; afterwards everybody has them."""
    make(Store(place), b"old")
    fresh = Store(place, run="first")
    assert fresh.condition(KEY) is Condition.MISSING and fresh.find(KEY) is None and fresh.ls() == []
    assert content(make(fresh, b"new")) == b"new"
    assert content(make(Store(place, run="first"), b"newer")) == b"new"
    assert content(make(Store(place), b"newer")) == b"new"
    assert content(make(Store(place, run="second"), b"newer")) == b"newer"
    assert fresh.ignored == {}


def test_a_date_in_the_future_makes_nothing_fresh(tmp_path: Path) -> None:
    """A forged entry cannot know the word of a run to come."""
    store = Store(tmp_path / "store")
    path = make(store).path / "manifest.json"
    path.write_bytes(rewritten(path.read_bytes(), lambda told: told.update(made="2999-01-01T00:00:00+00:00", run="x")))
    assert content(make(Store(store.root, run="word"), b"new")) == b"new"


# Odd manifests


ODD: dict[str, bytes | Callable[[dict[str, Any]], None]] = {
    "a list": b"[]",
    "too deep": b"[" * 100_000,
    "no text": b"\xff\xfe",
    "no time zone": lambda told: told.update(made="2026-01-01T00:00:00"),
    "seconds in words": lambda told: told.update(seconds="long"),
    "seconds without end": lambda told: told.update(seconds=1e999),
    "no file": lambda told: told.update(files={}),
    "a file's size in words": lambda told: told["files"]["judgments.json"].update(size="3"),
}


@pytest.mark.parametrize("odd", list(ODD))
def test_an_odd_manifest_is_corrupt_and_no_traceback(
    tmp_path: Path, odd: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it computed the checksum; it is named by verify, left out of ls, and made again."""
    store, change = Store(tmp_path / "store"), ODD[odd]
    path = make(store).path / "manifest.json"
    path.write_bytes(change if isinstance(change, bytes) else rewritten(path.read_bytes(), change))
    assert store.condition(KEY) is Condition.CORRUPT
    for words, expected in (("ls", 0), ("verify", 12), ("gc", 0)):
        code, told = run("store", words, "--store", store.root, capsys=capsys, monkeypatch=monkeypatch)
        assert code == expected, told


@pytest.mark.parametrize("seconds", [2**40, 1e18, -(2.0**40)])
def test_a_file_of_another_age_is_listed(tmp_path: Path, seconds: float) -> None:
    """Times that no calendar has, in the future or long before it, break neither ls nor gc."""
    store = Store(tmp_path / "store")
    path = make(store).path / "manifest.json"
    try:
        os.utime(path, (seconds, seconds))
    except (OSError, OverflowError):
        pytest.skip("the file system has no such time")
    assert [artifact.key for artifact in store.ls()] == [KEY]
    assert len(keeping.gc(store, older_than_days=0, dry_run=True)) == 1


def test_what_is_exchanged_after_the_check_is_not_read(tmp_path: Path) -> None:
    """A file's bytes are compared as they are handed over."""
    artifact = Store(tmp_path / "store").open(make(Store(tmp_path / "store")).key)
    assert content_of(artifact, "judgments.json") == b"hit"
    (artifact.path / "judgments.json").write_bytes(b"hut")
    for name in ("judgments.json", "other"):
        with pytest.raises(Corrupt, match="is not the file that was written"):
            content_of(artifact, name)
