"""The heat map: every image of the record's counts, once."""

from __future__ import annotations

import re

from resurgence_harness.reporting import heat_map
from resurgence_harness.statistics import confusion as counts
from tests.reporting.records import record
from tests.statistics.conftest import Make, letters


def test_confusion_counts_every_image_once() -> None:
    """As asked, an erased concept by its name, another, abstained: each row sums to the images asked for."""
    evidence = Make().evidence("hhhhh" + "c" * 5 + "a" * 5 + "i" * 5, "micro", kind="retained", concepts=5)
    found = heat_map.confusion(counts(evidence), evidence, named=["erased 0", "erased 1"])
    assert found.answers == ("as asked", "erased 0", "another", "abstained")
    assert set(found.counts) == {(1, 1, 1, 1)} and len(found.asked) == 5
    few = heat_map.confusion(counts(evidence), evidence, named=["erased 0"], most=0)
    assert few.answers == ("as asked", "another", "abstained") and set(few.counts) == {(1, 2, 1)}


def test_the_heat_map_shows_all_and_the_first_rows() -> None:
    """Erased concepts that came back come first, retained ones that were lost; a row for all of them before."""
    evidence = Make().cell(after=letters(30, 120), retained=(380, 376, "h" * 300 + "i" * 100))
    told = heat_map.heat_map(record(confusion={name: counts(arm) for name, arm in evidence.arms()}), evidence)
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>.*?</tr>", told)]
    assert rows[1] == ["all", "10", "30", "90", "0"] and rows[2][:3] == ["erased", "9", "3"]
    assert ["all", "10", "300", "100", "0", "0"] in rows
