"""The contract of every judge: image → answer and score, with a calibration as counts.

A judge is a small frozen value (`name`, `version`, `digest`) that can be created without torch; its weights are read
when it judges its first picture. A hit is an answer that stands for the prompted concept (`shows`); an answer in
`ABSTENTIONS` is never a hit and never clear. Adding a judge takes one file in this folder, one entry in
`judging/__init__.py` and a row in tests/judging/test_contract.py; `resurgence_harness.testing.check_judge` tests any
judge against this contract, including those of other packages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from resurgence_harness.errors import JudgeError, UserError, sentence
from resurgence_harness.judging.declaring import check_declared, labels_of
from resurgence_harness.specs import not_in_key
from resurgence_harness.statistics import JudgeAccuracy

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.judging.weights import Weights

NO_FACE = "no face"
"""The answer of a judge that detects nothing it could name: abstained, never clear."""
UNKNOWN = "nobody it knows"
"""The answer of a judge that detects somebody, or something, but cannot name it: abstained, never clear."""
ABSTENTIONS = frozenset({NO_FACE, UNKNOWN})


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Counts on held-out pictures whose content is known. JudgeError if they are empty or contradict each other."""

    recognised: int
    """Pictures of a subject that were given its name."""
    subjects: int
    """Pictures of a subject."""
    false_alarms: int
    """Pictures of anything else that were given a subject's name."""
    others: int
    """Pictures of anything else."""
    judge: str = not_in_key("")
    """Digest of the judge whose answers were counted; empty if not recorded. Counts of another judge are refused
    (`calibration_of`)."""

    def __post_init__(self) -> None:
        if not (0 <= self.recognised <= self.subjects and 0 <= self.false_alarms <= self.others):
            raise JudgeError(sentence("A calibration's counts contradict each other.", counts=self))
        if not self.subjects or not self.others:
            raise JudgeError(sentence("A calibration lacks pictures of subjects, or of anything else.", counts=self))

    @property
    def counts(self) -> dict[str, int]:
        """The four counts by name, without the judge's digest."""
        return {name: getattr(self, name) for name in ("recognised", "subjects", "false_alarms", "others")}


class Judge(Protocol):
    """The contract; every member must be declared. `answer` may be called with any number of images and must answer
    each once, in order.

    `labels` and `shows` decide what counts as a hit, so `digest` or `version` must cover them.
    """

    @property
    def name(self) -> str:
        """The judge's name in reports."""

    @property
    def version(self) -> int:
        """To be increased when the meaning of its answers changes."""

    @property
    def digest(self) -> str:
        """sha256 of everything that its answers depend on: weights, and labels, prompts or rules that users may set.

        `digest_of_fields` computes one from a judge's fields.
        """

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer that it can give; any other is an error. Abstentions may be left out."""

    @property
    def given(self) -> tuple[Weights, ...]:
        """The weights that the user must provide, checked before images are sampled; () for none."""

    def shows(self, answer: str) -> tuple[str, ...]:
        """The concepts that one of its labels stands for: `(answer,)` if labels are names of concepts."""

    def check(self, names: Sequence[str]) -> None:
        """Raise if the judge cannot detect these concepts, for example because files are missing or unusable."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The answer and its score (finite, 0 … 1) for each image, uint8 [n, h, w, 3]."""

    def calibration(self) -> dict[str, Calibration]:
        """Counts of its answers on held-out pictures, by kind of picture; without any it gives no verdict.

        Stored counts carry the digest of the judge that gave the answers: `Calibration(…, judge=…)`.
        """

    def canaries(self) -> tuple[int, int]:
        """(answered correctly, total) of stored known positives and negatives."""


def shown_by(judge: Judge, answer: str) -> tuple[str, ...]:
    """The concepts that an answer stands for; none for an abstention. UserError if `shows` returns no tuple."""
    if answer in ABSTENTIONS:
        return ()
    shown = judge.shows(answer)
    if not isinstance(shown, tuple | list):
        raise UserError(
            sentence(
                f"Judge {judge.name} does not return a tuple from shows().",
                answer=repr(answer),
                shows=repr(shown),
                do="Return a tuple of concept names: (answer,), with the comma; () for an answer that stands for none.",
            )
        )
    return tuple(shown)


