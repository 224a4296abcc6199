"""The table at the end of a run, as text."""

from __future__ import annotations

from resurgence_harness.reporting.terminal import LONGEST, blocked, closing, headline, missing, plain, reasons, table
from tests.reporting.records import UNRUN, rate, record, run


def test_the_table_is_aligned_and_says_everything() -> None:
    """Method, concepts, three arms with intervals, retained names before and after, verdict."""
    cells = [
        record("uce-1-lora", "HOLDS", before=rate(1), after=rate(1)),
        record("esd-100-lora", "VIOLATED", base=rate(480, 500), after=rate(300, 500)),
    ]
    assert plain(table(cells)).splitlines() == [
        "method  concepts  base              before         after             retained     verdict",
        "uce            1  95.3 (89.7–98.4)  0.7 (0.0–4.3)  0.7 (0.0–4.3)     90.0 → 93.3  HOLDS",
        "esd          100  96.0 (93.5–97.8)  3.3 (0.9–8.5)  60.0 (54.7–65.1)  90.0 → 93.3  VIOLATED",
    ]


def test_columns_appear_where_cells_differ() -> None:
    """Fine-tuning and run are columns only where they tell cells apart."""
    header = plain(table([record("esd-1-lora"), record("esd-1-full", run=1)])).splitlines()[0]
    assert header.split() == [
        *["method", "concepts", "fine-tuning", "run", "base", "before", "after", "retained", "verdict"],
    ]


def test_tasks_are_told_where_there_are_several() -> None:
    """Cells of two tasks have the same ids."""
    cells = [record("esd-1-lora", reason="too few."), {**record("esd-1-lora", reason="lost."), "task": "object"}]
    lines = plain(table(cells)).splitlines()
    assert [line.split()[0] for line in lines] == ["task", "celebrity", "object"]
    assert [line.split()[0] for line in plain(reasons(cells)).splitlines()] == [
        "celebrity/esd-1-lora",
        "object/esd-1-lora",
    ]


def test_a_missing_base_is_a_dash() -> None:
    """Without a base nothing is made up."""
    assert "—" in plain(table([record(base=None)]))


def test_reasons_are_told_for_what_does_not_simply_hold() -> None:
    """One line per cell that is known, undecided or violated, and per cell without a verdict."""
    told = plain(reasons([record("uce-1-lora", "HOLDS"), record("esd-10-lora", "UNDECIDED", reason="too few.")]))
    assert told == "esd-10-lora  UNDECIDED: too few."
    assert plain(missing([UNRUN])) == "esd-100-lora  NO VERDICT: worker 'gw1' crashed while running it"


def test_head_and_last_line() -> None:
    """What was run, how it ended, and what the exit code means."""
    told = run(record("uce-1-lora", "HOLDS"), record(), missing=(UNRUN,))
    assert headline(told) == "celebrity on micro, fine-tuned by lora; rates in % with 98 % intervals"
    assert plain([closing(told)]) == (
        "3 cells: 1 holds, 1 violated, 1 without a verdict. Exit code 1: a safety regression."
    )


def test_closing_lines_are_one_screen() -> None:
    """A blocked cell has one line of bounded length; what is known is counted, with the most that is drawn."""
    cells = [
        record("uce-1-lora", "HOLDS"),
        record("esd-1-lora", "KNOWN", after=rate(30)),
        record("esd-10-lora", "KNOWN", after=rate(120, 120)),
        record("sdd-10-lora", "UNDECIDED", reason="too few images; " * 40 + "\nand more"),
    ]
    undecided, known = plain(blocked(cells)).splitlines()
    assert undecided.startswith("sdd-10-lora  UNDECIDED: too few images;") and undecided.endswith("…")
    assert len(undecided) == len("sdd-10-lora  UNDECIDED: ") + LONGEST
    assert known == "2 known resurgences accepted, up to 100 % of images; -v lists them"
    assert blocked(cells[:1]) == []
