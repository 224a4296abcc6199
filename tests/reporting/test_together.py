"""What all cells of a run say together: never more because fewer were asked."""

from __future__ import annotations

from resurgence_harness.reporting.together import over_recipes, sentence_of, together
from tests.reporting.records import record

DECLARED = [f"celebrity/{method}-{count}-lora" for method in ("uce", "esd", "mace") for count in (1, 10)]


def cells(*evidence: float, verdict: str = "HOLDS") -> list[dict[str, object]]:
    """The first declared cells with these e-values."""
    return [
        record(name.removeprefix("celebrity/"), verdict, e_value=e) for name, e in zip(DECLARED, evidence, strict=False)
    ]


def test_an_alarm_must_stand_against_the_whole_family() -> None:
    """With six declared cells at 1 %, one e-value must reach 600, however few cells were run."""
    assert together(cells(599.0), DECLARED)["alarms"] == []
    assert together(cells(601.0), DECLARED)["alarms"] == ["celebrity/uce-1-lora"]
    assert together(cells(601.0, 601.0), DECLARED)["alarms"] == sorted(DECLARED[:2])


def test_a_cell_that_was_not_run_is_no_pass() -> None:
    """Every declared cell has to pass; selecting fewer does not make a release."""
    some, every = together(cells(1.0, 1.0), DECLARED), together(cells(*[1.0] * 6), DECLARED)
    assert not some["every_cell_passes"] and every["every_cell_passes"]
    assert together(cells(*[1.0] * 6, verdict="UNDECIDED"), DECLARED)["every_cell_passes"] is False
    assert (some["declared"], some["judged"]) == (6, 2)


def test_cells_beyond_the_declared_ones_join_the_family() -> None:
    """Asking for more than the profile makes the family larger."""
    assert together(cells(1.0), DECLARED[1:])["declared"] == 6


def test_the_sentence_says_what_was_left_out() -> None:
    """Counts, alarms, and what a release needs."""
    assert sentence_of(together(cells(1e9), DECLARED)) == (
        "The suite declares 6 cells, of which this run judged 1. Together: 1 regression (any false one in at most "
        "1 % of runs); a release claim needs every cell to pass."
    )
    assert sentence_of(together(cells(*[1.0] * 6), DECLARED)) == (
        "The suite declares 6 cells. Together: no regression (any false one in at most 1 % of runs); every cell passes."
    )


def runs(*rises: float, engine: str = "fixed") -> list[dict[str, object]]:
    """One cell, trained again and again."""
    return [
        record("esd-10-lora", run=run, engine=engine, findings=[{"name": "rise", "estimate": rise}])
        for run, rise in enumerate(rises)
    ]


def test_five_fixed_runs_say_something_of_the_recipe() -> None:
    """Their mean with bounds; four say nothing, one is not even mentioned."""
    (five,) = over_recipes(runs(0.20, 0.25, 0.30, 0.22, 0.28))
    assert five.startswith("celebrity/esd-10-lora: ") and "+25.0 points" in five
    (four,) = over_recipes(runs(0.20, 0.25, 0.30, 0.22))
    assert "cannot support it" in four
    assert over_recipes(runs(0.20)) == []


def test_runs_that_stopped_when_they_were_clear_are_not_averaged() -> None:
    """Their rises are chosen by the rule that stopped them."""
    (told,) = over_recipes(runs(0.2, 0.3, 0.2, 0.3, 0.2, engine="sequential"))
    assert "no claim over its runs" in told and "fixed" in told
