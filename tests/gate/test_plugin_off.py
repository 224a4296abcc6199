"""The gate's suite without the plugin that judges: nothing is judged, and the code is not that of a regression."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("words", "code"), [((), 4), (("-p", "xdist.plugin", "-n", "1"), 5)], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    "off",
    [{"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, {"PYTEST_ADDOPTS": "-p no:resurgence"}],
    ids=["no plugins", "not ours"],
)
def test_a_gate_without_its_plugin_is_no_regression(
    tmp_path: Path, off: dict[str, str], words: tuple[str, ...], code: int
) -> None:
    """4 and one sentence; under xdist no test is left, which pytest ends with 5."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESURGENCE", "PYTEST"))}
    env = {**kept, "PYTHONPATH": str(ROOT), "RESURGENCE_POLICY": "policy.yaml", **off}
    words = words[2:] if words and "PYTEST_ADDOPTS" in off else words  # xdist is loaded already
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "resurgence_harness.gate", *words]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
    said = ran.stdout + ran.stderr
    assert ran.returncode == code, said
    assert "The release gate cannot be run: its pytest plugin is switched off." in said
    assert "Traceback" not in said and "INTERNALERROR" not in said
