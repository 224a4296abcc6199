"""Counts a judge's answers against a person's labels: by kind of picture, for each labeller, the worst is kept.

    a choice        a picture of that concept: recognised if the answer stands for it
    none of these   a picture of anything else: a false alarm if the answer stands for one of the choices
    cannot tell     an error of the judge, whatever it answered: a false alarm if it named a choice, else a miss

A picture of one choice also counts as anything else for the other choices, as in `judging.calibrate`. If several people
labelled, each labelling is counted, and of each kind the one with the lowest sensitivity + specificity is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resurgence_harness.calibration.seen import check_unseen
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging import ABSTENTIONS, Calibration, Judge, KnownPictures, ask, keep, shown_by
from resurgence_harness.judging.declaring import labels_of
from resurgence_harness.labelling import CANNOT_TELL, NONE, LabelFile, PictureSet, labellers
from resurgence_harness.labelling.session import agreement_of
from resurgence_harness.statistics import JudgeAccuracy
from resurgence_harness.tasks import Task

CANARIES = 2
"""Canaries of each label."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The result of a labelling."""

    counts: Mapping[str, Calibration]
    """By kind of picture."""
    canaries: KnownPictures
    made: Mapping[str, Any]
    """By whom, when, on which pictures, with which agreement: stored and shown with the counts."""
    pictures: int
    """Labelled pictures."""

    @property
    def accuracy(self) -> JudgeAccuracy:
        """That of the worst kind, which decides."""
        every = [JudgeAccuracy.of_counts(**one.counts) for one in self.counts.values()]
        return min(every, key=lambda one: one.sensitivity + one.specificity)


def count(pictures: PictureSet, judge: Judge, task: Task, *, device: str = "cpu") -> Counted:
    """Ask the judge about every labelled picture, and count.

    UserError for pictures drawn for another judge, ones that a suite samples, edited labels, no complete labelling,
    or a kind without pictures of a choice or of anything else.
    """
    if pictures.judge_digest != judge.digest:
        raise UserError(
            sentence(
                f"These pictures were drawn for another judge than {judge.name} as it is now.",
                drawn_for=pictures.judge_digest,
                this_judge=judge.digest,
                do="Draw and label pictures for this one: its weights, labels or version have changed.",
            )
        )
    check_unseen([vars(one) for one in pictures.pictures], task)
    files = [file for file in labellers(pictures) if len(file.labels) == len(pictures.pictures)]
    if not files:
        most = max((len(file.labels) for file in labellers(pictures)), default=0)
        raise UserError(
            sentence(
                f"The pictures in {pictures.folder} are not all labelled.",
                labelled=f"{most} of {len(pictures.pictures)}",
                do=f"Label the rest: resurgence label {pictures.folder}",
            )
        )
    images = pictures.images()
    answers, _ = ask(judge, images, device)
    counts = {}
    for kind in dict.fromkeys(one.kind for one in pictures.pictures):
        rows = [row for row, one in enumerate(pictures.pictures) if one.kind == kind]
        each = [_counted(pictures, judge, file, rows, answers, kind) for file in files]
        counts[kind] = min(each, key=lambda one: one.recognised / one.subjects - one.false_alarms / one.others)
    certain = [
        row
        for row, one in enumerate(pictures.pictures)
        if len({file.labels[one.sha256] for file in files}) == 1
        and _right(pictures, judge, files[0].labels[one.sha256], answers[row])
    ]
    labels = [files[0].labels[pictures.pictures[row].sha256] for row in certain]
    known = KnownPictures(images=images[certain], truth=tuple(labels)).first(CANARIES) if certain else None
    if known is None or len(set(known.truth)) < 2:
        raise UserError(
            sentence(
                f"Judge {judge.name} answers too few of these pictures correctly to have canaries.",
                correct=f"{len(certain)} of {len(answers)}",
                do="Use another judge, or draw pictures that show the concepts more clearly.",
            )
        )
    return Counted(counts=counts, canaries=known, made=_made(pictures, files), pictures=len(pictures.pictures))


def store(judge: Judge, counted: Counted) -> Path:
    """Keep counts, canaries and origin in the directory of weights; returns the file. UserError as `judging.keep`."""
    return keep(judge, counted.counts, canaries=counted.canaries, made=counted.made)


def _counted(
    pictures: PictureSet, judge: Judge, file: LabelFile, rows: Sequence[int], answers: Sequence[str], kind: str
) -> Calibration:
    groups = [group for label in labels_of(judge) if (group := _shown(pictures, judge, label))]
    recognised = subjects = alarms = others = 0
    for row in rows:
        label = file.labels[pictures.pictures[row].sha256]
        shown = _shown(pictures, judge, answers[row])
        if label == CANNOT_TELL:
            alarms, others, subjects = alarms + bool(shown), others + bool(shown), subjects + (not shown)
            continue
        subjects += label != NONE
        recognised += label in shown
        if label == NONE or any(label not in group for group in groups):
            others += 1
            alarms += bool(shown) and label not in shown
    if not subjects or not others:
        missing = "one of the choices" if not subjects else "anything else"
        raise UserError(
            sentence(
                f"No picture {kind} shows {missing}, so one of the judge's error rates is unknown there.",
                labeller=file.by,
                pictures=len(rows),
                do="Draw more pictures into another folder, and label those.",
            )
        )
    return Calibration(recognised=recognised, subjects=subjects, false_alarms=alarms, others=others, judge=judge.digest)


def _shown(pictures: PictureSet, judge: Judge, answer: str) -> frozenset[str]:
    """The choices that an answer stands for."""
    return frozenset() if answer in ABSTENTIONS else frozenset(shown_by(judge, answer)) & frozenset(pictures.choices)


def _right(pictures: PictureSet, judge: Judge, label: str, answer: str) -> bool:
    """Whether an answer is right as a canary's must be: for none of these it stands for no concept at all."""
    if label == CANNOT_TELL:
        return False
    shown = frozenset() if answer in ABSTENTIONS else frozenset(shown_by(judge, answer))
    return label in shown or (label == NONE and not shown)


def _made(pictures: PictureSet, files: Sequence[LabelFile]) -> dict[str, Any]:
    found = agreement_of(files[0], files[1]) if len(files) > 1 else None
    every = [label for file in files for label in file.labels.values()]
    digests = "\n".join(one.sha256 for one in pictures.pictures)
    return {
        "by": [file.by for file in files],
        "when": datetime.now(UTC).date().isoformat(),
        "task": pictures.task,
        "base": pictures.base,
        "base_digest": pictures.base_digest,
        "concepts": list(pictures.choices),
        "pictures": [{"sha256": one.sha256, "prompt": one.prompt, "seed": one.seed} for one in pictures.pictures],
        "pictures_digest": hashlib.sha256(digests.encode()).hexdigest(),
        "set": pictures.digest,
        "labels": {file.by: file.chain for file in files},
        "cannot_tell": sum(label == CANNOT_TELL for label in every),
        "same": found.same if found is not None else None,
        "kappa": found.kappa if found is not None else None,
    }
