"""The estimate of the remaining time: replayed real runs, and its parts on small ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.watching.forecast import Forecast, Group, Work

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.jsonl"))
HONEST = 0.2
"""Error of the estimated length of a run, as a share of its length, that is honest after its first tenth."""
MOMENTS = 0.8
"""Share of the moments at which it must be at most that. The runs were recorded on two cores whose load changed by a
factor of three meanwhile: 96, 96 and 83 %."""


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A recorded run: its facts and its events."""
    about, *events = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return about, events


def estimates(path: Path) -> Iterator[tuple[float, float | None]]:
    """(share of the run that is over, estimated length / true length) at two hundred moments."""
    about, events = read(path)
    forecast, length, place = Forecast(about["cells"], workers=about["workers"]), about["seconds"], 0
    for number in range(1, 200):
        now = length * number / 200
        while place < len(events) and events[place]["at"] <= now:
            forecast.apply(events[place])
            place += 1
        left = forecast.left(now)
        yield now / length, None if left is None else (now + left) / length


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_time_left_is_honest_after_the_first_tenth(path: Path) -> None:
    """Real runs from an empty store: within a fifth of their length at four of five moments, and never twice as far."""
    later = [estimate for share, estimate in estimates(path) if share >= 0.1]
    assert all(estimate is not None for estimate in later)
    errors = sorted(abs((estimate or 0) - 1) for estimate in later)
    assert errors[int(MOMENTS * len(errors))] <= HONEST, errors
    assert errors[-1] <= 2 * HONEST, errors[-10:]


def test_three_real_runs_are_recorded() -> None:
    """Of several processes and of one, with and without a regression."""
    facts = [read(path)[0] for path in RECORDED]
    assert len(facts) >= 3
    assert {about["workers"] for about in facts} >= {1, 2}
    assert {about["exit_code"] for about in facts} <= {0, 1, 10} and all(about["seconds"] > 60 for about in facts)


def plan(cell: str, *, fixed: list[Work], blocks: list[list[Work]] | None = None) -> dict[str, Any]:
    """The event of a planned cell."""
    return {"e": "plan", "t": 0.0, "w": "", "cell": cell, "fixed": fixed, "blocks": {"erased": blocks or []}}


def event(kind: str, t: float, w: str = "main", **about: Any) -> dict[str, Any]:
    """An event of a process."""
    return {"e": kind, "t": t, "w": w, **about}


DRAW = [Work(f"d{place}", "draw", 10, 1.0, False) for place in range(4)]
TRAIN = Work("t", "lora", 100, 10.0, False)


def test_work_that_was_never_measured_is_scaled_by_what_was() -> None:
    """Images that took five times the declared time: so will the training, until it has a pace of its own."""
    forecast = Forecast(["a"])
    forecast.apply(plan("a", fixed=[*DRAW[:2], TRAIN]))
    assert forecast.left(0.0) is None, "nothing is done"
    forecast.apply(event("cell", 0, cell="a"))
    for place in range(2):
        forecast.apply(event("begun", 5.0 * place, key=f"d{place}"))
        forecast.apply(event("made", 5.0 * place + 5, key=f"d{place}", group="draw", units=10, seconds=5.0))
    assert forecast.left(10.0) == pytest.approx(50.0)
    forecast.apply(event("begun", 10.0, key="t"))
    for done, t in ((0, 10.0), (10, 14.0), (50, 22.0)):  # setting up takes 2 s, then 0.2 s a step
        forecast.apply(event("doing", t, done=done, total=100))
    assert forecast.left(22.0) == pytest.approx(10.0)


def test_time_learned_in_the_store_is_not_scaled() -> None:
    """It was measured on this kind of device."""
    forecast = Forecast(["a"])
    forecast.apply(plan("a", fixed=[DRAW[0], TRAIN._replace(learned=True)]))
    forecast.apply(event("cell", 0, cell="a"))
    forecast.apply(event("begun", 0, key="d0"))
    forecast.apply(event("made", 5, key="d0", group="draw", units=10, seconds=5.0))
    assert forecast.left(5.0) == pytest.approx(10.0)


