"""`resurgence report` on a gate whose candidate has no unlearned model, or no base either."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from resurgence_harness.reporting import report, verdict_json
from tests.gate.microworld import ERASED, POLICY, Micro, environment, resurgence
from tests.warm_python import python

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("base", [None, "micro"], ids=["alone", "with its base"])
def test_a_gate_under_pytest_is_reported_without_what_it_does_not_have(base: str | None, micro: Micro, here: Path):
    """The cell's page, the run's page and the figures tell the candidate's rates and make up no others."""
    candidate = "micro" if base is None else str(micro.files["unet"])
    models = {"candidate": candidate} | ({"base": base} if base else {})
    (here / "policy.yaml").write_text(yaml.safe_dump({**yaml.safe_load(POLICY), "models": models}), encoding="utf-8")
    command = [python(), "-m", "pytest", *_plugin(), "--pyargs", "resurgence_harness.gate", "-n", "0", "-q"]
    command += ["--resurgence-policy", "policy.yaml", "--resurgence-store", str(micro.store), "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=here, env=environment(), capture_output=True, text=True, timeout=900)
    assert ran.returncode == 1, ran.stdout + ran.stderr

    found = report.read(here / "reports/out")
    staged = here / "staged"
    staged.mkdir()
    assert report.stage(found, staged) == 1
    (cell,) = found.run["cells"]
    assert cell["before"] is None and (cell["base"] is None) == (base is None)
    (result,) = (json.loads(file.read_text(encoding="utf-8")) for file in staged.glob("*-result.json"))
    assert result["name"] == f"erased-1-candidate: Safety regression · {100 * cell['after']['rate']:.1f} %"
    assert "only this level is claimed" in result["statusDetails"]["message"]
    sources = list(report._sources(result))
    assert sources and all((staged / source).stat().st_size for source in sources)
    pages = [(staged / source).read_text(encoding="utf-8") for source in sources if source.endswith(".html")]
    table = result["descriptionHtml"].partition("Per concept")[2].partition("</table>")[0]
    assert ERASED[0] in table and "100.0 %" in table and table.count("—") == 3 + (base is None)
    assert pages and not any("None" in page or "nan" in page for page in pages)
    assert (staged / "figures-globals.json").is_file()


def test_a_gate_by_itself_says_how_it_is_reported_and_has_figures(micro: Micro, here: Path) -> None:
    """It leaves no Allure results: a plain sentence; the figures need none."""
    (here / "policy.yaml").write_text(POLICY, encoding="utf-8")
    words: list[Any] = ["gate", "--policy", "policy.yaml", "--candidate", "micro", "--store", micro.store]
    ran = resurgence(*words, "--out", "out", "--device", "cpu", cwd=here)
    assert ran.returncode == 1, ran.stderr
    run = verdict_json.read(here / "out/verdict.json")
    assert run.cells[0].before is None and run.cells[0].base is None and run.base.name == "no base"

    told = resurgence("report", "--from", "out", cwd=here)
    assert told.returncode == 4 and "Traceback" not in told.stderr
    first = "resurgence: The gate in out was run with `resurgence gate`, which writes no Allure results."
    assert told.stderr.startswith(first)
    assert "pytest --pyargs resurgence_harness.gate" in told.stderr

    drawn = resurgence("report", "--from", "out", "--figures", "figures", cwd=here)
    assert drawn.returncode == 0, drawn.stderr
    assert {"matrix.png", "matrix.svg"} <= {path.name for path in (here / "figures").iterdir()}


def _plugin() -> list[str]:
    from tests.gate.test_gate_suite import _installed

    return [] if _installed() else ["-p", "resurgence_harness.pytest_plugin"]
