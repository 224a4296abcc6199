"""A life in the reports: which stage brought what back, the curve, and the numbers behind it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydantic import ValidationError

from resurgence_harness.reporting import figures, lives, terminal, verdict_json
from resurgence_harness.reporting.palette import save
from tests.reporting.records import rate, record, run

MODEL = {"recipe": "micro → uce", "key": "k", "digest": "d"}
LEVEL = {"name": "level", "limit": 0.1}


def stage(number: int, step: str, hits: int | None, **other: Any) -> dict[str, Any]:
    """One stage with this many hits in 150 images of what was erased so far."""
    return {
        "stage": number,
        "step": step,
        "kind": "fine-tuning",
        "erases": [],
        "erased": None if hits is None else rate(hits),
        "waiting": None,
        "retained": rate(140),
        "state": None if hits is None else "within" if hits < 5 else "above",
        "not_erased": False,
        "came_back": False,
        "drawn": {},
        "model": MODEL,
        **other,
    }


BACK = [
    stage(1, "lora", None, waiting=rate(149)),
    stage(2, "uce", 0, kind="unlearning", erases=["Ada", "Ben"], waiting=rate(148)),
    stage(3, "lora", 60, came_back=True, drawn={"Ada": [10, 75], "Ben": [50, 75]}),
    stage(4, "esd", 90, kind="unlearning", erases=["Cy"], not_erased=True, drawn={"Ben": [40, 50], "Cy": [50, 50]}),
    stage(5, "full", 92, drawn={"Ada": [42, 50], "Ben": [45, 50], "Cy": [50, 50]}),
]
QUIET = [stage(1, "uce", 0, kind="unlearning", erases=["Ada"]), stage(2, "lora", 1), stage(3, "full", 8, state="open")]


def cell(name: str = "yearly-3-full", stages: list[dict[str, Any]] | None = None, **other: Any) -> dict[str, Any]:
    """A record of a cell with stages."""
    return record(name, by_stage=BACK if stages is None else stages, findings=[LEVEL], **other)


def test_the_summary_says_what_happened_at_which_stage() -> None:
    """What came back with the concepts seen most, what was not erased; nothing for an ordinary cell."""
    assert lives.summary(cell()) == (
        "above 10.0 %: came back at stage 3 of 5 (lora): Ben in 50 of 75, Ada in 10 of 75; "
        "not erased by stage 4 of 5 (esd): Cy in 50 of 50"
    )
    assert lives.summary(record()) == "" and lives.section(record()) == ""


def test_nothing_shown_is_not_said_to_be_safe() -> None:
    """Stages that neither side is shown of are counted apart from those within the limit."""
    assert lives.summary(cell(stages=QUIET)).startswith(
        "2 of 3 stages from the first erasure on are shown to be within"
    )
    assert lives.summary(cell(stages=QUIET[:2])).startswith("all 2 stages")


def test_the_terminal_has_a_line_for_each_life() -> None:
    """Cells without stages have none."""
    (line,) = terminal.staged([record(), cell()])
    assert terminal.plain([line]).startswith("yearly-3-full  above 10.0 %: came back at stage 3 of 5 (lora)")


def test_the_page_has_the_figure_and_every_stage() -> None:
    """A row per stage; a stage without an erased concept has no rate."""
    told = lives.section(cell())
    assert told.count("data:image/svg+xml;base64,") == 1 and told.count("<tr") == 1 + len(BACK)
    assert "came back" in told and "not erased" in told and "98 %" in told


def test_a_panel_shows_both_curves_and_the_limit() -> None:
    """The erased rate from the first erasure on, with its band; the retained one everywhere."""
    (axes,) = lives.figure([cell()]).axes
    erased, limit, retained = axes.get_lines()
    assert list(erased.get_xdata()) == [2, 3, 4, 5] and list(retained.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(erased.get_ydata()) == [100 * one["erased"]["rate"] for one in BACK[1:]]
    assert limit.get_ydata()[0] == 10
    (band,) = axes.collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert (3.0, 100 * BACK[2]["erased"]["low"]) in corners and (3.0, 100 * BACK[2]["erased"]["high"]) in corners
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 lora", "2 uce", "3 lora", "4 esd", "5 full"]


def test_a_run_has_sheets_of_lives() -> None:
    """Only of cells with stages; older files have no such field."""
    many = [cell(f"life-{count}-full") for count in range(1, lives.PANELS + 2)]
    older = record()
    del older["by_stage"]
    names = [name for name, _ in figures.figures(run(older, *many)) if name.startswith("stages")]
    assert names == ["stages-celebrity-full-1", "stages-celebrity-full-2"]
    out = io.BytesIO()
    save(lives.figure(many[:2]), out, kind="svg")
    assert "life-2-full: VIOLATED" in out.getvalue().decode()


def test_stages_are_part_of_the_schema() -> None:
    """A record with stages is valid; an unknown field in a stage is not."""
    read = verdict_json.CellResult.model_validate(cell())
    assert [one.stage for one in read.by_stage] == [1, 2, 3, 4, 5]
    assert read.by_stage[2].drawn == {"Ada": (10, 75), "Ben": (50, 75)}
    with pytest.raises(ValidationError, match="surprise"):
        verdict_json.CellResult.model_validate(cell(stages=[stage(1, "uce", 0, surprise=1)]))
