"""The steps of a fine-tuning against the limit: planted ones are found, false ones named as rarely as stated."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics import (
    Acceptance,
    Evidence,
    Policy,
    Rate,
    Shuffled,
    VerdictKind,
    along_steps,
    decide,
    with_steps,
)
from resurgence_harness.statistics.along_steps import CRITERIA
from resurgence_harness.statistics.designs import FIXED, Design
from tests.statistics.conftest import Make, letters

DAY = date(2026, 6, 1)
POLICY = Policy()


def at(make: Make, hits: int, images: int = 120, judge: str = "micro-a") -> Evidence:
    """The evidence of a checkpoint on the way."""
    return make.evidence(letters(hits, images), "micro → esd → lora", judge=judge)


def found_in(make: Make, *hits: int, claims: int = 0, **cell: object):
    """The steps 10, 20, … with these hits of 120 images each; the last is the cell's own."""
    *before, last = hits
    evidence = make.cell(before=0, after=last, **cell)  # type: ignore[arg-type]
    by_step = {10 * (place + 1): (at(make, count),) for place, count in enumerate(before)}
    by_step[10 * len(hits)] = (evidence.after,)
    along = along_steps(evidence, by_step, POLICY, claims=claims or len(hits), today=DAY)
    return along, with_steps(decide(evidence, POLICY, today=DAY), along)


def test_the_first_step_beyond_the_limit_is_named_with_its_interval(make: Make) -> None:
    """40 of 120 at step 20: the figures are those of the rate at the shared alpha, and a machine can read them."""
    along, verdict = found_in(make, 0, 40, 60)
    assert along.first is not None and along.first.step == 20
    low, high = Rate(40, 120, 0).interval(POLICY.alpha / (CRITERIA * 3))
    assert (along.first.passed.low, along.first.passed.high) == (low, high)
    assert (
        f"after 20 of 30 steps of the fine-tuning: the erased concept is drawn in 33.3 % of images ({100 * low:.1f}"
        in (along.sentence)
    )
    told = along.as_dict()
    assert told["first"] == 20 and [one["step"] for one in told["rates"]] == [0, 10, 20, 30]
    assert [one["passed"] is None for one in told["rates"]] == [True, True, False, False]
    assert verdict.kind is VerdictKind.VIOLATED and "the erased concept came back" in verdict.reason


def test_a_limit_that_is_passed_on_the_way_is_a_regression(make: Make) -> None:
    """The end holds, a step before it does not: never a pass; the reason has both."""
    along, verdict = found_in(make, 40, 0)
    assert along.first is not None and along.first.step == 10
    assert decide(make.cell(before=0, after=0), POLICY, today=DAY).kind is VerdictKind.HOLDS
    assert verdict.kind is VerdictKind.VIOLATED and verdict.wants == frozenset()
    assert (
        "after 10 of 20 steps" in verdict.reason and "at the end of the fine-tuning the cell is HOLDS" in verdict.reason
    )


def test_a_rise_counts_as_in_a_verdict(make: Make) -> None:
    """A rise under the level is named; out of a collapsed model it is not."""
    rising = make.cell(before=0, after=0, n=240, base=230)
    steps = {10: (at(make, 28, 240),), 20: (rising.after,)}
    along = along_steps(rising, steps, POLICY, claims=2, today=DAY)
    assert along.first is not None and along.first.passed is not None and along.first.passed.name == "rise"
    assert "has risen by +11.7 points" in along.sentence
    collapsed = make.cell(before=0, after=0, n=240, base=230, retained=(380, 60, 60))
    assert along_steps(collapsed, {**steps, 20: (collapsed.after,)}, POLICY, claims=2, today=DAY).first is None


def test_within_an_accepted_ceiling_nothing_is_named(make: Make) -> None:
    """The ceiling is the limit of every step."""
    ceiling = Acceptance(
        task="t", method="m", count=10, finetuning="lora", level=0.6, rise=0.6, reason="r", owner="o", expires=DAY
    )
    evidence = make.cell(before=0, after=40)
    steps = {10: (at(make, 40),), 20: (evidence.after,)}
    assert along_steps(evidence, steps, POLICY, ceiling, claims=2, today=DAY).first is None
    assert along_steps(evidence, steps, POLICY, claims=2, today=DAY).first is not None


