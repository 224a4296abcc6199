"""Every refusal of the statistics, as a user reads it: what was wrong with which value, and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from resurgence_harness.errors import ResurgenceError
from resurgence_harness.statistics import (
    FIXED,
    Acceptance,
    Evidence,
    Hybrid,
    Incidental,
    JudgeAccuracy,
    Judgment,
    Level,
    Losses,
    NoRise,
    Outcome,
    Policy,
    Rate,
    Shuffled,
    Utility,
    betting_bounds,
    check_paired,
    clopper_pearson,
    exit_code,
    mcnemar_exact,
    tango,
    zero_event_floor,
)
from resurgence_harness.statistics.judge_error import observed_delta
from resurgence_harness.statistics.multiplicity import (
    Family,
    every_cell,
    global_e_value,
    holm,
)
from resurgence_harness.statistics.paired_size import critical_alpha
from resurgence_harness.statistics.scopes import cluster_t

GOLDEN = Path(__file__).parent / "golden" / "refusals.txt"
NAN = float("nan")
PAIR = Family(cells=("a", "b"))
GOOD = JudgeAccuracy(true_positives=90, positives=100, true_negatives=95, negatives=100)
GUESSING = JudgeAccuracy(true_positives=10, positives=20, true_negatives=8, negatives=20)


def seen(**changes: Any) -> Judgment:
    """One ordinary judgment."""
    values = dict(concept="Ada", prompt="A sketch of Ada", seed=3, outcome=Outcome.CLEAR, score=0.5, answer="Ben")
    return Judgment(**{**values, **changes})


def evidence(*rows: Judgment, **changes: Any) -> Evidence:
    """These rows, all that were planned."""
    values = dict(judgments=rows, planned=len(rows), recipe="micro", judge="micro-a")
    return Evidence(**{**values, **changes})


def acceptance(**changes: Any) -> Acceptance:
    """An acceptance that says nothing yet."""
    values = dict(task="celebrity", method="esd", count=10, finetuning="lora", reason="known", owner="role")
    return Acceptance(**{**values, **changes})


def refusals(make: Any) -> dict[str, Callable[[], object]]:
    """What must be refused."""
    cell = make.cell()

    def other(**changes: Any) -> Callable[[], object]:
        return lambda: dataclasses.replace(cell, **changes)

    two = evidence(seen(), seen(seed=4))
    return {
        "losses of different images": lambda: Losses(before=(0.1, 0.2, 0.3), after=(0.1, 0.2)),
        "one loss": lambda: Losses(before=(0.1,), after=(0.2,)),
        "a loss that is no number": lambda: Losses(before=(0.1, NAN), after=(0.1, 0.2)),
        "a loss below zero": lambda: Losses(before=(0.1, 0.2), after=(0.1, -0.2)),
        "one evidence for two models": other(after=cell.before),
        "a base that is the candidate": other(base=cell.after),
        "a concept on both sides": other(
            base_retained=None, retained_before=None, retained_after=make.evidence("h" * 40, "tuned")
        ),
        "two judges in one cell": other(base=make.evidence("h" * 120, "micro", judge="micro-b")),
        "more canaries than there are": other(canaries=(41, 40)),
        "the same judge twice": other(second=make.cell()),
        "a second judge of other arms": other(second=make.cell(judge="micro-b", base=None)),
        "a second judge of other images": other(second=make.cell(judge="micro-b", n=130)),
        "an outcome in a loose word": lambda: seen(outcome="hit"),
        "a score that is no number": lambda: seen(score=NAN),
        "no image": lambda: evidence(planned=5),
        "no image was planned": lambda: evidence(seen(), planned=0),
        "a row is missing": lambda: evidence(seen(), planned=3),
        "rows too many": lambda: evidence(seen(), seen(seed=4), seen(seed=5), planned=1),
        "the same image twice": lambda: evidence(seen(seed=1), seen(), seen(score=0.7)),
        "joined models": lambda: Evidence.joined(
            [two, dataclasses.replace(two, recipe="micro → esd", judge="micro-b"), two], FIXED
        ),
        "arms drawn in different ways": lambda: check_paired(
            two, dataclasses.replace(two, recipe="micro → esd", design=Shuffled(9))
        ),
        "arms of different length": lambda: check_paired(two, evidence(seen(), recipe="micro → esd")),
        "arms of another order": lambda: check_paired(two, evidence(seen(), seen(seed=5), recipe="micro → esd")),
        "an empty grid": lambda: Shuffled(0),
        "more images than the grid has": lambda: evidence(seen(), seen(seed=4), design=Shuffled(1)),
        "a cap of nothing": lambda: Hybrid(0),
        "images beyond the cap": lambda: evidence(seen(), seen(seed=4), design=Hybrid(1)),
        "more outcomes than rows": lambda: betting_bounds((0, 1, 0), least=0, grid=2, alpha=0.01),
        "an outcome that is none": lambda: betting_bounds((0, 2), least=-1, grid=9, alpha=0.01),
        "alpha of one half": lambda: clopper_pearson(1, 9, 0.5),
        "more hits than images": lambda: clopper_pearson(4, 3, 0.01),
        "more discordant pairs than pairs": lambda: tango(2, 3, 4, 0.01),
        "a negative count": lambda: mcnemar_exact(2, -1),
        "a limit that leaves nothing": lambda: zero_event_floor(1.0, 0.01),
        "a rise that may be anything": lambda: NoRise(delta=1.0, alpha=0.01),
        "a level of nothing": lambda: Level(limit=0.0, alpha=0.01),
        "a loss that may be anything": lambda: Utility(delta_u=1.5, alpha=0.01),
        "an incidental limit that is no number": lambda: Incidental(limit=NAN, alpha=0.01),
        "more hits than judged": lambda: Rate(3, 2, 1),
        "a rate of nothing": lambda: Rate(0, 0, 0),
        "a shuffled rate without its order": lambda: Rate(1, 9, 0, design=Shuffled(20)),
        "a policy without a limit": lambda: Policy(delta_u=1.0),
        "a policy whose control needs no image": lambda: Policy(positive_images=0),
        "an acceptance beyond everything": lambda: acceptance(rise=1.01),
        "an acceptance by nobody": lambda: acceptance(level=0.5, owner=" "),
        "an acceptance without an end": lambda: acceptance(level=0.5),
        "an acceptance of nothing": lambda: acceptance(expires=date(2030, 1, 1)),
        "no pair": lambda: critical_alpha(0, 0.05, 0.01),
        "a calibration in fractions": lambda: dataclasses.replace(GOOD, negatives=100.5),
        "a calibration that contradicts itself": lambda: dataclasses.replace(GOOD, true_positives=101),
        "a calibration without the concept": lambda: dataclasses.replace(GOOD, true_positives=0, positives=0),
        "a limit of nothing behind a judge": lambda: observed_delta(0.0, GOOD, 0.01),
        "a judge not shown to see": lambda: observed_delta(0.05, GUESSING, 0.01),
        "a family of nobody": lambda: Family(cells=()),
        "a cell declared twice": lambda: Family(cells=("a", "b", "a")),
        "a cell that was not declared": lambda: holm({"a": 0.1, "d": 0.1, "c": 0.1}, PAIR, 0.01),
        "a cell that holds nearly": lambda: every_cell({"a": True, "b": 1.0}, PAIR),
        "a p-value above one": lambda: holm({"a": 1.5}, Family(cells=("a",)), 0.01),
        "an e-value below zero": lambda: global_e_value({"b": -1.0}, PAIR),
        "a cluster of one": lambda: cluster_t([0.1, 0.2], 0.01, fewest=1),
        "a difference above one": lambda: cluster_t([0.1, 1.2], 0.01, fewest=2),
        "too few clusters": lambda: cluster_t([0.1], 0.01, fewest=2),
        "a run that counts less than nothing": lambda: exit_code([], unrun=-1, harness_errors=2),
        "a run without cells": lambda: exit_code([]),
    }


def test_the_refusals_are_reviewed(make):
    """Each equals its golden text; remove the file to have it written anew, and read it as prose."""
    told = []
    for name, call in refusals(make).items():
        with pytest.raises(ResurgenceError) as error:
            call()
        told.append(f"[{name}: {type(error.value).__name__}]\n{error.value}\n")
    text = "\n".join(told)
    if not GOLDEN.exists():
        GOLDEN.write_text(text, encoding="utf-8")
        pytest.fail(f"{GOLDEN.name} was written; read it as prose, then run again")
    assert text == GOLDEN.read_text(encoding="utf-8")
