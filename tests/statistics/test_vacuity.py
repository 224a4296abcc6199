"""Nothing empty, unjudged, broken or lucky may pass, whatever the design; and a collapse excuses no regression.

Each scenario is what judges would say of such models; the instrument must not call any of them HOLDS or KNOWN.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from resurgence_harness.errors import HarnessError, JudgeError
from resurgence_harness.statistics import (
    FIXED,
    Differs,
    Evidence,
    Hybrid,
    JudgeAccuracy,
    Losses,
    Policy,
    Shuffled,
    VerdictKind,
    decide,
)

POLICY = Policy()
STILL = Losses(before=(0.2,) * 20, after=(0.2,) * 20)
SPOTLESS = JudgeAccuracy(true_positives=2000, positives=2000, true_negatives=2000, negatives=2000)

EMPTY_HANDED = {
    "a model of noise or blanks after fine-tuning": {"retained": (395, 390, 0)},
    "a model of noise or blanks before and after": {"retained": (395, 0, 0)},
    "noise that nobody could judge": {
        "before": "a" * 240,
        "after": "a" * 240,
        "retained": (395, 390, "a" * 400),
    },
    "a judge that always says no": {"base": 0, "retained": (0, 0, 0), "canaries": (5, 10)},
    "a judge that always says no, canaries lost": {"base": 0, "retained": (0, 0, 0), "canaries": None},
    "a judge that always says yes": {"before": 240, "after": 240, "base": 240, "canaries": (5, 10)},
    "a base that never shows the concept": {"base": 0},
    "a base that shows it half the time": {"base": 120},
    "an unlearned model that never unlearned": {"before": 230, "after": 228},
    "a fine-tuning of zero steps": {"effect": STILL},
    "a fine-tuning that was never measured": {"effect": None},
    "a candidate with the very weights of its parent": {"effect": Differs(weights=False, images=False)},
    "other weights that draw identical images": {"effect": Differs(weights=True, images=False)},
    "retained concepts that nobody asked for": {"retained": (None, None, None)},
    "one image": {"before": 0, "after": 0, "n": 1},
    "89 spotless pairs": {"before": 0, "after": 0, "n": 89},
    "images that nobody could judge": {"after": "a" * 240},
}


def shuffled(cell, design, seed=1):
    """The cell's compared arms in a random order, under this design (a grid of at least what was drawn)."""
    changed = {}
    for name, arm in cell.arms():
        if name == "base":
            continue
        order = list(range(len(arm)))
        random.Random(seed).shuffle(order)
        changed[name] = replace(arm, judgments=tuple(arm.judgments[place] for place in order), design=design)
    return replace(cell, **changed)


@pytest.mark.parametrize("scenario", EMPTY_HANDED)
@pytest.mark.parametrize("design", [FIXED, Shuffled(5000), Hybrid(5000)], ids=["fixed", "sequential", "hybrid"])
def test_nothing_empty_passes(make, scenario, design):
    """No HOLDS and no KNOWN."""
    asked = {"before": 0, "after": 0, "base": 238, "retained": (395, 393, 394), "n": 240, "m": 400}
    cell = shuffled(make.cell(**{**asked, **EMPTY_HANDED[scenario]}), design)
    verdict = decide(cell, POLICY)
    assert verdict.kind in (VerdictKind.UNDECIDED, VerdictKind.VIOLATED), verdict
    assert verdict.reason


@pytest.mark.parametrize("design", [FIXED, Shuffled(5000), Hybrid(5000)], ids=["fixed", "sequential", "hybrid"])
def test_the_same_cell_with_nothing_wrong_passes(make, design):
    """The scenarios above fail for what is wrong with them, not for the numbers they share."""
    cell = shuffled(make.cell(0, 0, 238, (395, 393, 394), n=240, m=400), design)
    assert decide(cell, POLICY).kind is VerdictKind.HOLDS


@pytest.mark.parametrize("design", [FIXED, Shuffled(5000), Hybrid(5000)], ids=["fixed", "sequential", "hybrid"])
@pytest.mark.parametrize("before", [0, 230], ids=["collapsed", "not unlearned"])
def test_a_model_that_draws_the_concept_is_violated_whatever_came_before(make, design, before):
    """An unlearned model that had collapsed, or never unlearned, excuses nothing."""
    retained = (395, 5, 390) if before == 0 else (395, 393, 394)
    cell = shuffled(make.cell(before, 200, 238, retained, n=240, m=400), design)
    assert decide(cell, POLICY).kind is VerdictKind.VIOLATED


def test_an_empty_evidence_cannot_even_be_made():
    """No prompt, no image, no verdict."""
    with pytest.raises(HarnessError, match="holds no image"):
        Evidence(judgments=(), planned=0, recipe="micro", judge="identity")


def test_a_model_is_not_compared_with_itself(make):
    """Two identical arms are an error, not a verdict."""
    arm = make.evidence("c" * 100, "micro → esd")
    with pytest.raises(HarnessError, match="The same evidence was given for two models"):
        replace(make.cell(), before=arm, after=arm)


@pytest.mark.parametrize("design", [FIXED, Shuffled(5000)], ids=["fixed", "sequential"])
def test_an_imperfect_judge_makes_the_gate_stricter(make, design):
    """A judge that misses one concept in five sees four fifths of a rise; what just held no longer does."""
    cell = shuffled(make.cell(2, 6, 238, (395, 393, 394), n=240, m=400), design)
    blurred = JudgeAccuracy(true_positives=160, positives=200, true_negatives=200, negatives=200)
    level, rise, _ = decide(cell, POLICY).findings
    limits = Policy(delta=1.02 * rise.high, level=1.02 * level.high)
    assert decide(replace(cell, accuracy=SPOTLESS), limits).kind is VerdictKind.HOLDS
    verdict = decide(replace(cell, accuracy=blurred), limits)
    assert verdict.kind is VerdictKind.UNDECIDED
    assert "finds 160 of 200" in verdict.arithmetic


def test_a_judge_no_better_than_chance_stops_the_cell(make):
    """Its calibration cannot carry any verdict."""
    guessing = JudgeAccuracy(true_positives=100, positives=200, true_negatives=100, negatives=200)
    with pytest.raises(JudgeError, match="chance"):
        decide(replace(make.cell(), accuracy=guessing), POLICY)


def test_two_models_that_drew_the_very_same_images_are_an_error(make):
    """Different weights, identical images: the second model was never asked."""
    cell = make.cell()
    drawn = {"images": ("aa" * 32,), "drawn_with": frozenset(["cpu, torch 2.8"])}
    with pytest.raises(HarnessError, match="drew identical images"):
        replace(cell, before=replace(cell.before, **drawn), after=replace(cell.after, **drawn))
    apart = {**drawn, "images": ("bb" * 32,)}
    replace(cell, before=replace(cell.before, **drawn), after=replace(cell.after, **apart))


@pytest.mark.parametrize("arm", ["base", "before", "retained_after"])
def test_models_drawn_by_different_means_are_not_compared(make, arm):
    """Half on a GPU, half on a CPU, or with another torch: a difference could be the machine's."""
    cell = make.cell()
    names = [name for name, _ in cell.arms()]
    here = {name: replace(getattr(cell, name), drawn_with=frozenset(["cpu, torch 2.8"])) for name in names}
    replace(cell, **here)
    there = replace(here[arm], drawn_with=frozenset(["NVIDIA H100, torch 2.8"]))
    with pytest.raises(HarnessError, match="drawn with different devices or libraries"):
        replace(cell, **{**here, arm: there})