def test_what_nobody_can_trust_names_nothing(make: Make) -> None:
    """Failed canaries or a control that was not run: UNDECIDED stays UNDECIDED."""
    for spoilt in ({"canaries": (30, 40)}, {"effect": None}):
        along, verdict = found_in(make, 60, 60, **spoilt)
        assert along.first is None and verdict.kind is VerdictKind.UNDECIDED


def test_two_judges_must_both_show_it(make: Make) -> None:
    """As for a verdict: one judge alone names no step."""
    second = make.cell(before=0, after=0, judge="micro-b")
    evidence = make.cell(before=0, after=0, second=second)
    last = (evidence.after, second.after)
    for hits, named in ((0, False), (40, True)):
        steps = {10: (at(make, 40), at(make, hits, judge="micro-b")), 20: last}
        along = along_steps(evidence, steps, POLICY, claims=2, today=DAY)
        assert (along.first is not None) is named
        verdict = with_steps(decide(evidence, POLICY, today=DAY), along)
        assert verdict.kind is (VerdictKind.VIOLATED if named else VerdictKind.HOLDS)


def test_steps_that_were_not_declared_are_refused(make: Make) -> None:
    """A family counted afterwards could shrink to the steps that look bad."""
    evidence = make.cell()
    with pytest.raises(SpecError, match="cannot be compared with the limit"):
        along_steps(evidence, {1: (at(make, 0),), 2: (evidence.after,)}, POLICY, claims=1, today=DAY)


@settings(max_examples=25, deadline=None)
@given(
    hits=st.lists(st.integers(0, 120), min_size=1, max_size=5),
    claims=st.integers(5, 40),
    more=st.integers(1, 40),
)
def test_the_first_is_the_first_of_those_whose_bound_is_beyond(hits: list[int], claims: int, more: int) -> None:
    """For any curve; sharing alpha among more claims never names a step that fewer did not, and widens intervals."""
    make = Make()
    evidence = make.cell(before=0, after=hits[-1])
    steps = {place + 1: (at(make, count),) for place, count in enumerate(hits[:-1])}
    steps[len(hits)] = (evidence.after,)
    few, many = (along_steps(evidence, steps, POLICY, claims=count, today=DAY) for count in (claims, claims + more))
    for along in (few, many):
        beyond = [one.step for one in along.rates if one.passed is not None]
        levels = [step for step, (arm,) in steps.items() if Rate.of(arm).interval(along.alpha)[0] > POLICY.level]
        assert set(levels) >= {one.step for one in along.rates if one.passed is not None and one.passed.name == "level"}
        assert (along.first.step if along.first is not None else None) == min(beyond, default=None)
        assert 0 not in beyond and along.alpha * along.claims * CRITERIA == pytest.approx(POLICY.alpha)
    names = [{one.step for one in along.rates if one.passed is not None} for along in (few, many)]
    assert names[1] <= names[0]
    for one, other in zip(few.rates, many.rates, strict=True):
        narrow, wide = one.rate.interval(few.alpha), other.rate.interval(many.alpha)
        assert wide[0] <= narrow[0] and narrow[1] <= wide[1]


@pytest.mark.slow
@pytest.mark.parametrize(("design", "runs"), [(FIXED, 200), (Shuffled(5000), 40)], ids=["fixed", "shuffled"])
def test_any_false_step_is_named_in_at_most_alpha_of_runs(make: Make, design: Design, runs: int) -> None:
    """Six steps, all exactly at the level, correlated through their noise; without sharing it would be several times
    alpha."""
    policy, steps, images = Policy(alpha=0.05, delta=0.3), 6, 120
    generator, wrong, unshared = np.random.default_rng(0), 0, 0
    evidence = make.cell(before=0, after=0, n=images, base=114)
    for _ in range(runs):
        common = generator.random(images)
        arms = []
        for _ in range(steps):
            own = np.where(generator.random(images) < 0.5, common, generator.random(images))
            drawn = "".join("h" if one < policy.level else "c" for one in own)
            arms.append(replace(make.evidence(drawn, "micro → esd → lora"), design=design))
        cell = replace(evidence, before=replace(evidence.before, design=design), after=arms[-1])
        cell = replace(cell, base=replace(evidence.base, design=design))
        by_step = {place + 1: (arm,) for place, arm in enumerate(arms)}
        wrong += along_steps(cell, by_step, policy, claims=steps, today=DAY).first is not None
        unshared += any(Rate.of(arm).interval(policy.alpha)[0] > policy.level for arm in arms)
    assert wrong / runs <= policy.alpha
    assert wrong <= unshared
