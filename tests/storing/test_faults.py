"""Two builders at once, killed builders, and disks that are full, read-only or gone: real ones, no pretending."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resurgence_harness.errors import Unwritable, UserError
from resurgence_harness.storing import Store, check_usable, keeping, key

KEY = key("thing", "one")
BUILDER = """
import sys, time
from pathlib import Path
from resurgence_harness.storing import Store, key

def build(folder):
    (folder / "a").write_bytes(b"first half")
    Path(sys.argv[2]).open("a").write(f"{sys.argv[3]}\\n")
    time.sleep(float(sys.argv[4]))
    (folder / "b").write_bytes(b"second half")
    return {"builder": sys.argv[3]}

made = Store(sys.argv[1]).make(key("thing", "one"), kind="thing", label="a thing", inputs={}, build=build)
print(made.facts["builder"], made.digest)
"""


def builder(root: Path, log: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    """Another process that makes the thing, slowly."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(root), str(log), name, str(seconds)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the process has begun to build."""
    while not path.exists() or not path.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_two_builders_make_it_once(tmp_path: Path) -> None:
    """Four processes that want one thing at once get one build and the same bytes."""
    log = tmp_path / "log"
    processes = [builder(tmp_path / "store", log, str(number), 0.5) for number in range(4)]
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert len(answers) == 1


def test_a_killed_builder_loses_nothing(tmp_path: Path) -> None:
    """kill -9 half-way leaves nothing that looks finished and no lock; one that waited takes over and finishes."""
    log, root = tmp_path / "log", tmp_path / "store"
    first = builder(root, log, "first", 60)
    wait_for(log, first)
    waiting = builder(root, log, "second", 0)
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    store = Store(root)
    assert waiting.communicate(timeout=60)[0].startswith("second ")
    assert store.open(KEY).facts == {"builder": "second"}
    assert list((root / "tmp").iterdir()) == []


def test_the_next_run_after_a_kill_finishes(tmp_path: Path) -> None:
    """What a killed builder left is neither found nor listed, and the next build replaces it."""
    log, root = tmp_path / "log", tmp_path / "store"
    process = builder(root, log, "first", 60)
    wait_for(log, process)
    process.kill()
    process.communicate(timeout=60)
    store = Store(root)
    assert len(list((root / "tmp").iterdir())) == 1
    assert store.find(KEY) is None
    assert store.ls() == []
    finished = builder(root, log, "second", 0)
    assert finished.communicate(timeout=60)[0].startswith("second ")
    assert list((root / "tmp").iterdir()) == []


def test_gc_leaves_a_running_build_alone(tmp_path: Path) -> None:
    """Clearing up while another process builds takes nothing away from it."""
    log, root = tmp_path / "log", tmp_path / "store"
    process = builder(root, log, "slow", 1)
    wait_for(log, process)
    assert keeping.gc(Store(root), older_than_days=-1) == []
    assert process.communicate(timeout=60)[0].startswith("slow ")


# Disks


