"""`resurgence setup` on the microworld: killed while it draws, stopped before the labels, ended while it judges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resurgence_harness.judging import judge_by_name
from resurgence_harness.judging.calibrating import calibration_files
from resurgence_harness.labelling import NONE, LabelFile, PictureSet
from tests.plugin.conftest import ROOT
from tests.warm_python import python

pytestmark = pytest.mark.slow

QUICK = ("lora.steps=1", "lora.batch=2", "benign.names=2", "benign.seeds=1", "sampler.steps=3")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.Popen[str]]:
    """started("setup", …): the command in a folder of its own, with a store and weights of its own."""
    monkeypatch.setenv("RESURGENCE_WEIGHTS", str(tmp_path / "weights"))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python(), "-m", "resurgence_harness.cli", *words, "--store", str(tmp_path / "store"), "--device", "cpu"],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_every_interruption_is_resumed_and_none_is_a_pass(
    started: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Killed while it draws: nothing half-made is used. Labels are asked for, counted, and the cell is begun."""
    words = ["setup", "--base", "micro", "--task", "celebrity", "--calibrate", "--pictures", "24", "--no-browser"]
    words += [f"--set={one}" for one in QUICK]
    killed = started(*words)
    until(lambda: any((tmp_path / "store").rglob("images*")) or any((tmp_path / "store").rglob("*.npz")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    folder = tmp_path / "reports" / "setup" / "calibration-identity"
    assert not (folder / "pictures.json").exists()

    stopped = started(*words)
    output, errors = stopped.communicate(timeout=600)
    assert stopped.returncode == 4, output + errors
    assert "The pictures for judge identity are not labelled yet." in errors and "resurgence label" in errors

    pictures, judge = PictureSet.read(folder), judge_by_name("identity")
    answers, _ = judge.answer(pictures.images(), "cpu")
    file = LabelFile.open(pictures, "labeller")
    for one, answer in zip(pictures.pictures, answers, strict=True):
        file.add(one.sha256, answer if answer in pictures.choices else NONE)

    last = started(*words)
    assert last.stdout is not None
    lines = []
    for line in last.stdout:
        lines.append(line)
        if line.startswith("collected 1 item"):
            break
    last.terminate()
    rest, errors = last.communicate(timeout=100)
    output = "".join(lines) + rest
    assert last.returncode == 143, output + errors
    assert "everything is here" in output and "false alarms" in output and "Kept: " in output
    assert output.index("Kept: ") < output.index("\ncheck\n") < output.index("\nverdict\n")
    kept = json.loads(calibration_files(judge)[0].read_text())
    assert kept["made"]["by"] == ["labeller"] and len(kept["made"]["pictures"]) == 24
    verdict = json.loads((tmp_path / "reports" / "setup" / "verdict.json").read_text())
    assert verdict["exit_code"] == 11 and not verdict["cells"]


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    for _ in range(3000):
        if true():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("it did not happen")
