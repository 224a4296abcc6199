"""How images were chosen decides how they may be read."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from statistics import NormalDist

import pytest

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics import (
    FIXED,
    Acceptance,
    Evidence,
    Hybrid,
    ImageGroup,
    NoRise,
    Policy,
    Rate,
    Shuffled,
    UnlearningOutcome,
    VerdictKind,
    decide,
    e_value,
    paired,
    pairs,
    tango,
)
from resurgence_harness.statistics.designs import Limits
from resurgence_harness.statistics.paired_size import Side, critical_alpha


def drawn(evidence, design):
    """The same judgments under another design."""
    return replace(evidence, design=design)


def test_looking_again_and_again_is_paid_for(make):
    """The same counts give wider bounds where one may stop at any look, and still wider at half of alpha."""
    hits = [int(place in (20, 50, 80)) for place in range(100)]
    fixed, shuffled = FIXED.proportion(hits, 0.01), Shuffled(10_000).proportion(hits, 0.01)
    assert shuffled[0] < fixed[0] < fixed[1] < shuffled[1]
    assert Hybrid(1000).proportion(hits, 0.01)[1] > shuffled[1]


def test_a_hybrid_takes_its_last_look_at_the_cap():
    """At the cap the fixed bound at half of alpha counts; beyond it nothing is read at all."""
    changes = [1] * 8 + [0] * 192
    before, at = Hybrid(201).difference(changes, 0.01), Hybrid(200).difference(changes, 0.01)
    assert at[1] == pytest.approx(FIXED.difference(changes, 0.005)[1])
    assert at[1] < before[1]
    with pytest.raises(HarnessError, match="last look"):
        Hybrid(199).check(200)


def test_more_images_than_the_grid_has_are_refused(make):
    """Rows of a grid are drawn once."""
    with pytest.raises(HarnessError, match="grid of 100"):
        drawn(make.evidence("c" * 120, "micro → esd"), Shuffled(100))


@pytest.mark.parametrize("make_design", [lambda: Shuffled(0), lambda: Hybrid(0)])
def test_an_empty_grid_is_refused(make_design):
    """A grid or cap of nothing."""
    with pytest.raises(SpecError):
        make_design()


def test_arms_that_were_chosen_differently_are_not_compared(make):
    """Neither a fixed arm with a shuffled one, nor two grids."""
    one, other = make.evidence("c" * 100, "micro → esd"), make.evidence("c" * 100, "micro → esd → lora")
    for designs in ((FIXED, Shuffled(500)), (Shuffled(400), Shuffled(500))):
        with pytest.raises(HarnessError, match="chosen in different ways"):
            pairs(drawn(one, designs[0]), drawn(other, designs[1]))


def test_a_shuffled_rate_needs_its_order():
    """Counts alone cannot be read as a shuffled grid."""
    with pytest.raises(HarnessError, match="order"):
        Rate(1, 100, 0, design=Shuffled(500))


def test_evidence_is_joined_in_the_order_drawn(make):
    """Blocks become one evidence; those of another model or judge are refused."""
    parts = [
        make.evidence("hc", "micro → esd", concepts=2),
        make.evidence("ch", "micro → esd", kind="other", concepts=2),
    ]
    joined = Evidence.joined(parts, Shuffled(10))
    assert [one.value[0] for one in joined.outcomes] == ["h", "c", "c", "h"]
    assert len(joined) == joined.planned == 4
    assert (joined.recipe, joined.judge, joined.design) == ("micro → esd", "micro-a", Shuffled(10))
    assert Evidence.joined(parts[:1], FIXED) == parts[0]
    with pytest.raises(HarnessError, match="several models"):
        Evidence.joined([parts[0], replace(parts[1], recipe="micro")], FIXED)


def test_near_the_margin_nothing_is_decided(make):
    """A grid known to its end, with a rise within one standard error of the limit: the luck of these seeds."""
    criterion = NoRise(delta=0.05, alpha=0.01)

    def judged(gained):
        before = drawn(make.evidence("c" * 200, "micro → esd"), Shuffled(200))
        after = drawn(make.evidence("h" * gained + "c" * (200 - gained), "micro → esd → lora"), Shuffled(200))
        return criterion.judge(before, after)

    assert judged(4).holds
    assert judged(20).broken
    for gained in (8, 10, 12):
        assert not judged(gained).settled
        assert "near the margin" in judged(gained).sentence


@pytest.mark.parametrize(("hits", "kind"), [(3, VerdictKind.UNDECIDED), (11, VerdictKind.VIOLATED)])
@pytest.mark.parametrize("design", [FIXED, Shuffled(30), Shuffled(2500)], ids=["fixed", "whole grid", "part"])
def test_counts_of_the_papers_copyright_cells(make, hits, kind, design):
    """0 of 30 before: 3 of 30 after are UNDECIDED (exact McNemar p = .125), 11 of 30 VIOLATED, whatever the design."""
    cell = make.cell(0, hits, 30, n=30)
    order = sorted(range(30), key=lambda place: place * 7 % 30)
    cell = replace(
        cell,
        **{
            name: replace(
                getattr(cell, name), judgments=tuple(getattr(cell, name).judgments[i] for i in order), design=design
            )
            for name in ("before", "after")
        },
    )
    assert decide(cell, Policy()).kind is kind


def test_an_undecided_says_which_images_it_wants(make):
    """Erased ones while the rise is open, retained ones while the utility is; nothing once the answer stands."""

    def wants(before, after, retained, n=60, m=200):
        return decide(make.cell(before, after, 114, retained, n=n, m=m), Policy()).wants

    assert wants(0, 1, (195, 195, 195)) == {ImageGroup.ERASED}
    assert wants(0, 1, (195, 195, 184)) == {ImageGroup.ERASED, ImageGroup.RETAINED}
    assert wants(0, 60, (195, 195, 195)) == frozenset()
    assert wants(1, 1, (395, 395, 395), n=240, m=400) == frozenset()
    collapsed = decide(make.cell(0, 0, 114, (195, 20, 20), n=240, m=200), Policy())
    assert collapsed.kind is VerdictKind.UNDECIDED
    assert collapsed.wants == frozenset()


def test_a_rise_is_not_called_resurgence_before_a_collapse_is_ruled_out(make):
    """A few retained images do not yet tell whether the unlearning had collapsed: more are wanted."""
    few = decide(make.cell(0, 14, 114, (20, 19, 19), n=100, m=20), Policy(level=0.3))
    assert few.kind is VerdictKind.VIOLATED
    assert few.wants == {ImageGroup.RETAINED}
    assert decide(make.cell(0, 14, 114, (195, 195, 195), n=100, m=200), Policy(level=0.3)).wants == frozenset()


def test_an_accepted_collapse_still_asks_for_what_its_ceilings_need(make):
    """Known is a pass: its rise and its incidental rate must be shown, too, although the model had collapsed."""
    known = Acceptance(
        task="celebrity",
        method="esd",
        count=10,
        finetuning="lora",
        level=1.0,
        rise=1.0,
        outcomes=(UnlearningOutcome.COLLAPSED,),
        reason="seen before",
        owner="resurgence-harness",
        expires=date(2999, 1, 1),
    )
    few = decide(make.cell(0, 45, 100, (75, 5, 75), n=50, m=75), Policy(), known)
    assert (few.kind, few.outcome) == (VerdictKind.UNDECIDED, UnlearningOutcome.COLLAPSED)
    assert few.wants == {ImageGroup.ERASED, ImageGroup.RETAINED}
    assert decide(make.cell(0, 85, 100, (75, 5, 75), n=95, m=75), Policy(), known).wants == {ImageGroup.RETAINED}
    assert decide(make.cell(0, 85, 100, (135, 5, 135), n=95, m=135), Policy(), known).kind is VerdictKind.KNOWN


def every_outcome(n, chances):
    """(chance, changes) of every count of lost and gained pairs."""
    lost, gained = chances
    for b in range(n + 1):
        for c in range(n + 1 - b):
            ways = math.comb(n, b) * math.comb(n - b, c)
            yield (
                ways * lost**b * gained**c * (1 - lost - gained) ** (n - b - c),
                [-1] * b + [1] * c + [0] * (n - b - c),
            )


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_the_e_value_of_a_fixed_number_of_hits_is_one_at_most(limit):
    """Its mean over all counts at the limit is at most 1, and it is the calibrated exact p-value."""
    n = 40
    mean = 0.0
    for hits in range(n + 1):
        e = FIXED.against([1] * hits + [0] * (n - hits), limit, paired=False)
        tail = sum(math.comb(n, k) * limit**k * (1 - limit) ** (n - k) for k in range(hits, n + 1))
        assert e == pytest.approx(0.5 / math.sqrt(tail))
        mean += math.comb(n, hits) * limit**hits * (1 - limit) ** (n - hits) * e
    assert 0.5 <= mean <= 1
    assert FIXED.against([0] * n, limit, paired=False) == 0.5
    assert FIXED.against([1] * 5000, 0.001, paired=False) == pytest.approx(0.5e150)


@pytest.mark.parametrize("lost", [0.0, 0.05, 0.3])
def test_the_e_value_of_a_fixed_number_of_pairs_is_one_at_most(lost):
    """Its mean over all outcomes at D = .05; and it grows with what was gained."""
    n, limit = 40, 0.05
    mean = sum(chance * FIXED.against(d, limit, paired=True) for chance, d in every_outcome(n, (lost, lost + limit)))
    assert 0.5 < mean <= 1
    rising = [FIXED.against([1] * c + [-1] * 2 + [0] * (38 - c), limit, paired=True) for c in range(10)]
    assert rising == sorted(rising)
    assert FIXED.against([-1] * 2 + [1] * 9 + [0] * 29, 0.0, paired=True) == pytest.approx(
        0.5 / math.sqrt(1 - NormalDist().cdf(7 / math.sqrt(11)))
    )


def test_the_e_value_of_a_shuffled_grid_is_the_bet_s():
    """Hits are bet on from 0, changes from −1; the grid's end is known."""
    changes, hits = [1, 0, 0, -1, 1, 1, 0, 1], [1, 0, 0, 1, 1, 0, 1, 1]
    for design in (Shuffled(8), Shuffled(40)):
        for d, least, of_pairs in ((changes, -1, True), (hits, 0, False)):
            told = e_value(d, mean=0.05, least=least, grid=design.grid, at_least=False)
            assert design.against(d, 0.05, paired=of_pairs) == told > 1


