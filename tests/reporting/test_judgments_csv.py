"""Every judgment as CSV, by its data dictionary."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import resurgence_harness as rh
from resurgence_harness import cli
from resurgence_harness.reporting import judgments_csv
from tests.plugin.conftest import ROOT
from tests.reporting.compared import saved

pytestmark = pytest.mark.slow


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """`resurgence export` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[object, str, str]:
        words = ["resurgence", "export", *map(str, arguments), "--store", str(tmp_path / "none")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_every_image_has_a_row_of_the_dictionary(tmp_path: Path, export: Any) -> None:
    """Counts per arm are those of verdict.json, and every value has its column's type."""
    run = saved(tmp_path / "a", cells={"esd-1-lora": ("h.a.", "hh"), "uce-1-lora": ("....", "h.")})
    assert export("--from", run, "--to", tmp_path / "out.csv")[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text(encoding="utf-8"), newline="")))
    told = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    for cell in told["cells"]:
        for arm in ("after", "retained_after"):
            own = [row for row in rows if (row["cell"], row["arm"]) == (cell["id"], arm)]
            assert sum(row["outcome"] == "hit" for row in own) == cell[arm]["hits"]
            assert sum(row["outcome"] == "abstained" for row in own) == cell[arm]["abstained"]
            assert [int(row["number"]) for row in own] == list(range(cell[arm]["judged"] + cell[arm]["abstained"]))
    fields = judgments_csv.dictionary()["fields"]
    assert list(rows[0]) == [field["name"] for field in fields] and len(rows) == 12
    read: dict[str, Any] = {"integer": int, "number": float, "string": str, "boolean": ["true", "false"].index}
    for field in fields:
        assert all(read[field["type"]](row[field["name"]]) is not None for row in rows)
    again = rh.load(run).judgments()
    assert [{name: str(value) for name, value in row.items()} for row in again] == [
        {**row, "decides": row["decides"].capitalize()} for row in rows
    ]
    assert {row["decides"] for row in rows} == {"true"} and {row["model"] for row in rows} == {"micro"}


def test_judgments_that_are_gone_are_incomplete(tmp_path: Path, export: Any) -> None:
    """Exit code 11 with what is left; 4 and no file if nothing is."""
    run = saved(tmp_path / "a", cells={"esd-1-lora": ("h...", "hh"), "uce-1-lora": ("....", "h.")})
    told = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    lost = told["cells"][0]["judgments"][0]["keys"][0]
    shutil.rmtree(run / "store" / lost[:2] / lost)
    code, out, _ = export("--from", run, "--to", tmp_path / "out.csv")
    assert code == 11 and "8 judgments" in out and "Left out: celebrity/esd-1-lora, after" in out
    with pytest.raises(rh.UserError, match="cannot be read"):
        rh.load(run).judgments()
    old = saved(tmp_path / "old", cells={"esd-1-lora": ("....", "hh")}, keep=False)
    code, _, err = export("--from", old, "--to", tmp_path / "old.csv")
    assert code == 4 and "nothing was written" in err and not (tmp_path / "old.csv").exists()
    assert export("--from", run, "--to", tmp_path)[0] == 4


def test_the_dictionary_is_printed_and_documented(export: Any) -> None:
    """A Table Schema; docs/compare.md has the same columns."""
    code, out, _ = export("--dictionary")
    assert code == 0 and json.loads(out) == judgments_csv.dictionary()
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", page, re.M)
    assert [(name, kind) for name, kind, _ in rows] == [(one.name, one.type) for one in judgments_csv.COLUMNS]
