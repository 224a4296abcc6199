"""What the documentation of the gate says is so: workflows are YAML, commands exist, exit codes have sections."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from resurgence_harness.cli import gate as command
from resurgence_harness.gate import running
from resurgence_harness.process import MEANINGS

DOCS = Path(__file__).parents[2] / "docs"
GATE = (DOCS / "gate.md").read_text(encoding="utf-8")


def workflows() -> list[Any]:
    """The YAML blocks of the tutorial."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GATE, re.S)]


def test_the_workflows_run_the_gate_and_keep_its_reports() -> None:
    """GitHub's and GitLab's, as their own readers take them."""
    github, gitlab = workflows()
    steps = github["jobs"]["gate"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert all(set(step) & {"run", "uses"} for step in steps)
    assert any(run.startswith("resurgence gate ") for run in runs)
    assert steps[-1]["if"] == "always()" and steps[-1]["with"]["path"] == "reports/gate"
    job = gitlab["release-gate"]
    assert any(line.startswith("resurgence gate ") for line in job["script"])
    assert job["artifacts"]["reports"]["junit"] == f"reports/gate/{running.JUNIT}"
    assert 0 not in job["allow_failure"]["exit_codes"] and 1 not in job["allow_failure"]["exit_codes"]


@pytest.mark.parametrize("line", sorted(set(re.findall(r"(?:^|\s)(resurgence [a-z]+.*)$", GATE, re.M))))
def test_every_command_of_the_tutorial_can_be_read(line: str) -> None:
    """Words and options exist; what they name need not."""
    import typer

    from resurgence_harness.cli import app

    words = shlex.split(line.strip("`").partition("#")[0])[1:]
    found: Any = typer.main.get_command(app)
    while words and hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    assert found.make_context("resurgence", list(words), resilient_parsing=False).params is not None


def test_every_exit_code_has_a_section_and_every_report_a_row() -> None:
    """And none has one that does not exist."""
    codes = (DOCS / "exit-codes.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^## (\d+)$", codes, re.M)} == set(MEANINGS)
    for name in running.REPORTS:
        assert f"`{name}`" in GATE
    assert str(command.OUT) in GATE


def test_links_between_the_pages_lead_somewhere() -> None:
    """Within docs."""
    for page in ("gate.md", "exit-codes.md", "what-it-proves.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8")):
            assert (DOCS / target).is_file(), target
