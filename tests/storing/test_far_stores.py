"""Far stores that refuse, are gone, or are written by several at once: one sentence, and nothing left behind."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from resurgence_harness import cli
from resurgence_harness.errors import ReadOnly, Unreachable, Unwritable, UserError
from resurgence_harness.storing import Store, check_usable, keeping, key

KEY, OTHER = key("thing", "one"), key("thing", "two")


class TimedOut(Exception):
    """As aiohttp's and botocore's, which are no OSError."""


class Failing(MemoryFileSystem):
    """A far side in memory whose calls fail as they are told to."""

    protocol = "failing"
    store: dict[str, Any] = {}  # noqa: RUF012  as its parent's: shared by all instances
    pseudo_dirs = [""]  # noqa: RUF012
    reading: Exception | None = None
    writing: Exception | None = None

    def _tried(self, name: str, *args: Any, **kwargs: Any) -> Any:
        error = Failing.writing if name in _WRITING else Failing.reading
        if error is not None:
            raise error
        return getattr(super(), name)(*args, **kwargs)

    cat_file = lambda self, *a, **k: self._tried("cat_file", *a, **k)  # noqa: E731
    find = lambda self, *a, **k: self._tried("find", *a, **k)  # noqa: E731
    ls = lambda self, *a, **k: self._tried("ls", *a, **k)  # noqa: E731
    get_file = lambda self, *a, **k: self._tried("get_file", *a, **k)  # noqa: E731
    put_file = lambda self, *a, **k: self._tried("put_file", *a, **k)  # noqa: E731
    pipe_file = lambda self, *a, **k: self._tried("pipe_file", *a, **k)  # noqa: E731
    rm_file = lambda self, *a, **k: self._tried("rm_file", *a, **k)  # noqa: E731


_WRITING = {"put_file", "pipe_file", "rm_file"}
register_implementation("failing", Failing, clobber=True)
ERRORS = [
    TimedOut("Could not connect to the endpoint URL"),
    RuntimeError("NoCredentialsError: Unable to locate credentials"),
    OSError(5, "Input/output error"),
    ConnectionResetError("peer"),
    TimeoutError(),
    PermissionError("Access Denied"),
    FileNotFoundError("The specified bucket does not exist"),
    ImportError("Install s3fs"),
    KeyError("endpoint"),
    ValueError("ftp://somebody:secret@host is no address"),
]


def kind(error: object) -> str:
    """What a test is called by."""
    return type(error).__name__


@pytest.fixture(autouse=True)
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything works until a test says otherwise; each test has mirrors of its own."""
    monkeypatch.setattr("resurgence_harness.storing.remote.retrying.PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Failing, "reading", None)
    monkeypatch.setattr(Failing, "writing", None)
    monkeypatch.setattr(Failing, "store", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RESURGENCE_STORE_KEY", raising=False)


def make(store: Store, content: bytes = b"bytes", *, name: str = KEY) -> Any:
    """Have a thing."""

    def build(folder: Path) -> dict[str, str]:
        (folder / "a").write_bytes(content)
        return {}

    return store.make(name, kind="thing", label="a thing", inputs={}, build=build)


def run(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The command line in this process."""
    monkeypatch.setattr(sys, "argv", ["resurgence", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return int(str(left.value.code or 0)), said.out + said.err


@pytest.mark.parametrize("error", [one for one in ERRORS if not isinstance(one, FileNotFoundError)], ids=kind)
def test_a_far_side_that_cannot_be_read_is_told_first(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command ends with 4 and one sentence; a gate before it looks at a model. No account is shown."""
    monkeypatch.setattr(Failing, "reading", error)
    (tmp_path / "erased.txt").write_text("Alba Drummond\n")
    monkeypatch.chdir(tmp_path)
    gate = ("gate", "--candidate", "micro", "--concepts", "erased.txt")
    for words in (("store", "ls"), ("store", "verify"), ("store", "gc"), gate):
        code, said = run(*words, "--store", "failing://x", capsys=capsys, monkeypatch=monkeypatch)
        assert code == 4, said
        assert said.startswith("resurgence: The store failing://x cannot be read.\n") and "secret" not in said


@pytest.mark.parametrize("error", ERRORS, ids=kind)
def test_a_far_side_that_cannot_be_written_is_told_first(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made, as the user's mistake."""
    monkeypatch.setattr(Failing, "writing", error)
    if isinstance(error, FileNotFoundError):
        monkeypatch.setattr(Failing, "reading", error)  # a bucket that is not there
    with pytest.raises(UserError, match=r"\AThe store failing://x (cannot be|does not return)"):
        check_usable("failing://x")


@pytest.mark.parametrize("error", ERRORS, ids=kind)
def test_a_far_side_that_goes_midway_is_the_harness(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made cannot be sent, what is there cannot be brought: StoreError, which ends with 12."""
    make(Store("failing://x"))
    monkeypatch.setattr(Failing, "writing", error)
    with pytest.raises(Unwritable, match=r"\AThe store failing://x cannot be written"):
        make(Store("failing://x"), name=OTHER)
    monkeypatch.setattr(Failing, "writing", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(os.environ["XDG_CACHE_HOME"]).parent / "empty"))
    if isinstance(error, FileNotFoundError):
        return  # a manifest that is not found is one that was never written
    monkeypatch.setattr(Failing, "reading", error)
    store = Store("failing://x")
    for use in (store.condition, store.current, store.find, store.open, lambda name: make(store, name=name)):
        with pytest.raises(Unreachable, match=r"\AThe store failing://x cannot be read"):
            use(KEY)


def test_a_far_side_that_may_only_be_read_serves_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm it passes the check, empty it does not, and what it lacks is told when it must be made."""
    make(Store("failing://x"))
    monkeypatch.setattr(Failing, "writing", PermissionError("Access Denied"))
    check_usable("failing://x")
    with pytest.raises(UserError, match="cannot be written"):
        check_usable("failing://empty")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(os.environ["XDG_CACHE_HOME"]).parent / "another machine"))
    assert (make(Store("failing://x"), b"other").path / "a").read_bytes() == b"bytes"
    with pytest.raises(ReadOnly):
        make(Store("failing://x"), name=OTHER)


# Builders at once


def far_files(store: Store) -> list[str]:
    """Paths of the artifacts' files there, below the key's folder."""
    assert store.remote is not None
    files = store.remote.files
    paths = (path.removeprefix(f"{files.root}/").split("/", 2) for path in files.listing(files.root))
    return sorted(path[-1] for path in paths if len(path) == 3 and path[0] != "leases")


def test_who_writes_last_leaves_no_files_of_who_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines made other bytes of one thing: one manifest, and the files that it names."""
    stores = []
    for machine in ("first", "second"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        (tmp_path / machine / "resurgence-mirrors").mkdir(parents=True)
        stores.append(Store("memory://both-" + tmp_path.name))
    remote, sent = stores[1].remote, []
    assert remote is not None
    push = remote.push

    def meanwhile(*given: Any) -> None:
        sent.append(make(stores[0], b"first").digest)  # the other machine finishes while this one builds
        push(*given)

    monkeypatch.setattr(remote, "push", meanwhile)
    made = make(stores[1], b"second")
    assert sent and sent[0] != made.digest
    files = far_files(stores[1])
    assert len(files) == 2 and files[0].endswith(f"{made.digest}/a") and files[1].endswith("manifest.json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    assert (Store(stores[1].name).open(KEY).path / "a").read_bytes() == b"second"


def test_gc_clears_old_far_files_that_no_manifest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left by killed builders and by who came second at the same moment; new ones may still be being sent."""
    store = Store("memory://orphans-" + tmp_path.name)
    made = make(store)
    assert store.remote is not None
    fs, root = store.remote.files.filesystem, store.remote.files.root
    old = [f"{root}/{KEY[:2]}/{KEY}/{'0' * 64}/a", f"{root}/{OTHER[:2]}/{OTHER}/{'1' * 64}/b"]
    young = f"{root}/{OTHER[:2]}/{OTHER}/{'2' * 64}/c"
    for path in (*old, young):
        fs.pipe_file(path, b"left")
    for path in old:
        fs.store[path].modified = datetime.now(UTC) - timedelta(days=2)
    told = keeping.gc(store, older_than_days=1000, dry_run=True)
    assert sorted(one.place for one in told) == sorted(old) and {one.size for one in told} == {4}
    assert len(keeping.gc(store, older_than_days=1000)) == 2
    assert keeping.gc(store, older_than_days=1000) == []
    assert fs.exists(young) and not any(map(fs.exists, old))
    assert [one.problem for one in keeping.verify(store)] == [""] and store.open(KEY).digest == made.digest
