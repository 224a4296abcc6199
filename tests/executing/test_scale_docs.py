"""docs/scale.md: its YAML and scripts can be read, and every command in them exists with these options."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from resurgence_harness.cli.commands import app
from resurgence_harness.pytest_plugin.options import FLAGS, OPTIONS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "scale.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"(?:^ {4}|-- )(resurgence (?:build|plan) [^#\n]*)", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """The RayJob."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def check_command(words: list[str]) -> None:
    """`resurgence build …` with options that there are."""
    assert words[0] == "resurgence"
    command: Any = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    ours = {f"--resurgence-{word.replace('_', '-')}" for word in (*(one.word for one in OPTIONS), *FLAGS)}
    for word in words[2:]:
        if word.startswith("-"):
            assert word.split("=")[0] in own | ours, f"there is no option {word}"


def test_the_commands_of_the_page_exist() -> None:
    """With their options, and suites that there are."""
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        words = shlex.split(command)
        check_command(words)
        assert (DOCS.parent / words[2]).is_dir()


def test_the_ray_job_is_as_kuberay_reads_it(job: dict[str, Any]) -> None:
    """Kind, cluster, one GPU a worker, one image and one store everywhere; and its entrypoint is a command of ours."""
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    check_command(shlex.split(spec["entrypoint"]))
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    for pod, container in zip(pods, containers, strict=True):
        assert {"name": "RESURGENCE_STORE", "value": "/shared/store"} in container["env"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert containers[1]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}  # no worker beside the driver


def test_the_version_of_ray_is_one_that_the_extra_allows(job: dict[str, Any]) -> None:
    """As pyproject.toml says."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = map(Requirement, project["optional-dependencies"]["ray"])
    assert extra.specifier.contains(job["spec"]["rayClusterSpec"]["rayVersion"])
    assert "Ray 2.49 or later" in PAGE and extra.specifier.contains("2.49.0") and not extra.specifier.contains("2.48.0")


def test_the_scripts_are_bash_and_their_ray_commands_exist() -> None:
    """`bash -n`, and the options of `ray symmetric-run`."""
    assert len(SCRIPTS) == 2
    for script in SCRIPTS:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    ray = pytest.importorskip("ray.scripts.symmetric_run")
    options = {name for parameter in ray.symmetric_run.params for name in parameter.opts}
    line = next(line for line in SCRIPTS[1].splitlines() if "symmetric-run" in line)
    used = {word for word in shlex.split(line.rstrip("\\")) if word.startswith("--") and word != "--"}
    assert used == {"--address", "--min-nodes"} <= options


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_build_a_suite_that_there_is(script: str) -> None:
    """With options that there are."""
    (found,) = re.findall(r"resurgence build .*", script)
    words = shlex.split(found)
    check_command(words)
    assert (DOCS.parent / words[2]).is_dir()
