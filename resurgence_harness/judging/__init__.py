"""One file per detector: what it looks for, with which weights, under which licence, and how often it errs."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.calibrating import KnownPictures, calibrate, keep
from resurgence_harness.judging.clip import Clip, Embedder
from resurgence_harness.judging.clip_accuracy import ClipAccuracy
from resurgence_harness.judging.contract import (
    ABSTENTIONS,
    NO_FACE,
    UNKNOWN,
    Calibration,
    Judge,
    accuracy_of,
    ask,
    check_ready,
    shown_by,
)
from resurgence_harness.judging.enrolled import Enrolled, Enrolment, enrol
from resurgence_harness.judging.micro import MICRO_JUDGES, MicroJudge
from resurgence_harness.judging.q16 import Q16
from resurgence_harness.judging.weights import Weights
from resurgence_harness.tasks.microworld import OBJECTS

GIVEN: tuple[Judge, ...] = (ClipAccuracy(labels=tuple(OBJECTS)), Q16())
"""Judges for bases larger than the microworld, whose weights the user gives."""
JUDGES: dict[str, Judge] = {judge.name: judge for judge in (*MICRO_JUDGES, *GIVEN)}
"""Every judge by its name."""


def judge_by_name(name: str) -> Judge:
    """The judge of that name."""
    if name not in JUDGES:
        raise UserError(sentence(f'There is no judge "{name}".', known=", ".join(JUDGES), do="Name one of these."))
    return JUDGES[name]


__all__ = [
    "ABSTENTIONS",
    "GIVEN",
    "JUDGES",
    "NO_FACE",
    "Q16",
    "UNKNOWN",
    "Calibration",
    "Clip",
    "ClipAccuracy",
    "Embedder",
    "Enrolled",
    "Enrolment",
    "Judge",
    "KnownPictures",
    "MicroJudge",
    "Weights",
    "accuracy_of",
    "ask",
    "calibrate",
    "check_ready",
    "enrol",
    "judge_by_name",
    "keep",
    "shown_by",
]
