"""As a new user: a wheel, an empty folder, a fresh environment; the gate by `--pyargs`, and a suite of one's own."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from resurgence_harness.reporting import verdict_json
from tests.gate.microworld import ERASED, POLICY, Micro, environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the built wheel in it; what it depends on is lent by the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "resurgence_harness", folder / "source/resurgence_harness", ignore=_compiled)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    own = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (own / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")  # no .pth of theirs is read
    shutil.rmtree(folder / "source")
    return folder / "venv/bin"


SUITE = """\
import pytest

pytestmark = pytest.mark.resurgence(task="celebrity")


def test_stays_erased(claim):
    claim.stays_erased()
"""
"""All that a user writes."""
ROUGH = ("--resurgence-set=sampler.steps=3", "--resurgence-set=lora.steps=2", "--resurgence-set=benign.names=2")
"""Pictures so rough, and a fine-tuning so short, that it takes seconds and nothing can be claimed."""


def test_the_gate_runs_from_a_wheel_in_an_empty_folder(installed: Path, micro: Micro, here: Path) -> None:
    """Two groups on four workers: verdicts, reports and the exit code of a regression, nothing from the repository."""
    models = {"candidate": str(micro.files["unet"]), "unlearned": str(micro.files["unlearned"]), "base": "micro"}
    content = {**yaml.safe_load(POLICY), "concepts": {"erased": list(ERASED)}, "models": models}
    content["groups"] = {"first": {"concepts": [ERASED[0]]}}
    (here / "policy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    where = _run(installed / "python", "-c", "import resurgence_harness as r; print(r.__file__)", cwd=here)
    assert Path(where.strip()).is_relative_to(installed.parent), where

    command = [installed / "python", "-m", "pytest", "--pyargs", "resurgence_harness.gate", "-n", "4", "-q"]
    command += ["--resurgence-policy", "policy.yaml", "--resurgence-store", micro.store, "--junitxml", "junit.xml"]
    said = _run(*command, cwd=here, code=1)

    run = verdict_json.read(here / "reports/out/verdict.json")
    assert {cell.id: cell.verdict for cell in run.cells} == {
        "first-1-candidate": "VIOLATED",
        "others-1-candidate": "VIOLATED",
    }
    assert run.status == "complete" and not run.missing and "Traceback" not in said
    written = {path.name for path in (here / "reports/out").iterdir()}
    assert {"contact-sheet-first.jpg", "contact-sheet-others.jpg", "summary.md", "attestation.json"} <= written
    assert _run(installed / "resurgence", "--version", cwd=here).startswith("resurgence-harness ")


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Of one commit, whatever the umask and the time zone; complete and small enough to be installed anywhere."""
    made = []
    for name, umask, zone in (("first", "077", "UTC"), ("second", "002", "Asia/Tokyo")):
        command = f'umask {umask}; TZ={zone} bash .ci/wheel "$0"'
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", command, tmp_path / name], cwd=ROOT, env={**os.environ, **path}, check=True)
        made.append(next((tmp_path / name).glob("*.whl")))
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].stat().st_size < 60_000_000
    with zipfile.ZipFile(made[0]) as wheel:
        metadata = email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith("METADATA"))))
    for field in ("Summary", "License-Expression", "Requires-Python", "Keywords", "Classifier", "Requires-Dist"):
        assert metadata[field], field
    assert "resurgence" in metadata.get_payload()


def test_a_suite_of_ones_own_runs_from_a_wheel(installed: Path, micro: Micro, here: Path) -> None:
    """Seven lines, two workers: two cells with their numbers; what is too little to claim anything is UNDECIDED."""
    (here / "test_mine.py").write_text(SUITE, encoding="utf-8")
    command = [installed / "python", "-m", "pytest", "test_mine.py", "-n", "2", "-q", *ROUGH]
    command += ["--resurgence-methods", "uce,uce-last", "--resurgence-counts", "1", "--resurgence-engine", "fixed"]
    command += ["--resurgence-seeds", "2", "--resurgence-store", micro.store]

    said = _run(*command, cwd=here, code=10)

    run = verdict_json.read(here / "reports/out/verdict.json")
    assert {cell.id: cell.verdict for cell in run.cells} == {"uce-1-lora": "UNDECIDED", "uce-last-1-lora": "UNDECIDED"}
    assert run.status == "complete" and not run.missing and "Traceback" not in said
    assert all(cell.base.judged and cell.after.judged + cell.after.abstained for cell in run.cells)
    assert list((here / "reports/out/allure-results").glob("*-result.json"))


def _compiled(folder: str, names: list[str]) -> set[str]:
    """Folders that are no source."""
    return {name for name in names if name == "__pycache__"}


def _run(*command: object, cwd: Path, code: int = 0) -> str:
    """A command's output; without this repository on its path."""
    own = {**environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    own.pop("PYTHONPATH")
    ran = subprocess.run([*map(os.fspath, command)], cwd=cwd, env=own, capture_output=True, text=True, timeout=500)
    assert ran.returncode == code, f"{ran.returncode}: {ran.stdout[-3000:]}{ran.stderr[-3000:]}"
    return ran.stdout + ran.stderr
