"""Torch's threads sleep while they wait, so that a busy neighbour costs its share of the cores and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resurgence_harness.diffusion.devices import never_spin

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, time
from resurgence_harness.bench import Bench
from resurgence_harness.storing import Store
assert "torch" not in sys.modules
Bench(Store(sys.argv[1]))
import torch
x, weight = torch.randn(8, 64, 32, 32), torch.randn(64, 64, 3, 3)
with torch.inference_mode():
    torch.conv2d(x, weight, padding=1)
    began = time.process_time()
    for _ in range(60):
        torch.conv2d(x, weight, padding=1).relu().mean()
    print(time.process_time() - began)
"""
"""Many short operations, as the layers of a small U-Net are; the CPU time of all threads."""
BUSY = "while True: pass"


def seconds(folder: Path, threads: int, **variables: str) -> float:
    """CPU seconds of the program."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "GOMP_"))}
    env |= {"OMP_NUM_THREADS": str(threads), **variables}
    command = [sys.executable, "-c", PROGRAM, str(folder / "store")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="torch's threads are libgomp's there")
def test_threads_beside_busy_processes(tmp_path: Path) -> None:
    """Beside a busy process on every core, two threads take at most 2.5 times one's CPU time; spinning, ten."""
    (tmp_path / "store").mkdir()
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    try:
        alone, two = seconds(tmp_path, 1), seconds(tmp_path, 2)
    finally:
        for one in neighbours:
            one.kill()
            one.wait()
    assert two <= 2.5 * alone


def test_the_users_choice_has_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that is set stays, and nothing is set where torch has read it already."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    own, none = {"OMP_WAIT_POLICY": "ACTIVE"}, dict[str, str]()
    never_spin(own)
    never_spin(none)
    assert own == {"OMP_WAIT_POLICY": "ACTIVE"} and none == {"OMP_WAIT_POLICY": "PASSIVE"}
    monkeypatch.setitem(sys.modules, "torch", object())
    late = dict[str, str]()
    never_spin(late)
    assert late == {}
