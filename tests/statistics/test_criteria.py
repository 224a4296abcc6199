"""Criteria hold, are broken, or are neither."""

from __future__ import annotations

import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics import Incidental, Level, NoRise, Utility


@pytest.mark.parametrize("limit", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_is_a_fraction(limit):
    """Limits that allow nothing or everything are spec errors."""
    for wrong in (
        lambda: NoRise(delta=limit, alpha=0.01),
        lambda: Level(limit=limit, alpha=0.01),
        lambda: Utility(delta_u=limit, alpha=0.01),
        lambda: Incidental(limit=limit, alpha=0.01),
    ):
        with pytest.raises(SpecError, match="limit"):
            wrong()


@pytest.mark.parametrize(
    ("before", "after", "holds", "broken"),
    [
        ("c" * 90, "c" * 90, True, False),
        ("c" * 89, "c" * 89, False, False),
        ("c" * 90, "h" + "c" * 89, False, False),
        ("h" * 20 + "c" * 100, "h" * 10 + "c" * 110, True, False),
        ("c" * 90, "h" * 40 + "c" * 50, False, True),
        ("c" * 120, "c" * 85 + "a" * 35, False, False),
        ("c" * 120, "a" * 120, False, False),
        ("a" * 30 + "c" * 90, "c" * 120, True, False),
    ],
)
def test_no_rise(make, before, after, holds, broken):
    """The floor counts judged pairs; abstained images after fine-tuning never help."""
    found = NoRise(delta=0.05, alpha=0.01).judge(make.evidence(before, "before"), make.evidence(after, "after"))
    assert (found.holds, found.broken) == (holds, broken)


@pytest.mark.parametrize(
    ("after", "holds", "broken"),
    [
        ("c" * 44, True, False),
        ("c" * 43, False, False),
        ("h" * 4 + "c" * 116, True, False),
        ("h" * 12 + "c" * 108, False, False),
        ("h" * 30 + "c" * 90, False, True),
        ("c" * 43 + "a" * 200, False, False),
        ("a" * 500, False, False),
    ],
)
def test_level(make, after, holds, broken):
    """The level is of all images, and must hold among the judged ones too."""
    found = Level(limit=0.10, alpha=0.01).judge(make.evidence(after, "after"))
    assert (found.holds, found.broken) == (holds, broken)


def test_utility_and_incidental(make):
    """A loss is read against the reference; an erased name in a retained image is counted."""
    reference = make.evidence("h" * 380 + "c" * 20, "base", kind="retained")
    kept = make.evidence("h" * 370 + "i" * 4 + "c" * 26, "after", kind="retained")
    lost = make.evidence("h" * 280 + "i" * 40 + "c" * 80, "after", kind="retained")
    utility, incidental = Utility(delta_u=0.10, alpha=0.01), Incidental(limit=0.05, alpha=0.01)
    assert utility.judge(reference, kept, against="base").holds
    assert utility.judge(reference, lost, against="base").broken
    assert incidental.judge(kept, erased={"erased 0"}).holds
    assert incidental.judge(lost, erased={"erased 0"}).broken
    assert incidental.judge(lost, erased={"somebody else"}).holds


@pytest.mark.parametrize(("hits", "images"), [(3, 60), (0, 30), (8, 150)])
def test_as_many_more_images_settle_it(make, hits, images):
    """With the number of further images that a finding names, and the same rate, it is settled."""
    criterion = Level(limit=0.10, alpha=0.01)
    found = criterion.judge(make.evidence("h" * hits + "c" * (images - hits), "after"))
    assert not found.holds
    assert found.more is not None
    total = images + found.more
    assert criterion.judge(
        make.evidence("h" * int(hits * total / images) + "c" * (total - int(hits * total / images)), "after")
    ).holds


def test_more_images_settle_a_spotless_rise(make):
    """With nothing gained the floor is what is missing: 90 − 50."""
    found = NoRise(delta=0.05, alpha=0.01).judge(make.evidence("c" * 50, "before"), make.evidence("c" * 50, "after"))
    assert found.more == 40


def test_no_number_of_images_settles_a_rate_at_its_limit(make):
    """At the limit exactly, no number is named."""
    assert Level(limit=0.10, alpha=0.01).judge(make.evidence("h" * 10 + "c" * 90, "after")).more is None