def mounted(folder: Path, *options: str) -> None:
    """Put a small disk there, where this process may."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this process may not mount a disk: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    mounted(folder, "-o", "size=2m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be written, by anybody."""
    folder = tmp_path / "disk"
    if os.geteuid() != 0:
        folder.mkdir(mode=0o555)
        yield folder
        folder.chmod(0o755)
        return
    mounted(folder, "-o", "ro,size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def make(store: Store, size: int, name: str = "one") -> None:
    """Make a thing of so many bytes, as safetensors are written."""

    def build(folder: Path) -> dict[str, str]:
        import numpy as np
        from safetensors.numpy import save_file

        save_file({"zeros": np.zeros(size, np.uint8)}, folder / "a.safetensors")
        return {}

    store.make(key("thing", name), kind="thing", label="a thing", inputs={}, build=build)


def test_a_full_disk_is_told_in_a_sentence(small_disk: Path) -> None:
    """The error names the store and what to do, the earlier artifacts stay whole, and the half-made one is gone."""
    store = Store(small_disk / "store")
    make(store, 1000, "small")
    with pytest.raises(Unwritable, match=rf"\AThe store at {small_disk}/store is full\.") as error:
        make(store, 8_000_000)
    assert "--resurgence-store" in str(error.value)
    assert [artifact.size < 2000 for artifact in store.ls()] == [True]
    assert list((store.root / "tmp").iterdir()) == []
    make(store, 2000, "after")


def test_a_full_disk_is_noticed_before_anything_starts(small_disk: Path) -> None:
    """The check writes, finds no room, and leaves nothing."""
    with pytest.raises(UserError, match="is full"):
        check_usable(small_disk / "store", room=3 << 20)
    (small_disk / "filler").write_bytes(bytes(1_900_000))
    with pytest.raises(UserError, match="is full"):
        check_usable(small_disk / "store")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_file_size_limit_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A quota stops a write half-way: the system's EFBIG is told as a full store, without a half-made artifact."""
    script = """
        import resource, sys
        from pathlib import Path
        from resurgence_harness.errors import Unwritable
        from resurgence_harness.storing import Store, key
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        def build(folder):
            (folder / "a").write_bytes(bytes(200_000))
            return {}
        try:
            Store(sys.argv[1]).make(key("thing", "one"), kind="thing", label="a thing", inputs={}, build=build)
        except Unwritable as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"The store at {tmp_path}/store is full.")
    assert Store(tmp_path / "store").find(KEY) is None
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_a_read_only_disk_is_told_in_a_sentence(read_only_disk: Path) -> None:
    """Both before the workers start, as the user's mistake, and when a build tries."""
    for root in (read_only_disk, read_only_disk / "store"):
        with pytest.raises(UserError, match=rf"\AThe store at {root} is read-only\."):
            check_usable(root)
        with pytest.raises(Unwritable, match=rf"\AThe store at {root} is read-only\."):
            make(Store(root), 10)


def test_a_store_that_became_read_only_still_serves(small_disk: Path) -> None:
    """A warm store on a disk that cannot be written is read as ever."""
    store = Store(small_disk / "store")
    make(store, 10)
    if subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], capture_output=True).returncode:
        pytest.skip("this process may not remount a disk")
    make(store, 10)
    assert store.open(KEY).label == "a thing"


def test_a_vanished_root_is_not_put_back_in_silence(tmp_path: Path) -> None:
    """An unplugged disk is named; a folder of its name on another disk is never filled instead."""
    root = tmp_path / "unplugged" / "store"
    with pytest.raises(UserError, match=rf"cannot be created: {tmp_path}/unplugged is not a directory"):
        check_usable(root)
    with pytest.raises(Unwritable, match="cannot be created"):
        make(Store(root), 10)
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_vanishes_during_a_build_is_told_in_a_sentence(tmp_path: Path) -> None:
    """The bytes have nowhere to go, and the error says so."""
    root = tmp_path / "store"

    def build(folder: Path) -> dict[str, str]:
        shutil.rmtree(root)
        (folder / "a").write_bytes(b"x")
        return {}

    with pytest.raises(Unwritable, match="is gone"):
        Store(root).make(KEY, kind="thing", label="a thing", inputs={}, build=build)


def test_a_root_that_is_a_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    """The file stays as it is."""
    (tmp_path / "store").write_text("not a store")
    for root in (tmp_path / "store", tmp_path / "store" / "below"):
        with pytest.raises(UserError, match="not a directory"):
            check_usable(root)
        with pytest.raises(Unwritable, match="not a directory"):
            make(Store(root), 10)
    assert (tmp_path / "store").read_text() == "not a store"


def test_a_link_to_nothing_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A store behind a link to a disk that is gone is not made anew."""
    (tmp_path / "store").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="is a link whose target is missing"):
        check_usable(tmp_path / "store")


def test_a_usable_store_is_left_as_it_was(tmp_path: Path) -> None:
    """The check makes nothing where nothing was, and changes nothing where something was."""
    check_usable(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
    make(Store(tmp_path / "store"), 10)
    before = sorted(tmp_path.rglob("*"))
    check_usable(tmp_path / "store")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_default_store_is_made_with_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh machine ~/.cache need not exist."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh" / "cache"))
    monkeypatch.delenv("RESURGENCE_STORE", raising=False)
    from resurgence_harness.storing import default_root

    check_usable(default_root())
    assert list(tmp_path.iterdir()) == []
    make(Store(), 10)
    assert Store().root == tmp_path / "fresh" / "cache" / "resurgence"
    assert len(Store().ls()) == 1
