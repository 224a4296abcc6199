"""A user's own trainer in whole runs: the example of docs/trainers.md, and what ends a run before anything is made."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.storing import Store
from tests.plugin.conftest import ROOT, Folder
from tests.plugin.test_mistakes import refused
from tests.plugin.test_strangers import plan

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8")
TRAIN = next(re.finditer(r"```python\n# train\.py\n(.*?)```", PAGE, re.DOTALL))[1]
MINE = next(re.finditer(r"```yaml\n# settings\.yaml\n(.*?)unlearnings:", PAGE, re.DOTALL))[1]
OWN = "--resurgence-settings=settings.yaml"
UCE_MINE = ("--resurgence-methods=uce", "--resurgence-finetune=mine", "--resurgence-seeds=8")
"""Few images: what the verdict is does not matter here."""
SLEEPER = """
    import subprocess, sys, time
    from pathlib import Path

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(sys.argv[1]).write_text(str(child.pid))
    time.sleep(600)
"""


def declared(suite: Folder, script: str = TRAIN, text: str = MINE) -> None:
    """Write the page's settings file and a script."""
    suite.write("train.py", script)
    suite.write("settings.yaml", text)


def test_the_example_of_the_page_gives_a_verdict(suite: Folder, tmp_path: Path) -> None:
    """A verdict that names the file, the model and the output in the store, and no secret of the environment."""
    declared(suite)
    planned = plan(suite, OWN, *UCE_MINE)
    note = 'Fine-tuning "mine" is from settings.yaml, source '
    assert planned.returncode == 0 and "command {python} train.py" in planned.stdout, planned.stdout + planned.stderr
    assert note in planned.stdout

    suite.environment["ACME_TOKEN"] = "a-secret-of-this-test"
    ran = suite.run("-n", "0", OWN, *UCE_MINE)

    (cell,) = ran.verdicts["cells"]
    digest = hashlib.sha256((suite.path / "settings.yaml").read_bytes()).hexdigest()
    given = {part["kind"]: part for part in cell["given"]}["finetuning"]
    assert given == {
        "kind": "finetuning",
        "name": "mine",
        "origin": "settings",
        "package": "settings.yaml",
        "version": "",
        "source": digest,
        "replaces": "",
    }
    assert note + digest[:12] in ran.output
    assert ran.code == 10 and cell["verdict"] == "UNDECIDED", ran.output + ran.errors
    store = Store(suite.store)
    tuned = store.open(cell["models"]["tuned"]["key"])
    log = (tuned.path / "trainer.log").read_text(encoding="utf-8")
    assert "step 19: loss" in log
    assert tuned.facts["recorded"]["command"]["words"][1] == "train.py"
    assert "randomness is not controlled" in tuned.facts["recorded"]["note"]
    assert not any(b"a-secret-of-this-test" in file.read_bytes() for file in _files(suite.path, tuned.path))
    assert not list((Path(suite.store) / "tmp").glob("*"))


def tuned_models(suite: Folder) -> set[str]:
    """Keys of the stored models that a command has made."""
    made = Store(suite.store).ls()
    return {artifact.key for artifact in made if artifact.kind == "checkpoint" and "mine" in artifact.label}


def _files(*folders: Path) -> list[Path]:
    return [file for folder in folders for file in folder.rglob("*") if file.is_file()]


def test_a_failing_command_is_a_harness_error_with_its_last_lines(suite: Folder) -> None:
    """Exit 12, one sentence in the summary, the output shown, nothing stored as finished."""
    before = tuned_models(suite)
    declared(suite, 'print("epoch 1")\nraise SystemExit("no images of size 512")\n')
    ran = suite.run("-n", "0", OWN, *UCE_MINE)
    assert ran.code == 12, ran.output + ran.errors
    assert 'The command of the fine-tuning "mine" ended with exit code 1.' in ran.output
    assert "| epoch 1" in ran.output and "| no images of size 512" in ran.output
    assert tuned_models(suite) == before


@pytest.mark.parametrize("way", ["interrupt", "kill"])
def test_an_interrupted_run_ends_its_command(suite: Folder, way: str) -> None:
    """Ctrl-C as kill -9: the command and its own children end, and the next run finds nothing half made."""
    declared(suite, SLEEPER.replace("sys.argv[1]", repr(str(suite.path / "started"))))
    before = tuned_models(suite)
    suite.cold = True  # a fork of the warm server is not the process that is killed
    started = suite.path / "started"
    process = subprocess.Popen(
        suite.command("-n", "0", OWN, *UCE_MINE),
        cwd=suite.path,
        env=suite.env(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: started.exists() and started.read_text() != "", seconds=120)
        child = int(started.read_text())
        process.send_signal(signal.SIGINT if way == "interrupt" else signal.SIGKILL)
        code = process.wait(300)
    finally:
        process.kill()
    _until(lambda: not _alive(child), seconds=20)
    assert code == (2 if way == "interrupt" else -signal.SIGKILL)
    assert tuned_models(suite) == before
    left = list((Path(suite.store) / "tmp").glob("*"))
    assert bool(left) == (way == "kill")
    if left:
        suite.cold = False
        declared(suite, 'raise SystemExit("another command")')  # what is left does not stand in its way
        assert suite.run("-n", "0", OWN, *UCE_MINE).code == 12


def _until(true: Any, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")


def test_commands_run_only_from_a_file_that_the_command_line_names(suite: Folder) -> None:
    """Not from one that an ini file, addopts or the environment names."""
    declared(suite)
    words = "The settings file declares commands, and it is not named on the command line."
    suite.write("pytest.ini", "[pytest]\nresurgence_settings = settings.yaml\n")
    assert refused(suite, *UCE_MINE) == words
    suite.write("pytest.ini", f"[pytest]\naddopts = {OWN}\n")
    assert refused(suite, *UCE_MINE) == words
    suite.write("pytest.ini", "[pytest]\n")
    suite.environment["RESURGENCE_SETTINGS"] = "settings.yaml"
    assert refused(suite, *UCE_MINE) == words


def test_a_name_that_is_taken_is_refused(suite: Folder) -> None:
    """By a built-in fine-tuning."""
    declared(suite, text=MINE.replace("mine:", "lora:"))
    assert refused(suite, OWN, "--resurgence-methods=uce") == 'Two fine-tunings are called "lora".'