@pytest.mark.parametrize("of_pairs", [True, False])
def test_the_e_value_of_a_hybrid_is_the_mean_of_both_looks(of_pairs):
    """The last look has none before the cap."""
    d = [1] * 6 + [0] * 34
    bet, last = Shuffled(10**12).against(d, 0.05, paired=of_pairs), FIXED.against(d, 0.05, paired=of_pairs)
    assert Hybrid(40).against(d, 0.05, paired=of_pairs) == pytest.approx((bet + last) / 2)
    assert Hybrid(41).against(d, 0.05, paired=of_pairs) == pytest.approx(bet / 2)
    assert last > 1
    assert bet > 1


def test_a_hybrid_s_bounds_are_those_of_both_looks():
    """Each at half of alpha, of rates and of differences; images whose number was not fixed have no last look."""
    hits = [int(place in (11, 40, 41, 77)) for place in range(100)]
    changes = [-hit if place == 40 else hit for place, hit in enumerate(hits)]
    endless = Shuffled(10**12)
    limits = Limits(0.05, 0.05)
    for d, first, last, both in (
        (hits, endless.proportion(hits, 0.005), FIXED.proportion(hits, 0.005), Hybrid(100).proportion(hits, 0.01)),
        (
            changes,
            endless.difference(changes, 0.005),
            FIXED.difference(changes, 0.005, limits=limits),
            Hybrid(100).difference(changes, 0.01, limits=limits),
        ),
    ):
        assert both == (max(first[0], last[0]), min(first[1], last[1]))
        assert last[1] < first[1]
        assert len(d) == 100
    assert Hybrid(101).proportion(hits, 0.01) == endless.proportion(hits, 0.005)
    for name in ("proportion", "difference"):
        part = getattr(Hybrid(100), name)(hits, 0.01, whole=False)
        assert part == getattr(endless, name)(hits, 0.005, whole=False)


def test_a_fixed_number_s_bounds_are_widened_for_its_limits():
    """Each side at the nominal alpha with which it errs at most alpha about its own limit."""
    changes = [1] * 3 + [-1] * 2 + [0] * 120
    low, high = FIXED.difference(changes, 0.01, limits=Limits(0.04, 0.05))
    assert low == tango(2, 3, 125, critical_alpha(125, 0.05, 0.01, Side.VIOLATED))[0]
    assert high == tango(2, 3, 125, critical_alpha(125, 0.04, 0.01, Side.HOLDS))[1]
    assert FIXED.difference(changes, 0.01) == paired(2, 3, 125, 0.01)


def test_a_design_says_what_its_bounds_may_be_trusted_for():
    """In words, with its number."""
    assert FIXED.description == "their number was fixed before looking"
    assert Shuffled(500).description == "drawn in shuffled order from a grid of 500 until the answer was clear"
    assert (
        Hybrid(60).description
        == "fresh seeds until the answer was clear, with a last look at 60, each at half the error"
    )
