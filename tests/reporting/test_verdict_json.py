"""verdict.json: its schema, its writer, its reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from resurgence_harness.errors import UserError
from resurgence_harness.reporting import verdict_json
from resurgence_harness.reporting.arms import ARMS
from tests.reporting.records import UNRUN, record, run


def test_what_lies_deep_is_on_one_line() -> None:
    """The same values, a line for each member of the first levels."""
    value = {"a": {"b": [1, {"c": "ü"}]}, "d": [], "e": [{"f": None}, 2]}
    assert verdict_json.readable(value, levels=1).splitlines() == [
        "{",
        '  "a": {"b": [1, {"c": "ü"}]},',
        '  "d": [],',
        '  "e": [{"f": null}, 2]',
        "}",
    ]
    for levels in range(5):
        assert json.loads(verdict_json.readable(value, levels=levels)) == value
    assert verdict_json.readable(value, levels=2).splitlines()[-5:] == [
        '  "e": [',
        '    {"f": null},',
        "    2",
        "  ]",
        "}",
    ]


def test_the_shipped_schema_is_the_one_that_is_written() -> None:
    """The file beside the module is what the code says; a changed schema is a reviewed diff."""
    assert json.loads(verdict_json.SCHEMA_FILE.read_text(encoding="utf-8")) == verdict_json.schema()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """A run goes into the file and comes out equal, with nothing left beside it."""
    path = tmp_path / "out" / "verdict.json"
    told = run(record(), missing=(UNRUN,))
    verdict_json.write(path, told)
    assert verdict_json.read(path).model_dump() == {**told, "gate": None}
    assert [file.name for file in path.parent.iterdir()] == ["verdict.json"]


@pytest.mark.parametrize("field", ["task", "method", "concepts", "finetuning", "base", "after", "verdict", "reason"])
def test_every_promised_field_is_required(field: str, tmp_path: Path) -> None:
    """A cell that lacks a field is not written."""
    cell = record()
    del cell[field]
    with pytest.raises(ValidationError):
        verdict_json.write(tmp_path / "verdict.json", run(cell))
    assert not list(tmp_path.iterdir())


def test_another_file_is_named_in_a_sentence(tmp_path: Path) -> None:
    """Reading what is not a verdict file says what is wrong where."""
    path = tmp_path / "verdict.json"
    with pytest.raises(UserError, match="There is no verdict file"):
        verdict_json.read(path)
    path.write_text(json.dumps({**run(), "schema_version": 1}), encoding="utf-8")
    with pytest.raises(UserError, match=r"has schema 1; this version reads schema 2\."):
        verdict_json.read(path)


def test_every_rate_of_a_cell_is_in_every_report() -> None:
    """A rate that is added to the schema is also in the tables, JUnit's properties and the CSV."""
    rates = {name for name, one in verdict_json.CellResult.model_fields.items() if "RateResult" in str(one.annotation)}
    assert rates == set(ARMS)
