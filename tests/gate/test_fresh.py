"""Answers that somebody put into the store: what --fresh and RESURGENCE_STORE_KEY make of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from resurgence_harness.diffusion.formats import Source, materialise
from resurgence_harness.reporting import verdict_json
from resurgence_harness.storing import Store
from tests.gate.conftest import POLICY, Said, Tiny
from tests.warm_python import python

pytestmark = pytest.mark.slow

MINE = "0123456789abcdef" * 4


@pytest.fixture
def gate(known: Tiny, here: Path, resurgence: Any) -> Callable[..., Said]:
    """`resurgence gate` on the candidate in which the concepts came back, with a store of its own."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")

    def run(*more: object) -> Said:
        given = ["--candidate", known.files["regressing"], "--unlearned", known.files["unlearned"]]
        given += ["--base", known.base, "--store", here / "store", "--out", "out"]
        said: Said = resurgence("gate", "--policy", "policy.yaml", *given, *more)
        return said

    return run


def verdicts(here: Path) -> tuple[list[str], dict[str, str]]:
    """Of the run that was last, and what it says of the store."""
    run = verdict_json.read(here / "out/verdict.json")
    told = {name: run.environment[name] for name in ("fresh", "store ignored") if name in run.environment}
    return [cell.verdict for cell in run.cells], told


def rate(here: Path) -> float:
    """Share of the candidate's images in which the run that was last saw an erased concept."""
    after = verdict_json.read(here / "out/verdict.json").cells[0].after
    return after.hits / after.judged


