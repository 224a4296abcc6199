"""Criteria hold, are broken, or are neither."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics import FIXED, Incidental, Level, NoRise, Rate, Utility, clopper_pearson
from resurgence_harness.statistics.criteria import images_to_settle
from resurgence_harness.statistics.intervals import tango_z


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


@pytest.mark.parametrize("images", [1, 7, 100])
def test_the_number_that_settles_is_the_smallest(images):
    """Found to the image; never none, and None beyond a million."""
    for enough in (images, images + 1, images + 2, 3 * images, 1000, 1001, 400_000):
        found = images_to_settle(images, lambda scale, enough=enough: round(scale * images) >= enough)
        assert found == max(enough - images, 1)
    assert images_to_settle(images, lambda scale: scale * images > 1_000_000) is None
    assert images_to_settle(images, lambda scale: False) is None
    assert images_to_settle(15_625, lambda scale: scale >= 64) == 1_000_000 - 15_625


Z = NormalDist().inv_cdf(0.99)


def drawn_pairs(make, lost, gained, total):
    """Both arms with so many lost and gained hits."""
    rest = total - lost - gained
    return (
        make.evidence("h" * lost + "c" * gained + "c" * rest, "before"),
        make.evidence("c" * lost + "h" * gained + "c" * rest, "after"),
    )


@pytest.mark.parametrize(
    ("lost", "gained", "total"),
    [(0, 1, 90), (2, 3, 60), (6, 5, 100), (3, 0, 40), (1, 12, 100), (0, 6, 60), (2, 11, 90)],
)
def test_a_rise_settles_as_the_square_root_of_its_pairs(make, lost, gained, total):
    """The score grows with √scale, so (z / z_now)² times as many pairs settle it, on either side."""
    before, after = drawn_pairs(make, lost, gained, total)
    found = NoRise(delta=0.05, alpha=0.01).judge(before, after)
    assert not found.settled
    needed = total * (Z / tango_z(lost, gained, total, 0.05)) ** 2
    if gained == 0:
        needed = 89.05  # the exact bound of nothing gained needs less
    assert found.more == max(math.ceil(needed) - total, 1)
    utility = Utility(delta_u=0.05, alpha=0.01).judge(after, before, against="before")
    assert utility.more == found.more


@pytest.mark.parametrize(("hits", "images", "limit"), [(3, 60, 0.1), (0, 30, 0.1), (9, 60, 0.1), (2, 30, 0.05)])
def test_a_level_settles_with_the_first_number_that_is_enough(make, hits, images, limit):
    """By Clopper and Pearson's bounds of as many images at the same rate, continued to fractions of a hit."""
    from scipy.stats import beta

    found = Level(limit=limit, alpha=0.01).judge(make.evidence("h" * hits + "c" * (images - hits), "after"))
    assert found.more is not None

    def settled(total):
        k = hits * total / images
        low = beta.ppf(0.01, k, total - k + 1) if k else 0.0
        return low > limit or beta.ppf(0.99, k + 1, total - k) < limit

    assert settled(images + found.more)
    assert not settled(images + found.more - 1)


def test_abstained_images_take_longer_to_settle(make):
    """What holds must hold among the judged images too, so more are needed than if all could be judged."""
    judged = Level(limit=0.1, alpha=0.01).judge(make.evidence("h" + "c" * 59, "after"))
    unsure = Level(limit=0.1, alpha=0.01).judge(make.evidence("h" + "c" * 39 + "a" * 20, "after"))
    assert judged.more is not None
    assert unsure.more is not None
    assert unsure.more > judged.more
    assert unsure.images == 40
    assert unsure.high == pytest.approx(clopper_pearson(1, 40, 0.01)[1])
    assert ", 20 abstained" in unsure.sentence
    before = make.evidence("c" * 100, "before")
    rises = [
        NoRise(delta=0.05, alpha=0.01).judge(before, make.evidence(what, "after"))
        for what in ("c" * 100, "c" * 80 + "a" * 20, "c" * 85 + "a" * 15)
    ]
    assert [(found.images, found.holds, found.more) for found in rises] == [
        (100, True, None), (80, False, 13), (85, False, 6)
    ]  # fmt: skip


def test_a_judge_that_sees_less_must_see_a_smaller_rise(make):
    """What holds is held against trust times the limit; what is broken against the limit itself."""
    clear, one = make.evidence("c" * 120, "before"), make.evidence("h" + "c" * 119, "after")
    rate = Rate.of(one)
    high = FIXED.proportion([1] + [0] * 119, 0.01)[1]
    for trust in (1.0, 0.5):
        for limit, holds in ((1.02 * high / trust, True), (0.98 * high / trust, False)):
            assert Level(limit=limit, alpha=0.01, trust=trust).judge_rate(rate).holds is holds
            assert Incidental(limit=limit, alpha=0.01, trust=trust).judge(one, erased={"erased 0"}).holds is holds
    rise = NoRise(delta=0.3, alpha=0.01).judge(clear, one)
    assert rise.holds
    for criterion, seen in (
        (lambda trust: NoRise(delta=0.3, alpha=0.01, trust=trust), lambda it: it.judge(clear, one)),
        (
            lambda trust: Utility(delta_u=0.3, alpha=0.01, trust=trust),
            lambda it: it.judge(one, clear, against="before"),
        ),
    ):
        assert seen(criterion(0.9)).holds
        assert not seen(criterion(0.1)).holds
        assert not seen(criterion(0.1)).broken
    lost = make.evidence("h" * 60 + "c" * 60, "after")
    assert NoRise(delta=0.3, alpha=0.01, trust=0.5).judge(clear, lost).broken


def test_utility_is_told_as_a_change(make):
    """The figures are those of a change, so that a loss is negative; and a limit is the lowest change."""
    reference, after = drawn_pairs(make, 6, 2, 100)
    found = Utility(delta_u=0.10, alpha=0.01).judge(reference, after, against="base")
    rise = NoRise(delta=0.10, alpha=0.01).judge(after, reference)
    assert (found.estimate, found.low, found.high, found.limit) == (-rise.estimate, -rise.high, -rise.low, -0.10)
    assert found.estimate == pytest.approx(-0.04)
    assert found.name == "utility against base"
    assert found.shown is rise.shown
    assert found.sentence.startswith("−4.0 points (−")
    assert "limit −10.0; 2 gained and 6 lost of 100 pairs" in found.sentence
