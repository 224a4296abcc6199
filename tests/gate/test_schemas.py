"""Reviewed files checked without a run, their schemas for editors, and the pre-commit hook."""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from resurgence_harness.gate import schemas
from tests.gate.hostile_policies import GOOD

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ACCEPTED = "acceptances: [{task: celebrity, method: erased, count: 1, finetuning: candidate, level: 0.2, reason: r, "


@pytest.mark.parametrize("kind", schemas.SCHEMAS)
def test_the_shipped_schemas_are_those_of_the_code(kind: str) -> None:
    """A changed schema is a reviewed diff, and is a valid schema."""
    shipped = json.loads((files("resurgence_harness.gate") / schemas.SCHEMAS[kind]).read_text(encoding="utf-8"))
    assert shipped == schemas.schema(kind)
    jsonschema.Draft202012Validator.check_schema(shipped)


def test_an_editor_accepts_what_the_gate_accepts(here: Path, resurgence: Any) -> None:
    """The template, which names its schema; the suites' limits. A misspelt limit is marked."""
    assert resurgence("policy", "init").code == 0
    text = (here / "policy.yaml").read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named is not None
    policy = jsonschema.Draft202012Validator(json.loads((here / named[1]).read_text(encoding="utf-8")))
    policy.validate(yaml.safe_load(text))
    policy.validate(yaml.safe_load(GOOD))
    for wrong in ({"limits": {"levle": 0.1}}, {"limits": {"level": 2}}, {"seeds": "many"}, {"tusk": "celebrity"}):
        assert not policy.is_valid(wrong), wrong
    limits = jsonschema.Draft202012Validator(schemas.schema("limits"))
    for file in ROOT.glob("suites/*/limits.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        limits.validate(json.loads(json.dumps(content, default=str)))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("policy.yaml", GOOD, "a policy with 1 group"),
        ("policy.yaml", "limits: {level: 0.2}\n", "given on the command line"),
        ("limits.yaml", "policy: {alpha: 0.02}\n", "limits with 0 acceptances"),
        ("acceptances.yaml", ACCEPTED + "owner: o, expires: 2030-01-01}]\n", "limits with 1 acceptance"),
        ("acceptances.yaml", ACCEPTED + "owner: o, expires: 2020-01-01}]\n", "has expired on 2020-01-01"),
        ("limits.yaml", "policy: {levle: 0.1}\n", "levle"),
        ("policy.yaml", GOOD + "limits: {level: 2}\n", "level"),
        ("policy.yaml", "concepts: {erased: nosuch.txt}\n", "nosuch.txt"),
        ("policy.yaml", "", "has no entry"),
    ],
)
def test_a_file_is_checked_without_a_run(here: Path, resurgence: Any, name: str, content: str, says: str) -> None:
    """Exit code 0 with what it is, or 4 with the mistake; the other files are checked all the same."""
    (here / name).write_text(content, encoding="utf-8")
    (here / "limits-good.yaml").write_text("policy: {alpha: 0.02}\n", encoding="utf-8")
    said = resurgence("policy", "check", name, "limits-good.yaml")
    good = "limits with 0 acceptances"
    assert says in (said.out if said.code == 0 else said.err) and good in said.out
    assert said.code == (0 if says.startswith(("a policy", "given", "limits with")) else 4)
    assert "Traceback" not in said.err


def test_the_hook_runs_the_command_on_these_files(resurgence: Any) -> None:
    """Its entry exists and accepts this repository's files; its pattern matches them and no other."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    matched = [file for file in ROOT.glob("suites/*/*") if re.search(hook["files"], file.as_posix())]
    assert {file.name for file in matched} == {"limits.yaml"}
    assert re.search(hook["files"], "gate/policy.yml") and not re.search(hook["files"], "mypolicy.yaml")
    command, *words = shlex.split(hook["entry"])
    said = resurgence(*words, *matched)
    assert command == "resurgence" and said.code == 0, said.err


def test_the_schemas_are_printed(resurgence: Any) -> None:
    """For an editor's settings; an unknown kind is a mistake."""
    assert json.loads(resurgence("policy", "schema", "limits").out) == schemas.schema("limits")
    assert resurgence("policy", "schema", "other").code == 4
