"""The committed notebook runs from top to bottom on the microworld, in a real kernel, and shows its results."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.plugin.conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_notebook_runs_and_shows_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first output has the verdict, the table and pictures; no output is committed."""
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "first.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    for name in [name for name in os.environ if name.startswith(("RESURGENCE", "PYTEST"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RESURGENCE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = next(output["data"] for output in outputs if "text/html" in output.get("data", {}))
    assert "uce-1-lora" in shown["text/html"] and "data:image/jpeg;base64," in shown["text/html"]
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    assert "drawn in" in printed
    assert (tmp_path / "reports" / "first" / "verdict.json").is_file()