def ask(judge: Judge, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
    """The judge's answers and scores, one each per image.

    JudgeError for too few or too many of them, or a score that is not finite; UserError for an undeclared answer.
    """
    labels = labels_of(judge)
    answers, scores = judge.answer(images, device)
    if not len(answers) == len(scores) == len(images):
        raise JudgeError(
            sentence(
                f"{judge.name} did not answer every image once.",
                images=len(images),
                answers=len(answers),
                scores=len(scores),
            )
        )
    if odd := [float(score) for score in scores if not math.isfinite(score)]:
        raise JudgeError(
            sentence(
                f"Judge {judge.name} gave the score {odd[0]}.",
                images=f"{len(odd)} of {len(images)}",
                do="A score that is not a number is no evidence; check the judge's weights and the images.",
            )
        )
    if strange := sorted(map(str, set(answers) - {*labels, *ABSTENTIONS})):
        raise UserError(
            sentence(
                f"Judge {judge.name} gave an answer outside its labels.",
                answer=repr(strange[0]),
                labels=f"{len(labels)}: {', '.join(map(str, labels[:8]))}{' …' if len(labels) > 8 else ''}",
                do="An undeclared answer would count as clear; correct the judge or its labels.",
            )
        )
    return answers, scores


def check_ready(judge: Judge, names: Sequence[str] = ()) -> None:
    """Raise before any image is drawn if the judge could not judge: no calibration, missing or changed weights.

    `names`: the concepts that it must be able to detect.
    """
    check_declared(judge)
    for weights in judge.given:
        weights.verified()
    judge.check(names)
    check_names(judge, names)
    accuracy_of(judge)


def check_different(judges: Sequence[Judge]) -> None:
    """UserError if two judges have the same name or digest: a judge always agrees with itself."""
    names, digests = {judge.name for judge in judges}, {judge.digest for judge in judges}
    if len(names) < len(judges) or len(digests) < len(judges):
        raise UserError(
            sentence(
                "The second judge is the first one again, which always agrees with itself.",
                judges=", ".join(judge.name for judge in judges),
                do="Give one judge, or two different ones.",
            )
        )


def check_names(judge: Judge, names: Sequence[str]) -> None:
    """UserError for a concept that no declared answer stands for: it could never be a hit, which would look safe."""
    shown = {concept for label in labels_of(judge) for concept in shown_by(judge, label)}
    if unknown := [name for name in names if name not in shown]:
        raise UserError(
            sentence(
                f'Judge {judge.name} has no answer for "{unknown[0]}", so it could never detect its return.',
                unknown=f"{len(unknown)} of {len(names)}: {', '.join(unknown[:8])}{' …' if len(unknown) > 8 else ''}",
                do="Use a judge whose answers stand for every concept of the task, or name the concepts as it does.",
            )
        )


def check_images(images: np.ndarray, *, judge: str) -> None:
    """JudgeError unless these are images uint8 [n, h, w, 3] with n ≥ 1."""
    shape, kind = getattr(images, "shape", None), str(getattr(images, "dtype", type(images).__name__))
    if shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape or kind != "uint8":
        raise JudgeError(
            sentence(
                f"The input of judge {judge} is not a batch of images.",
                got=f"{kind} {shape}",
                expected="uint8 (n, height, width, 3), n at least 1",
                do="Give images with 8 bits per channel, 0 to 255; they are not converted here.",
            )
        )


def accuracy_of(judge: Judge) -> JudgeAccuracy:
    """A judge's error rates, from the kind of known pictures with the lowest sensitivity + specificity.

    JudgeError without a calibration: its errors would be ignored.
    """
    counted = calibration_of(judge)
    if not counted:
        raise JudgeError(
            sentence(
                f"Judge {judge.name} has no calibration.",
                do="Give it calibration(): counts of its answers on held-out pictures whose content is known.",
            )
        )
    accuracies = [JudgeAccuracy.of_counts(**counts.counts) for counts in counted.values()]
    return min(accuracies, key=lambda accuracy: accuracy.sensitivity + accuracy.specificity)


def calibration_of(judge: Judge) -> dict[str, Calibration]:
    """A judge's counts; UserError if they are not counts, or belong to another judge."""
    counted = judge.calibration() if hasattr(judge, "calibration") else {}
    if not isinstance(counted, dict) or not all(isinstance(one, Calibration) for one in counted.values()):
        raise UserError(
            sentence(
                f"The calibration of judge {judge.name} is not a table of counts.",
                got=repr(counted)[:80],
                do='Return {"kind of picture": Calibration(recognised=…, subjects=…, false_alarms=…, others=…)}.',
            )
        )
    for kind, counts in counted.items():
        if counts.judge and counts.judge != judge.digest:
            raise UserError(
                sentence(
                    f"The calibration of judge {judge.name} counts the answers of another judge.",
                    kind=kind,
                    counted=counts.judge,
                    this_judge=judge.digest,
                    do="Count this judge's own answers: judging.calibrate(judge, known).",
                )
            )
    return counted
