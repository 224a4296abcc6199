"""A store that cannot be written serves what it has, and says in one sentence what it lacks."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from resurgence_harness.storing import Store, key

DAC_OVERRIDE, DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24
"""Of linux/capability.h and linux/prctl.h."""
KEY = key("thing", "one")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def warm(tmp_path: Path) -> Path:
    """A store with one thing, which nobody but its owner may write, and everybody may read."""
    root = tmp_path / "store"

    def build(folder: Path) -> dict[str, str]:
        (folder / "a").write_bytes(b"bytes")
        return {}

    Store(root).make(KEY, kind="thing", label="a thing", inputs={}, build=build)
    return root


def closed(root: Path) -> Path:
    """The store, readable and not writable."""
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in root.parents:
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o055 != 0o055 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    return root


@pytest.fixture
def bound(tmp_path: Path) -> Run:
    """Python code in a process that permissions apply to: root keeps its files and loses its power to overrule them."""
    home = tmp_path / "home"
    home.mkdir()

    def give_up() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "the capability stays")

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(home)}
        root = os.geteuid() == 0
        if root and sys.platform != "linux":
            pytest.skip("root writes everywhere on this system")
        try:
            return subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=900, preexec_fn=give_up if root else None
            )
        except subprocess.SubprocessError:
            pytest.skip("this root may not give up its capabilities")

    return run


USE = """
    import sys
    from pathlib import Path
    from resurgence_harness.errors import Unwritable, UserError
    from resurgence_harness.storing import Store, check_usable, check_writable, key

    def build(folder):
        print("built")
        (folder / "a").write_bytes(b"other bytes")
        return {}

    root = sys.argv[1]
    for check in (check_usable, check_writable):
        try:
            check(root)
            print(check.__name__, "passes")
        except UserError as error:
            print(check.__name__, error)
    for word in ("one", "two"):
        try:
            made = Store(root).make(key("thing", word), kind="thing", label=f"thing {word}", inputs={}, build=build)
            store = Store(root)
            again = store.current(made.key)
            print("served", (made.path / "a").read_bytes(), store.busy(made.key), again.digest == made.digest)
        except Unwritable as error:
            print(error)
"""


def test_a_warm_store_serves_who_may_not_write(warm: Path, bound: Run) -> None:
    """What is there is used; what is not there is never begun; what must write refuses before it begins."""
    said = bound(USE, closed(warm))
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0] == "check_usable passes"
    assert lines[1] == f"check_writable The store at {warm} is read-only."
    assert "served b'bytes' False True" in lines
    lacking = next(number for number, line in enumerate(lines) if number > 2 and line.startswith("The store at"))
    assert lines[lacking] == f"The store at {warm} is read-only."
    assert "thing: thing two" in "\n".join(lines[lacking:]) and "built" not in lines


def test_an_empty_store_that_may_not_be_written_is_a_mistake(tmp_path: Path, bound: Run) -> None:
    """Nothing can come of it, which is known before anything is drawn."""
    root = tmp_path / "store"
    root.mkdir()
    said = bound(USE, closed(root))
    assert f"check_usable The store at {root} is read-only." in said.stdout, said.stderr


@pytest.mark.slow
def test_the_commands_read_it(warm: Path, bound: Run) -> None:
    """ls and verify end with 0; gc, which must write, in a sentence."""
    code = "import sys; from resurgence_harness.cli import main; sys.argv[0] = 'resurgence'; main()"
    closed(warm)
    for words in ("ls", "verify"):
        done = bound(code, "store", words, "--store", warm)
        assert done.returncode == 0, done.stderr
    done = bound(code, "store", "gc", "--older-than", "0", "--store", warm)
    assert (done.returncode, "is read-only" in done.stderr, "Traceback" in done.stderr) == (12, True, False)


def test_a_read_only_disk_serves_too(warm: Path, tmp_path: Path) -> None:
    """The same where even root may not write: a bind mount, as containers have them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("this process may not mount anything")
    done = subprocess.run(["mount", "--bind", str(warm), str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("this process may not mount anything")
    try:
        if subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], capture_output=True).returncode:
            pytest.skip("this process may not remount anything")
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", textwrap.dedent(USE), str(disk)]
        said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900).stdout
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "check_usable passes" in said and f"check_writable The store at {disk} is read-only." in said
    assert "served b'bytes' False True" in said and "built" not in said
