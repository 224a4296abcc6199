"""Whatever surrounds a command, a policy that cannot be read is exit code 4, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gate.generated_environments import Row, corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = ("gate", "--policy", "policy.yaml", "--candidate", "micro", "--device", "cpu", "--out", "out")
FORKS = """
import json, os, sys
from resurgence_harness import cli
import resurgence_harness.gate.release_policy, resurgence_harness.gate.running, resurgence_harness.storing
from tests.gate.generated_environments import corpus
said = {}
for number, row in enumerate(corpus()):
    if row.started:
        continue
    os.makedirs(f"{number}", exist_ok=True)
    open(f"{number}/policy.yaml", "w").write("limits: [\\n")
    child = os.fork()
    if child == 0:
        os.chdir(f"{number}")
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY), descriptor)
        for name, value in row.env.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        row.prepare()
        sys.argv = ["resurgence", *%r]
        code = 1
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code
        except BaseException as error:
            open(f"../{number}/traceback", "w").write(repr(error))
            code = 70
        try:
            sys.stdout.flush(), sys.stderr.flush()
        except (OSError, ValueError):
            pass
        os._exit(int(code or 0))
    _, status = os.waitpid(child, 0)
    said[row.name] = [os.waitstatus_to_exitcode(status), open(f"{number}/stderr").read()]
print(json.dumps(said))
"""


def usual(row: Row | None = None) -> dict[str, str]:
    """The variables of a process, with a row's."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CI"))}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")]), "HF_HUB_OFFLINE": "1"}
    for name, value in (row.env if row else {}).items():
        env.pop(name, None)
        env |= {name: value} if value is not None else {}
    return env


def test_forks_in_odd_surroundings_end_with_4(tmp_path: Path) -> None:
    """One process imports the command line, a fork of it meets each of them."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS % (COMMAND,)],
        cwd=tmp_path,
        env=usual(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: (code, words[-300:]) for name, (code, words) in said.items() if code != 4 or "Traceback" in words}
    assert not wrong, "\n".join(f"{name}: {words}" for name, words in wrong.items())
    assert len(said) >= 20


def test_processes_started_in_odd_surroundings_end_with_4(tmp_path: Path) -> None:
    """Encodings of the terminal, locales and the hash seed are chosen when Python starts."""
    (tmp_path / "policy.yaml").write_text("limits: [é\n", encoding="utf-8")
    rows = [row for row in corpus() if row.started]
    processes = []
    for row in rows:
        command = [sys.executable, "-m", "resurgence_harness.cli", *COMMAND]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(command, cwd=tmp_path, env=usual(row), timeout=900, **pipes)
        processes.append((row.name, done.returncode, done.stderr.decode(errors="replace")))
    wrong = [said for said in processes if said[1] != 4 or "Traceback" in said[2] or "policy.yaml" not in said[2]]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_corpora_together_are_large_enough(tmp_path: Path) -> None:
    """At least 400 generated inputs, of every kind."""
    from tests.gate import generated_models, generated_policies
    from tests.tiny import save_tiny_stable_diffusion

    base = save_tiny_stable_diffusion(tmp_path / "base")
    counts = {
        "policies and lists": len(generated_policies.corpus(tmp_path)),
        "files": len(generated_models.files(base)),
        "directories": len(generated_models.directories(base, tmp_path)),
        "environments": len(corpus()),
    }
    print(counts)
    least = {"policies and lists": 180, "files": 100, "directories": 100, "environments": 20}
    assert all(counts[name] >= number for name, number in least.items()), counts
    assert sum(counts.values()) >= 400
