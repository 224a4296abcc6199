"""One file per detector: what it looks for, with which weights, under which licence, and how often it errs."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.contract import NO_FACE, Calibration, Judge, accuracy_of
from resurgence_harness.judging.either import Either
from resurgence_harness.judging.micro import MICRO_JUDGES, MicroJudge

HAZARD_OR_OBJECT = Either(
    name="hazard-or-object", first=MicroJudge(name="hazard"), second=MicroJudge(name="object"), nothing="harmless"
)
"""For the microworld's unsafe task: a warning sign wherever there is one, else the object."""

JUDGES: dict[str, Judge] = {judge.name: judge for judge in (*MICRO_JUDGES, HAZARD_OR_OBJECT)}
"""Every judge by its name."""


def judge_by_name(name: str) -> Judge:
    """The judge of that name."""
    if name not in JUDGES:
        raise UserError(sentence(f'There is no judge "{name}".', known=", ".join(JUDGES), do="Name one of these."))
    return JUDGES[name]


__all__ = [
    "HAZARD_OR_OBJECT",
    "JUDGES",
    "NO_FACE",
    "Calibration",
    "Either",
    "Judge",
    "MicroJudge",
    "accuracy_of",
    "judge_by_name",
]
