"""The simulation of scale: nothing is built faster than it can be, and every number has a source."""

from __future__ import annotations

import csv

import pytest

from benchmarks.scale_simulation import TIMES, Assumed, Cells, longest_chain, plans, read_times, simulate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("sequential", [False, True])
def test_work_is_conserved_and_no_build_is_faster_than_its_longest_chain(sequential: bool) -> None:
    """One GPU takes the sum of the jobs; more take less, down to the longest chain and the cold start."""
    chosen = {"methods": ("uce", "esd"), "finetunings": ("lora", "full"), "runs": 1}
    own = plans(("copyright",), engine="sequential" if sequential else "fixed", **chosen)
    found = Cells(own, Assumed(read_times()), sequential=sequential)
    work, chain = sum(found.seconds.values()) / 3600, longest_chain(found)
    one, eight, many = (simulate(found, gpus) for gpus in (1, 8, 200))
    assert one.jobs == eight.jobs == many.jobs == len(found.seconds)
    assert work < one.hours < 1.1 * work
    assert one.hours / 8 < eight.hours < one.hours and many.hours <= 1.05 * eight.hours
    assert many.hours > chain
    assert 0 <= one.idle < 0.05 < many.idle < 1


def test_every_number_of_the_simulation_has_a_source() -> None:
    """Measured, computed or assumed, and says which."""
    with TIMES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["stage"] for row in rows}) == len(rows) > 20
    for row in rows:
        assert float(row["value"]) > 0
        assert row["source"].startswith(("half", "assumed", "computed", "as uce", "full, times")), row
