"""Rows, and what is said of them."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest

from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.validation.report import COLUMNS, Must, Row, Unit, as_csv, as_text, folder, monte_carlo, passed

pytestmark = pytest.mark.slow

GOOD = Row("errors", "a", 0.004, Must.AT_MOST, 0.0233)
BAD = Row("errors", "b", 0.08, Must.AT_MOST, 0.0233)
CAUGHT = Row("wrong", "peeks", 0.08, Must.EXCEED, 0.0233)
MISSED = Row("wrong", "peeks", 0.01, Must.EXCEED, 0.0233)
TOLD = Row("cost", "c", 125.0, unit=Unit.PAIRS)
KNOWN = Row("tango", "125", 0.0242, Must.SHOULD, 0.01)


def test_what_passes():
    """Within what must be, beyond what must be caught; what is told or known decides nothing."""
    rows = (GOOD, BAD, CAUGHT, MISSED, TOLD, KNOWN, Row("p", "", 0.96, Must.AT_LEAST, 0.95))
    assert [row.passed for row in rows] == [True, False, True, False, None, None, True]
    assert passed([GOOD, CAUGHT, TOLD, KNOWN])
    assert not passed([GOOD, BAD])
    assert not passed([GOOD, MISSED])
    assert not passed([TOLD])
    assert not passed([])


def test_three_standard_errors():
    """Of an error of alpha over so many replicates."""
    assert monte_carlo(0.01, 500) == pytest.approx(0.0233, abs=5e-5)
    assert monte_carlo(0.01, 10_000) == pytest.approx(0.0130, abs=5e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Row("c", "s", math.nan, Must.AT_MOST, 1.0),
        lambda: Row("c", "s", 1.0, Must.AT_MOST),
        lambda: Row("c", "s", 1.0, allowed=1.0),
    ],
)
def test_a_number_that_cannot_be_judged_is_an_error(make):
    """NaN is not at most anything; a limit needs a sense."""
    with pytest.raises(HarnessError):
        make()


def test_the_csv():
    """One line per row, in the columns promised."""
    lines = list(csv.DictReader(io.StringIO(as_csv([GOOD, BAD, CAUGHT, TOLD, KNOWN]))))
    assert tuple(lines[0]) == COLUMNS
    assert lines[0] == {
        "check": "errors",
        "setting": "a",
        "value": "0.004",
        "allowed": "at most 0.0233",
        "passed": "yes",
    }
    assert [line["passed"] for line in lines] == ["yes", "NO", "yes", "", "known"]


def test_the_text():
    """Checks as headings, aligned, and the last line says it all."""
    text = as_text([GOOD, CAUGHT, TOLD, KNOWN])
    assert "0.40 %  at most 2.33 %" in text
    assert "125 pairs" in text
    assert "KNOWN   1 numbers" in text and "tango: 125: 2.42 %" in text
    assert text.splitlines()[-1] == "VALID: all 2 judged numbers are within what is allowed."
    text = as_text([GOOD, BAD, MISSED])
    assert "FAILED  errors: b" in text
    assert text.splitlines()[-1] == "NOT VALID: 2 of 3 judged numbers are outside what is allowed."


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path):
    """Before anything is measured."""
    (tmp_path / "file").write_text("x")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"):
            folder(wrong)
    assert folder(tmp_path / "new" / "one").is_dir()