def forge(store: Store, erased: set[str]) -> int:
    """Say of every stored image of the candidate that shows an erased concept that it does not, consistently."""
    forged = 0
    for artifact in store.entries():
        if artifact.kind != "judgments" or "candidate" not in artifact.label:
            continue
        told = json.loads((artifact.path / "judgments.json").read_bytes())
        for row in told["judgments"]:
            if row[0] in erased and row[3] == "hit":
                row[3], row[5], forged = "clear", "somebody else", forged + 1
        content = json.dumps(told, ensure_ascii=False).encode()
        (artifact.path / "judgments.json").write_bytes(content)
        path = artifact.path / "manifest.json"
        manifest = json.loads(path.read_bytes())
        manifest["files"]["judgments.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        listing = [[name, manifest["files"][name]["sha256"]] for name in sorted(manifest["files"])]
        manifest["digest"] = hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()
        del manifest["seal"]
        manifest["seal"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(manifest), encoding="utf-8")
    return forged


def test_forged_answers_are_found_by_fresh_and_by_the_key(
    gate: Callable[..., Said], here: Path, known: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A regression whose judgments were changed counts as drawn less without a key, as documented; not with either."""
    erased = {"cleo marsh", "finn marsh"}
    assert gate().code == 1
    true = rate(here)
    assert forge(Store(here / "store"), erased) > 0
    gate()
    assert rate(here) < 0.8 * true, "without a key a consistent change is served: docs/what-it-proves.md says so"

    assert gate("--fresh").code == 1
    assert verdicts(here) == (["VIOLATED"], {"fresh": "everything was made anew"}) and rate(here) == true
    assert gate().code == 1, "the fresh answers took the place of the forged ones"
    assert verdicts(here) == (["VIOLATED"], {}) and rate(here) == true

    monkeypatch.setenv("RESURGENCE_STORE_KEY", MINE)
    said = gate()
    assert said.code == 1 and "counted as absent" in said.out
    assert "unsealed" in verdicts(here)[1]["store ignored"]
    assert forge(Store(here / "store"), erased) > 0
    said = gate()
    assert said.code == 1 and "wrongly sealed" in said.out
    assert verdicts(here)[0] == ["VIOLATED"] and rate(here) == true


def test_a_made_candidate_is_bound_to_what_was_given(
    known: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder in which candidates are made: moved, edited with its note, of another run, sealed by nobody."""
    made = tmp_path / "candidates"

    def digest(name: str, run: str = "") -> tuple[str, Path]:
        found = materialise([Source(path=known.files[name])], known.base, made, run=run).base
        return found.digest, Path(found.location)

    passing, regressing = digest("passing"), digest("regressing")
    assert digest("passing") == passing and passing[0] != regressing[0]
    before = regressing[1].stat().st_ino

    # Another candidate in its place: the note says what it was made from.
    regressing[1].rename(tmp_path / "kept")
    passing[1].rename(regressing[1])
    assert digest("regressing")[0] == regressing[0]

    # Weights and note changed together: found with the key, and by a fresh run.
    def swap() -> None:
        good = digest("passing")[1]
        unet = "unet/diffusion_pytorch_model.safetensors"
        (regressing[1] / unet).write_bytes((good / unet).read_bytes())
        note = json.loads((regressing[1] / "candidate.json").read_text())
        note["digest"] = passing[0]
        (regressing[1] / "candidate.json").write_text(json.dumps(note))

    swap()
    assert digest("regressing")[0] == passing[0], "without a key this is not seen: docs/what-it-proves.md says so"
    assert digest("regressing", run="word")[0] == regressing[0]
    after = regressing[1].stat().st_ino
    assert digest("regressing", run="word")[0] == regressing[0] and regressing[1].stat().st_ino == after != before
    monkeypatch.setenv("RESURGENCE_STORE_KEY", MINE)
    assert digest("regressing")[0] == regressing[0] and regressing[1].stat().st_ino != after
    swap()
    assert digest("regressing")[0] == regressing[0]


def test_workers_of_one_run_share_its_word_and_tell_what_they_ignored(known: Tiny, here: Path) -> None:
    """Under pytest with two workers: the number is printed and kept, and a fresh run is one run, whatever the key."""
    (here / "tiny_plugin.py").write_text(
        "from tests.plugin.gallery import TINY, GalleryJudge\n"
        "def pytest_resurgence_tasks():\n    return [TINY]\n"
        f"def pytest_resurgence_judges():\n    return [GalleryJudge({str(known.gallery)!r})]\n",
        encoding="utf-8",
    )
    models = {"candidate": str(known.files["regressing"]), "unlearned": str(known.files["unlearned"])}
    groups = {"first": {"concepts": ["cleo marsh"]}}
    content = {**yaml.safe_load(POLICY), "models": {**models, "base": str(known.base)}, "groups": groups}
    (here / "policy.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    installed = any(point.name == "resurgence" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "resurgence_harness.pytest_plugin"]
    command = [python(), "-m", "pytest", *plugin, "-p", "tiny_plugin", "-p", "no:cacheprovider"]
    command += ["--pyargs", "resurgence_harness.gate", "--resurgence-policy", "policy.yaml", "-n", "2", "-q"]
    command += ["--resurgence-store", "store", "-p", "no:benchmark"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(here)])
    env = {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def run(*more: str, **variables: str) -> tuple[str, dict[str, str]]:
        ran = subprocess.run(
            [*command, *more], cwd=here, env={**env, **variables}, capture_output=True, text=True, timeout=400
        )
        assert ran.returncode == 1, ran.stdout + ran.stderr
        told = verdict_json.read(here / "reports/out/verdict.json").environment
        return ran.stdout, {name: told[name] for name in ("fresh", "store ignored") if name in told}

    assert run()[1] == {}
    entries = [artifact for artifact in Store(here / "store").entries() if artifact.kind == "judgments"]
    said, told = run(RESURGENCE_STORE_KEY=MINE)
    assert "counted as absent" in said and list(told) == ["store ignored"]
    assert int(told["store ignored"].split()[0]) >= len(entries)
    said, told = run("--resurgence-fresh", RESURGENCE_STORE_KEY=MINE)
    assert "counted as absent" not in said and list(told) == ["fresh"]
    words = {artifact.run for artifact in Store(here / "store").entries()}
    assert len(words) == 1 and words != {""}, "every entry was made again, by one run"
