"""The reference data under reports/ are what their commands make of the runs."""

from __future__ import annotations

import csv

from benchmarks.outcomes import COUNTS, METHODS, REPORTS, outcomes, paper


def test_the_outcome_table_is_that_of_the_runs() -> None:
    """outcomes.csv follows from seven.csv, and has every method at every count before and after both fine-tunings."""
    with (REPORTS / "microworld" / "seven.csv").open() as file:
        found = outcomes(csv.DictReader(file))
    with (REPORTS / "microworld" / "outcomes.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [[f"{part:.4f}" if isinstance(part, float) else str(part) for part in one] for one in found] == [
        list(row.values()) for row in written
    ]
    assert len(found) == len(METHODS) * len(COUNTS) * 3
    for one in found:
        assert 0 <= one.lowest <= one.erased <= one.highest <= 1 and one.low < one.high


def test_the_papers_table_has_the_seven_methods() -> None:
    """Rates before and after, and nothing that fine-tuning lowers."""
    assert list(paper()) == list(METHODS)
    assert all(0 <= before <= after <= 1 for before, after in paper().values())