def test_an_artifact_of_two_cells_is_counted_once_and_two_processes_share_the_work() -> None:
    """Both cells need d0; the second one's own work runs beside the first one's."""
    forecast = Forecast(["a", "b"], workers=2)
    forecast.apply(plan("a", fixed=DRAW[:2]))
    forecast.apply(plan("b", fixed=[DRAW[0], DRAW[2]]))
    for name, worker in (("a", "gw0"), ("b", "gw1")):
        forecast.apply(event("cell", 0, worker, cell=name))
    forecast.apply(event("begun", 0, "gw0", key="d0"))
    forecast.apply(event("made", 1, "gw0", key="d0", group="draw", units=10, seconds=1.0))
    assert forecast.left(1.0) == pytest.approx(1.0)


def test_cells_that_were_not_planned_cost_the_average() -> None:
    """A marker's own recipe, or one of hundreds of cells: as much as those that were planned."""
    forecast = Forecast(["a", "b", "c"])
    forecast.apply(plan("a", fixed=DRAW[:2]))
    forecast.apply(event("cell", 0, cell="a"))
    forecast.apply(event("begun", 0, key="d0"))
    forecast.apply(event("made", 1, key="d0", group="draw", units=10, seconds=1.0))
    assert forecast.left(1.0) == pytest.approx(1 + 2 * 2)


def test_blocks_follow_the_looks() -> None:
    """Usual before the first look; then between the usual number and what would settle it; none once it is settled."""
    group = Group(blocks=[], usual=5)
    assert group.expected(1.0) == 5 and group.expected(1.4) == pytest.approx(7)
    group.asked, group.looks, group.more = 2, 2, 12
    assert 2 + 3 < group.expected(1.0) < 2 + 12
    group.more = 3
    assert group.expected(1.0) == pytest.approx(5)
    group.open = False
    assert group.expected(1.0) == 2


def test_finished_cells_correct_the_usual_number_of_blocks() -> None:
    """One cell took 8 blocks instead of 4: the next is expected to take 6, the mean of both."""
    forecast = Forecast(["a", "b"])
    forecast.apply(plan("a", fixed=[], blocks=[[work] for work in DRAW]))
    other = [[work._replace(key=f"e{place}")] for place, work in enumerate(DRAW)]
    forecast.apply(plan("b", fixed=[], blocks=other))
    forecast.apply(event("cell", 0, cell="a"))
    for place in range(8):
        forecast.apply(event("begun", place, key=f"d{place}"))
        forecast.apply(event("made", place + 1, key=f"d{place}", group="draw", units=10, seconds=1.0))
    forecast.apply(event("look", 8, cell="a", asked={"erased": 8}, more={}))
    forecast.apply(event("end", 8, cell="a", verdict="HOLDS"))
    assert forecast.left(8.0) == pytest.approx(6.0)


def test_a_failed_build_and_a_failed_cell_leave_nothing_behind() -> None:
    """A build that ended in an error has no event `made`; the cell's end clears it, and its work is no longer due."""
    forecast = Forecast(["a", "b"])
    forecast.apply(plan("a", fixed=[TRAIN]))
    forecast.apply(plan("b", fixed=DRAW[:2]))
    forecast.apply(event("cell", 0, cell="a"))
    forecast.apply(event("begun", 0, key="t"))
    forecast.apply(event("begun", 0, key="d0"))
    forecast.apply(event("made", 1, key="d0", group="draw", units=10, seconds=1.0))
    forecast.apply(event("end", 2, cell="a", verdict=""))
    assert forecast.left(2.0) == pytest.approx(1.0, rel=0.6)


def test_model_loading_and_reports_are_extrapolated_but_not_the_start() -> None:
    """Half of the time since the first build passed outside artifacts; the ten seconds before it do not count."""
    forecast = Forecast(["a"])
    forecast.apply(plan("a", fixed=DRAW))
    forecast.apply(event("cell", 0, cell="a"))
    forecast.apply(event("begun", 10, key="d0"))
    forecast.apply(event("made", 11, key="d0", group="draw", units=10, seconds=1.0))
    forecast.apply(event("begun", 12, key="d1"))
    forecast.apply(event("made", 13, key="d1", group="draw", units=10, seconds=1.0))
    assert forecast.left(14.0) == pytest.approx(2 * 2.0)
