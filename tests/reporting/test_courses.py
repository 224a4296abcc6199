"""The curve along a fine-tuning: every point with its interval, readable by itself."""

from __future__ import annotations

import io
from typing import Any

from resurgence_harness.reporting import courses, figures
from resurgence_harness.reporting.palette import save
from tests.reporting.records import rate, record, run

POINTS = [{"step": step, **rate(hits)} for step, hits in ((0, 5), (10, 8), (50, 30), (200, 63))]
LEVEL = {"name": "level", "limit": 0.1}


def cell(name: str = "esd-10-lora", **other: Any) -> dict[str, Any]:
    """A record that was asked along its fine-tuning."""
    return record(name, by_step=POINTS, findings=[LEVEL], **other)


def test_a_panel_shows_points_band_base_and_limit() -> None:
    """What is drawn are the record's numbers in per cent; both axes say what they are."""
    drawn = courses.figure([cell()])
    (axes,) = drawn.axes
    line, limit, base = axes.get_lines()
    assert list(line.get_xdata()) == [0, 10, 50, 200]
    assert list(line.get_ydata()) == [100 * one["rate"] for one in POINTS]
    (band,) = axes.collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    for one in POINTS:
        assert {(one["step"], 100 * one["low"]), (one["step"], 100 * one["high"])} <= corners
    assert base.get_ydata()[0] == 100 * rate(143)["rate"] and limit.get_ydata()[0] == 10
    assert axes.get_title(loc="left") == "celebrity, esd-10-lora: VIOLATED"
    assert "steps" in drawn.get_supxlabel() and "%" in drawn.get_supylabel()


def test_the_page_has_the_figure_and_its_numbers() -> None:
    """Nothing for a cell that was not asked; else the picture, and every point as a row."""
    assert courses.section(record()) == ""
    told = courses.section(cell())
    assert told.count("data:image/svg+xml;base64,") == 1 and told.count("<tr") == 1 + len(POINTS)
    assert "<td>0 (unlearned)</td>" in told and "<td>200</td>" in told and "98 % interval" in told


def test_a_run_has_a_sheet_of_them() -> None:
    """Only cells that were asked; more than a sheet holds are on further sheets; the text of the SVG is text."""
    asked = [cell(f"esd-{count}-lora") for count in range(1, courses.PANELS + 2)]
    names = [name for name, _ in figures.figures(run(record(), *asked)) if name.startswith("steps")]
    assert names == ["steps-celebrity-lora-1", "steps-celebrity-lora-2"]
    assert not [name for name, _ in figures.figures(run(record())) if name.startswith("steps")]
    out = io.BytesIO()
    save(courses.figure(asked[:2]), out, kind="svg")
    assert "esd-2-lora: VIOLATED" in out.getvalue().decode()
