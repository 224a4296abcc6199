"""Two runs never write into one folder of results: the second ends with 4 before it touches anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resurgence_harness.errors import UserError
from resurgence_harness.gate.out_lock import LOCK, held
from tests.gate.conftest import Said

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from resurgence_harness.gate.out_lock import held

with held([Path(sys.argv[1])]):
    print("held", flush=True)
    sys.stdin.read()
"""
SUITE = """\
import pytest


@pytest.mark.resurgence(task="celebrity")
def test_it(claim):
    pass
"""


@pytest.fixture
def out(here: Path) -> Path:
    """A folder with an earlier run's verdict."""
    folder = here / "out"
    folder.mkdir()
    (folder / "verdict.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def holder(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes there."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stdout.readline() == "held\n"
    yield started
    started.kill()
    started.communicate()


def test_a_second_gate_ends_with_4(holder: object, out: Path, resurgence: Callable[..., Said]) -> None:
    """One sentence; the verdict that lies there is neither removed nor replaced."""
    said = resurgence("gate", "--candidate", "nowhere", "--out", out)
    assert said.code == 4 and f"Another run is writing into {out}." in said.err.replace("\n", " "), said
    assert "Give another" in said.err or "give another folder with --out" in said.err
    assert sorted(path.name for path in out.iterdir()) == [LOCK, "verdict.json"]


def test_a_second_pytest_run_ends_with_4(holder: object, out: Path, here: Path) -> None:
    """A run with cells holds its folder from the beginning; one that only shows something needs it not."""
    (here / "test_it.py").write_text(SUITE, encoding="utf-8")
    (here / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "resurgence_harness.pytest_plugin", f"--resurgence-out={out}"]
    ran = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 4 and "Another run is writing into" in ran.stderr, ran.stdout + ran.stderr
    assert "--resurgence-out" in ran.stderr and "Traceback" not in ran.stdout + ran.stderr
    assert sorted(path.name for path in out.iterdir()) == [LOCK, "verdict.json"]
    shows = subprocess.run([*command, "--markers"], cwd=here, env=env, capture_output=True, text=True, timeout=900)
    assert shows.returncode == 0


def test_a_run_that_was_killed_holds_nothing(
    holder: subprocess.Popen[str], out: Path, resurgence: Callable[..., Said]
) -> None:
    """kill -9: the file stays and the lock does not; the next run forgets the old verdict and removes the file."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (out / LOCK).exists()
    said = resurgence("gate", "--candidate", "nowhere", "--out", out)
    assert said.code == 4 and "Another run" not in said.err
    assert list(out.iterdir()) == []


def test_a_folder_that_held_nothing_is_gone_again(tmp_path: Path) -> None:
    """And one that cannot be made is left to whoever writes there, to say so."""
    with held([tmp_path / "a" / "b"]):
        assert (tmp_path / "a" / "b" / LOCK).exists()
        with pytest.raises(UserError, match="Another run"), held([tmp_path / "c", tmp_path / "a" / "b"]):
            pass
        assert not (tmp_path / "c").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with held([tmp_path / "file"]), held([tmp_path / "file" / "below"]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
