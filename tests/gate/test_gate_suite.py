"""The suite that `--pyargs` collects from the package: the same gate, as cells of a pytest run."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree as tree

import pytest
import yaml

from resurgence_harness.reporting import verdict_json
from tests.gate.conftest import POLICY, Tiny
from tests.warm_python import python

pytestmark = pytest.mark.slow


def test_the_suite_of_the_package_runs_the_same_gate(known: Tiny, here: Path) -> None:
    """pytest --pyargs, two workers: the groups are cells, with the same verdicts and reports."""
    (here / "tiny_plugin.py").write_text(
        "from tests.plugin.gallery import TINY, GalleryJudge\n"
        "def pytest_resurgence_tasks():\n    return [TINY]\n"
        f"def pytest_resurgence_judges():\n    return [GalleryJudge({str(known.gallery)!r})]\n",
        encoding="utf-8",
    )
    models = {"candidate": str(known.files["regressing"]), "unlearned": str(known.files["unlearned"])}
    groups = {"first": {"concepts": ["cleo marsh"], "level": 0.2}}
    content = {**yaml.safe_load(POLICY), "models": {**models, "base": str(known.base)}, "groups": groups}
    (here / "policy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    root = str(Path(__file__).parents[2])
    installed = [] if _installed() else ["-p", "resurgence_harness.pytest_plugin"]
    command = [python(), "-m", "pytest", *installed, "-p", "tiny_plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "resurgence_harness.gate", "--resurgence-policy", "policy.yaml", "-n", "2", "-q"]
    command += ["--resurgence-store", str(known.store), "--junitxml", "junit.xml", "-p", "no:benchmark"]

    ran = subprocess.run(command, cwd=here, env=_environment(root, here), capture_output=True, text=True, timeout=900)

    assert ran.returncode == 1, ran.stdout + ran.stderr
    run = verdict_json.read(here / "reports/out/verdict.json")
    assert {cell.id: cell.verdict for cell in run.cells} == {
        "first-1-candidate": "VIOLATED",
        "others-1-candidate": "VIOLATED",
    }
    assert run.gate is not None and run.gate.audit is not None and not run.missing
    assert next(one["limit"] for one in run.cells[0].findings if one["name"] == "level") == 0.2
    assert {"attestation.json", "contact-sheet-first.jpg"} <= {path.name for path in (here / "reports/out").iterdir()}
    files = (here / "reports/out/allure-results").glob("*-result.json")
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    labels = [{one["name"]: one["value"] for one in result["labels"]} for result in results]
    assert {(one["epic"], one["feature"], one["severity"]) for one in labels} == {
        ("tiny", "first", "critical"),
        ("tiny", "others", "critical"),
    }
    names = {one.get("name") for one in tree.parse(here / "junit.xml").getroot().iter("property")}
    assert {"resurgence.after.rate", "resurgence.rise.high"} <= names

    (here / "policy.yaml").write_text("levels: 1\n", encoding="utf-8")
    command[command.index("-n") + 1] = "0"
    ran = subprocess.run(command, cwd=here, env=_environment(root, here), capture_output=True, text=True, timeout=900)
    assert ran.returncode == 4 and "levels is not a known key" in ran.stderr and "Traceback" not in ran.stderr


def _installed() -> bool:
    return any(point.name == "resurgence" for point in entry_points(group="pytest11"))


def _environment(root: str, here: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
    return {**kept, "PYTHONPATH": f"{root}{os.pathsep}{here}", "OMP_NUM_THREADS": "1"}
