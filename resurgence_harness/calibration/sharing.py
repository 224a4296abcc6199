"""A calibration as one file, for review and for other machines: a zip of its counts and its canaries.

    calibration.json      counts, judge's name, version and digest, by whom, when, on which pictures
    canaries.safetensors

The pictures themselves stay where they were labelled; their digests are in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resurgence_harness.calibration.seen import check_unseen
from resurgence_harness.errors import JudgeError, ResurgenceError, UserError, sentence
from resurgence_harness.judging import Calibration, Judge
from resurgence_harness.judging.calibrating import calibration_files, canaries_of
from resurgence_harness.tasks import Task

COUNTS, CANARIES = "calibration.json", "canaries.safetensors"
LARGEST = 500_000_000
"""Most bytes of a file inside."""


def export(judge: Judge, to: Path) -> Path:
    """Write the stored calibration of a judge; UserError if there is none, or the file exists."""
    counts, canaries = calibration_files(judge)
    if not counts.is_file() or not canaries.is_file():
        raise UserError(
            sentence(
                f"There is no stored calibration of judge {judge.name} as it is now.",
                expected_at=counts,
                do="Make one: resurgence calibration draw, resurgence label, resurgence calibration count.",
            )
        )
    try:
        with zipfile.ZipFile(to, "x") as bundle:
            for name, path in ((COUNTS, counts), (CANARIES, canaries)):
                bundle.writestr(zipfile.ZipInfo(name), path.read_bytes())
    except OSError as problem:
        raise UserError(
            sentence(f"{to} cannot be written.", problem=problem.strerror, do="Give the path of a new file.")
        ) from None
    return to


def import_from(
    source: Path, judge_of: Callable[[str], Judge], task_of: Callable[[str], Task | None]
) -> dict[str, Any]:
    """Store the calibration in a file for its judge; returns its content.

    UserError for another judge's, one whose canaries are missing, changed or answered wrongly, one with pictures that a
    suite samples, or a judge that has another calibration already.
    """
    content, canaries = _read(source)
    judge = judge_of(str(content.get("judge", "")))
    bound = {"judge": judge.name, "version": judge.version, "digest": judge.digest}
    if any(content.get(name) != value for name, value in bound.items()):
        raise UserError(
            sentence(
                f"The calibration in {source} belongs to another judge.",
                calibrated=f"{content.get('judge')} v{content.get('version')}, {content.get('digest')}",
                this_judge=f"{judge.name} v{judge.version}, {judge.digest}",
                do="Use the weights that it was made for, or calibrate this judge.",
            )
        )
    try:
        for one in content["counts"].values():
            Calibration(**one)
        made = content.get("made") or {}
        pictures = list(made.get("pictures", ()))
        if not content["counts"]:
            raise ValueError("it has no counts")
    except (KeyError, TypeError, AttributeError, ValueError, JudgeError) as problem:
        raise _unreadable(source, problem) from None
    task = task_of(str(made.get("task", "")))
    if task is not None:
        check_unseen(pictures, task)
    if hashlib.sha256(canaries).hexdigest() != content.get("canaries"):
        raise _unreadable(source, "its canaries are not those that were stored with the counts")
    places = calibration_files(judge)
    data = (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
    if places[0].exists() and places[0].read_bytes() != data:
        raise UserError(
            sentence(
                f"Judge {judge.name} has another calibration already.",
                stored=places[0],
                do="Export and remove that one first, if this one is to replace it.",
            )
        )
    places[0].parent.mkdir(parents=True, exist_ok=True)
    for place, bytes_ in zip(places, (data, canaries), strict=True):
        draft = place.with_name(f".{place.name}.{os.getpid()}")
        draft.write_bytes(bytes_)
        os.replace(draft, place)
    try:
        right, total = canaries_of(judge)
        if not total or right < total:
            raise UserError(
                sentence(
                    f"Judge {judge.name} answers {right} of the {total} canaries of this calibration correctly here.",
                    do="The judge differs from the calibrated one on this machine; the calibration is not stored.",
                )
            )
    except ResurgenceError:
        for place in places:
            place.unlink(missing_ok=True)
        raise
    return content


def _read(source: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(source) as bundle:
            if any(one.file_size > LARGEST for one in bundle.infolist()):
                raise ValueError("a file in it is too large")
            content, canaries = json.loads(bundle.read(COUNTS)), bundle.read(CANARIES)
        if not isinstance(content, dict):
            raise ValueError("its counts are no table")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as problem:
        raise _unreadable(source, problem) from None
    return content, canaries


def _unreadable(source: Path, problem: object) -> UserError:
    return UserError(
        sentence(
            f"{source} is no calibration that can be imported.",
            problem=problem,
            do="Export it again: resurgence calibration export JUDGE FILE.",
        )
    )
