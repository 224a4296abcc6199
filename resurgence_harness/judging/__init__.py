"""One file per detector: what it looks for, with which weights, under which licence, and how often it errs."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.contract import NO_FACE, Calibration, Judge, accuracy_of
from resurgence_harness.judging.micro import MICRO_JUDGES, MicroJudge

JUDGES: dict[str, Judge] = {judge.name: judge for judge in MICRO_JUDGES}
"""Every judge by its name."""


def judge_by_name(name: str) -> Judge:
    """The judge of that name."""
    if name not in JUDGES:
        raise UserError(sentence(f'There is no judge "{name}".', known=", ".join(JUDGES), do="Name one of these."))
    return JUDGES[name]


__all__ = ["JUDGES", "NO_FACE", "Calibration", "Judge", "MicroJudge", "accuracy_of", "judge_by_name"]
