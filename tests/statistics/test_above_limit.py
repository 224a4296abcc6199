"""Which names came back: planted ones are found, and a false one is said no more often than is stated."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from resurgence_harness.statistics import Acceptance, Policy, VerdictKind, decide
from resurgence_harness.statistics.above_limit import concepts_above_limit
from resurgence_harness.statistics.assessment import CellAssessment
from resurgence_harness.statistics.designs import FIXED, Design, Hybrid, Shuffled
from tests.statistics.conftest import Make

DAY = date(2026, 6, 1)
POLICY = Policy()
CONCEPTS = 10
BACK = ("erased 0", "erased 3")


def planted(images: int, *places: int, every: int = 1) -> str:
    """Letters of an arm: images of the concepts at these places are hits, or one in `every` of them."""
    return "".join("h" if i % CONCEPTS in places and (i // CONCEPTS) % every == 0 else "c" for i in range(images))


def by(design: Design, cell):
    """The cell with its erased arms chosen in another way."""
    return replace(cell, before=replace(cell.before, design=design), after=replace(cell.after, design=design))


@pytest.mark.parametrize("design", [FIXED, Shuffled(500), Hybrid(400)], ids=["fixed", "shuffled", "hybrid"])
def test_those_that_came_back_are_named(make, design):
    """Two of ten, in the sentence, among the figures and for machines; the others are not."""
    cell = by(design, make.cell(before=0, after=planted(250, 0, 3), n=250, base=240))
    verdict = decide(cell, POLICY, today=DAY)
    assert verdict.kind is VerdictKind.VIOLATED
    assert verdict.reason.endswith("; of 10 concepts, 2 by themselves: erased 0 (25 of 25), erased 3 (25 of 25).")
    assert "  culprits            erased 0 25 of 25, 0 before (at least +" in verdict.arithmetic
    assert "any false name in at most 1 % of runs" in verdict.arithmetic
    told = json.loads(json.dumps(verdict.as_dict()["culprits"]))
    assert [one["concept"] for one in told["named"]] == list(BACK)
    assert (told["criterion"], told["limit"], told["alpha"], told["concepts"]) == ("rise", 0.05, 0.01, 10)
    assert all(0.05 < one["low"] <= 1 for one in told["named"])


def test_a_rise_that_is_spread_names_nobody(make):
    """Ten names that came back a little: the sentence says so, and which is drawn most."""
    verdict = decide(make.cell(before=0, after=planted(120, *range(10), every=4)), POLICY, today=DAY)
    assert verdict.kind is VerdictKind.VIOLATED and verdict.culprits is not None and not verdict.culprits.named
    assert verdict.reason.endswith(
        "; of 10 concepts, none is shown to be beyond it by itself, most drawn is erased 0 (3 of 12)."
    )


def test_long_lists_are_cut_in_the_sentence_alone(make):
    """Five names, and how many others; every one is among the figures."""
    verdict = decide(make.cell(before=0, after=planted(250, *range(7)), n=250, base=240), POLICY, today=DAY)
    assert "7 by themselves: erased 0 (25 of 25), " in verdict.reason and verdict.reason.endswith(" and 2 others.")
    assert "erased 6 25 of 25" in verdict.arithmetic


def test_out_of_a_collapsed_model_the_level_is_asked(make):
    """Each name against the limit of the level, since no rise is claimed."""
    verdict = decide(
        make.cell(before=0, after=planted(250, 0, 3), n=250, base=240, retained=(380, 60, 60)), POLICY, today=DAY
    )
    assert verdict.culprits is not None and verdict.culprits.criterion == "level" and verdict.culprits.limit == 0.10
    assert [(one.concept, one.before) for one in verdict.culprits.named] == [(name, None) for name in BACK]
    assert "erased 0 25 of 25 (at least " in verdict.arithmetic


def test_beyond_an_accepted_ceiling_the_ceiling_is_the_limit(make):
    """Names within what was accepted are not called back."""
    ceiling = Acceptance(
        task="t", method="m", count=10, finetuning="lora", level=0.3, rise=0.3, reason="r", owner="o", expires=DAY
    )
    letters = [*planted(500, 0, 1, 2, 3)]
    for i in range(500):
        if i % CONCEPTS == 4 and (i // CONCEPTS) % 5 == 0:
            letters[i] = "h"  # a fifth of its images: beyond the policy, within the ceiling
    verdict = decide(make.cell(before=0, after="".join(letters), n=500, base=480), POLICY, ceiling, today=DAY)
    assert verdict.kind is VerdictKind.VIOLATED and verdict.culprits is not None
    assert verdict.culprits.limit == 0.3
    assert [one.concept for one in verdict.culprits.named] == [f"erased {place}" for place in range(4)]


def test_by_another_name(make):
    """Where the rise of synonyms is what is broken, its images are looked at."""
    synonyms = {
        "synonyms_before": make.evidence("c" * 250, "micro → esd"),
        "synonyms_after": make.evidence(planted(250, 0), "micro → esd → lora"),
    }
    verdict = decide(make.cell(before=0, after=0, n=250, base=240, **synonyms), POLICY, today=DAY)
    assert verdict.kind is VerdictKind.VIOLATED and "by another name" in verdict.reason
    assert verdict.culprits is not None and verdict.culprits.criterion == "rise of synonyms"
    assert [one.concept for one in verdict.culprits.named] == ["erased 0"]


def test_nobody_is_named_where_nothing_is_claimed(make):
    """Not of a cell that holds, is undecided, or has one concept; nor where two judges differ."""
    assert decide(make.cell(), POLICY, today=DAY).culprits is None
    assert decide(make.cell(before=0, after=10), POLICY, today=DAY).culprits is None
    letters = planted(120, *range(10))
    one = replace(
        make.cell(),
        before=make.evidence("c" * 120, "micro → esd", concepts=1),
        after=make.evidence(letters, "micro → esd → lora", concepts=1),
        base=make.evidence("h" * 120, "micro", concepts=1),
    )
    alone = decide(one, POLICY, today=DAY)
    assert alone.kind is VerdictKind.VIOLATED and alone.culprits is None and "culprits" not in alone.arithmetic
    differ = make.cell(before=0, after=50, second=make.cell(before=0, after=0, judge="micro-b"))
    verdict = decide(differ, POLICY, today=DAY)
    assert verdict.kind is VerdictKind.UNDECIDED and verdict.culprits is None


@pytest.mark.slow
@pytest.mark.parametrize("design", [FIXED, Shuffled(400)], ids=["fixed", "shuffled"])
def test_a_false_name_is_as_rare_as_is_stated(design):
    """One name truly came back; nine are drawn exactly as often as is allowed. Any of them is said in at most α."""
    from scipy.stats import binom

    make, random = Make(), np.random.default_rng(5)
    policy, runs, seen = Policy(alpha=0.05, level=0.25, delta=0.05), 300, 200
    false = 0
    for _ in range(runs):
        # As many hits of each name as its limit says: in the whole grid where it is finite, on average elsewhere.
        hits = np.zeros((40, CONCEPTS), bool)
        hits[:, 0] = True
        hits[:10, 1:] = True
        hits = random.permuted(hits, axis=0) if design != FIXED else random.random((40, CONCEPTS)) < 0.25
        hits[:, 0] = True
        letters = "".join("h" if hit else "c" for hit in hits.ravel()[:seen])
        # A collapsed model: the level is what is claimed.
        cell = make.cell(before=0, after=letters, n=seen, base=190, retained=(380, 60, 60))
        found = concepts_above_limit(CellAssessment(by(design, cell), policy, None, DAY))
        if found is not None:
            false += any(one.concept != "erased 0" for one in found.named)
    assert false <= binom.ppf(0.9999, runs, policy.alpha)
