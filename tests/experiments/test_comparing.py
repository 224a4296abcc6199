"""What is said of rows beside the published figures."""

from __future__ import annotations

import pytest

from resurgence_harness.experiments import comparing, figures, measuring

EMPTY = dict.fromkeys(measuring.COLUMNS, "")


def row(method: str, before: int, after: int, **other: str) -> measuring.Row:
    """A row of 100 images before and after."""
    asked = {"experiment": "table-1", "task": "celebrity", "method": method, "concepts": "10", "finetuning": "lora"}
    counts = {"before_hits": str(before), "before_images": "100", "after_hits": str(after), "after_images": "100"}
    return {**EMPTY, **asked, "run": "0", "benign_images": "100", "steps": "100", **counts, "verdict": "HOLDS", **other}


def test_runs_are_told_by_median_and_largest_deviation() -> None:
    """As the published ± is, which is no standard deviation."""
    spread = comparing.spread([row("esd", 0, after) for after in (10, 30, 90)], "after")
    assert spread == pytest.approx((0.3, 0.6, 0.1, 0.9))
    assert str(spread) == "30.0 ± 60.0"
    assert comparing.spread([row("esd", 0, 1)], "synonyms_after") is None


def test_table_1_is_met_cell_by_cell() -> None:
    """Every cell that the paper has a number for: all but SDD on unsafe concepts."""
    rows = [
        {**row(method, 1, 2), "task": task}
        for task in ("celebrity", "copyright", "object", "unsafe")
        for method in comparing.NAMES.values()
    ]
    found = comparing.against_table_1(rows)
    assert len(found) == 27 and ("unsafe", "sdd") not in {(one.task, one.method) for one in found}
    esd = next(one for one in found if (one.task, one.method) == ("celebrity", "esd"))
    assert esd.published == (0.144, 0.950) and esd.ours == (0.01, 0.02)


def test_the_order_of_methods_is_compared() -> None:
    """+1 where the methods stand in the paper's order; nothing is said of constant figures."""
    order = ("uce", "mace", "erasediff", "shs", "salun", "esd", "sdd")
    rows = [row(method, 0, 10 * place) for place, method in enumerate(order)]
    by_rate, _ = comparing.rank_correlation(comparing.against_table_1(rows)) or (0, 0)
    assert by_rate == pytest.approx(1)
    assert comparing.rank_correlation(comparing.against_table_1([row(one, 0, 5) for one in order])) is None
    assert "Spearman" in comparing.render(comparing.against_table_1(rows))


def test_steps_to_resurgence_are_the_first_beyond_the_limit() -> None:
    """Over saved steps; none is told, not guessed."""
    curve = {5: 2, 20: 9, 100: 30}
    rows = [row("esd", 2, after, steps=str(steps)) for steps, after in curve.items()]
    rows += [row("mace", 2, 3, steps=str(steps)) for steps in curve]
    found = comparing.steps_to_resurgence(rows, delta=0.05)
    assert found == [("esd", "10", "100", "20"), ("mace", "10", "100", "none")]
    assert figures.curves("Appendix J", rows).axes
