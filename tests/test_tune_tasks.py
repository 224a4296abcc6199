"""The search for a task's own settings: whose concepts it touches, and what its rule chooses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.task_trials import FORGET_SEED, RETAIN_SEED, SEARCHES, TRAINING_SEED, TRIALS
from benchmarks.tune_tasks import COLUMNS, Trial, choose, others, planned, promoted, rows_of, unlearning
from resurgence_harness.presets import settings_for
from resurgence_harness.specs import Sampler
from resurgence_harness.tasks import TASKS

pytestmark = pytest.mark.slow

SAMPLER = Sampler(**settings_for("micro")["sampler"])
FIRST = SEARCHES["object"].first


@pytest.mark.parametrize("name", SEARCHES)
def test_roles_are_swapped(name: str) -> None:
    """Nothing that the suite holds out is watched; nothing that it erases is erased, but where all must be."""
    suite, search = TASKS[name], SEARCHES[name].task
    names = {role: {concept.name for concept in getattr(search, role)} for role in ("erasable", "preserve", "held_out")}
    assert not names["held_out"] & {concept.name for concept in suite.held_out}
    erased = {concept.name for concept in suite.erasable}
    if name == "unsafe":
        assert names["erasable"] == erased and not set(search.templates) & set(suite.templates)
    else:
        assert not names["erasable"] & erased
    for case in (SEARCHES[name].first, *SEARCHES[name].then):
        assert set(case.erased) <= names["erasable"] and case.seed >= TRAINING_SEED


def test_every_trial_makes_its_step_with_seeds_of_the_search() -> None:
    """All settings of all methods, in every case; no two are the same question."""
    trials = [
        trial._replace(case=case)
        for trial in planned(list(SEARCHES), list(TRIALS))
        for case in (trial.case, *others(trial.task, trial.method))
    ]
    steps = [unlearning(trial, SAMPLER) for trial in trials]
    assert len(set(map(repr, steps))) == len(steps) == len({trial.label for trial in trials})
    for step in steps:
        for field, first in (("forget", FORGET_SEED), ("retain", RETAIN_SEED)):
            if hasattr(step, field):
                assert min(getattr(step, field).seeds) == first


def written(file: Path, *found: tuple[int, tuple[int, int]]) -> Path:
    """A file with UCE's settings by place, each with (erased, retained) of 100 in the first case of objects."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for place, (erased, retained) in found:
            table.writerow([*Trial("object", "uce", place, FIRST).label, erased, 100, retained, 100, 100, 100, "1.0"])
    return file


def test_the_rule_takes_the_best_kept_of_those_that_meet_the_bar(tmp_path: Path) -> None:
    """More erased than 8 % never wins over a setting within the bars, whatever it keeps."""
    file = written(tmp_path / "t.csv", (0, (9, 100)), (1, (8, 86)), (2, (0, 85)), (3, (0, 10)))
    said = next(line for line in choose(rows_of(file)) if line.startswith("object uce"))
    assert repr(TRIALS["uce"]("object")[1]) in said and "meets the bar" in said
    assert [trial.settings for trial in promoted("object", "uce", rows_of(file))][:: len(others("object", "uce"))] == [
        TRIALS["uce"]("object")[place] for place in (1, 2, 0)
    ]


def test_where_none_meets_the_bar_it_is_said(tmp_path: Path) -> None:
    """The nearest is chosen and called missing; a diverged one is never nearer."""
    file = written(tmp_path / "t.csv", (0, (0, 60)), (1, (20, 95)))
    with file.open("a", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerow([*Trial("object", "uce", 2, FIRST).label, "It diverged.", "", "", "", 9, 9, "1.0"])
    said = next(line for line in choose(rows_of(file)) if line.startswith("object uce"))
    assert repr(TRIALS["uce"]("object")[1]) in said and "MISSES THE BAR by 0.12" in said
