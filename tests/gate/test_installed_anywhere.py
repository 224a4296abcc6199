"""The GitHub action, run as its shell steps, and the Dockerfile."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.gate.microworld import environment
from tests.reporting.compared import saved
from tests.warm_python import python

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
NONE, SOME, KEPT = "." * 100, "hh..." * 20, "hhhhhhhhh." * 10


class Job(NamedTuple):
    """What the steps left."""

    code: int
    outputs: dict[str, dict[str, str]]
    summary: str
    said: str


def job(folder: Path, fake_gate: str, *, install: bool = False, **inputs: str) -> Job:
    """Run the action's shell steps one after another as GitHub does; a failing step ends the job.

    `fake_gate`: a shell command in place of `resurgence gate`; every other `resurgence` is the real one. `install`:
    whether the step that installs the package is run.
    """
    given = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()} | inputs
    (folder / "bin").mkdir()
    program = folder / "bin/resurgence"
    real = f'exec {python()} -c "from resurgence_harness.cli import main; main()" "$@"'
    program.write_text(f'#!/bin/bash\nif [ "$1" = gate ]; then shift; {fake_gate}; fi\n{real}\n', encoding="utf-8")
    program.chmod(0o755)
    outputs: dict[str, dict[str, str]] = {}
    files = {"GITHUB_OUTPUT": folder / "output", "GITHUB_STEP_SUMMARY": folder / "summary.md"}
    files["GITHUB_STEP_SUMMARY"].touch()
    said, code = "", 0

    def filled(text: str) -> str:
        def value(found: re.Match[str]) -> str:
            kind, name, *rest = found[1].split(".")
            return given[name] if kind == "inputs" else outputs.get(name, {}).get(rest[1], "")

        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, text)

    for step in STEPS:
        left_out = {"Install": not install, "Compare": not given["baseline"]}
        if "run" not in step or left_out.get(step["name"]):
            continue
        files["GITHUB_OUTPUT"].write_text("", encoding="utf-8")
        own = {name: filled(value) for name, value in step.get("env", {}).items()}
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = environment(PATH=path, PIP_NO_INDEX="1", **{name: str(file) for name, file in files.items()}, **own)
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
        said += done.stdout + done.stderr
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        outputs[step.get("id", step["name"])] = dict(line.split("=", 1) for line in lines)
        code = done.returncode
        if code:
            break
    return Job(code, outputs, files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8"), said)


@pytest.mark.parametrize(
    ("gate", "fail_on", "second", "code"),
    [
        (0, "verdict", "", 0),
        (1, "verdict", "", 1),
        (10, "verdict", "", 10),
        (1, "regression", "worse", 1),
        (0, "regression", "same", 0),
        (12, "regression", "same", 12),
        (0, "regression", "", 4),
        (0, "never", "", 4),
    ],
)
def test_the_action_fails_as_it_is_told(here: Path, gate: int, fail_on: str, second: str, code: int) -> None:
    """Exit code of the gate, or of the comparison; a gate that could not judge is never a pass."""
    inputs = {"fail-on": fail_on, "arguments": "--candidate=a b.safetensors\n--fresh\n"}
    if second:
        saved(here / "first", cells={"a-1-lora": (NONE, KEPT)}, number=1)
        outcomes, verdict = (SOME, "VIOLATED") if second == "worse" else (NONE, "HOLDS")
        saved(here / "second", cells={"a-1-lora": (outcomes, KEPT)}, verdict=verdict, number=2)
        inputs["baseline"] = "first"
    fake = f'printf "<%s>" "$@"; mkdir -p reports; [ ! -d second ] || cp -r second reports/gate; exit {gate}'
    ran = job(here, fake, **inputs)
    assert ran.code == code, ran.said
    assert ran.outputs["gate"] == {"exit-code": str(gate), "verdict": "reports/gate/verdict.json"}
    assert "<--policy><policy.yaml><--out><reports/gate><--candidate=a b.safetensors><--fresh>" in ran.said
    if second:
        assert "Resurgence, two runs compared" in ran.summary
        assert ran.outputs["compare"]["exit-code"] == ("1" if second == "worse" else "0")


def test_the_real_gate_is_called_as_it_can_be(here: Path) -> None:
    """Without a policy file its mistake, 4, is the action's."""
    real = f'exec {python()} -c "from resurgence_harness.cli import main; main()" gate "$@"'
    ran = job(here, real, install=True, package="pip")
    assert ran.code == 4 and "policy.yaml" in ran.said


def test_no_input_can_add_a_command() -> None:
    """Expressions are in `env` and `with` only; every input is used and described, every output is a step's."""
    for step in STEPS:
        assert "${{" not in step.get("run", "") and ("run" not in step or step["shell"] == "bash")
        assert ("uses" in step) is not ("run" in step)
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, about in ACTION["inputs"].items():
        assert about["description"] and (f"inputs.{name} " in text or f"inputs.{name}}}" in text), name
    ids = {step.get("id") for step in STEPS}
    for about in ACTION["outputs"].values():
        assert about["value"].split(".")[1] in ids


def test_the_image_runs_the_command_without_rights() -> None:
    """Both variants: an unprivileged user, a store as volume, the command as entry point, no secret, no index."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    stages = {found[2]: found[3] for found in re.finditer(r"^FROM (\S+) AS (\w+)\n((?:(?!FROM).*\n?)*)", text, re.M)}
    assert list(stages) == ["wheel", "common", "cpu", "cuda"]
    for name in ("cpu", "cuda"):
        lines = stages[name].splitlines()
        assert "USER 10001" in lines and 'ENTRYPOINT ["resurgence"]' in lines and "VOLUME /store" in lines
        assert lines.index("USER 10001") > max(place for place, line in enumerate(lines) if line.startswith("RUN"))
    assert not re.search(r"https?://|TOKEN|PASSWORD", text)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name in " ".join(copied).split():
        assert (ROOT / name).exists() and f"!{name}" in kept, name
