"""What the controller writes for Allure."""

from __future__ import annotations

import json
from pathlib import Path

from resurgence_harness.reporting import allure, old_allure
from tests.reporting.records import UNRUN, record, run


def test_a_cell_without_a_verdict_is_a_broken_result(tmp_path: Path) -> None:
    """Allure shows what was planned and never ran; a cell that broke has its own result already."""
    broke = {**UNRUN, "id": "uce-1-lora", "kind": "harness error"}
    allure.write_run(tmp_path / "results", run(record(), missing=(UNRUN, broke)), severities={"celebrity": "critical"})
    (file,) = (tmp_path / "results").glob("*-result.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    labels = {label["name"]: label["value"] for label in result["labels"]}
    assert result["status"] == "broken"
    assert result["statusDetails"]["message"].startswith("NO VERDICT: worker 'gw1' crashed")
    assert (labels["epic"], labels["feature"], labels["story"]) == ("celebrity", "esd", "100 concepts")
    assert labels["severity"] == "critical"


def test_cleaning_takes_results_and_leaves_the_rest(tmp_path: Path) -> None:
    """Old results go; history and strangers' files stay."""
    for name in ("a-result.json", "b-container.json", "c-attachment.jpg", "environment.properties", "notes.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / "history").mkdir()
    old_allure.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "notes.txt"]


def test_numbers_are_a_table() -> None:
    """One line per arm there is."""
    lines = allure.numbers(record()).splitlines()
    assert lines[0] == "arm,rate,low,high,hits,judged,abstained"
    assert lines[3] == "after,0.4200,0.3262,0.5182,63,150,0"
    assert len(lines) == 8


def test_run_files_are_readable(tmp_path: Path) -> None:
    """environment.properties, executor.json, categories.json, and a configuration for Allure 3 beside them."""
    allure.write_run(tmp_path / "results", run(record()), severities={})
    environment = (tmp_path / "results" / "environment.properties").read_text(encoding="ascii")
    assert "base=micro\n" in environment and "device=cpu\n" in environment
    for name in ("results/executor.json", "results/categories.json", "allurerc.yml"):
        json.loads((tmp_path / name).read_text(encoding="utf-8"))
