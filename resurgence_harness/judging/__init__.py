"""Judges, one file per detector: what it detects, its weights and licence, and its calibration."""

from __future__ import annotations

from typing import Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.calibrating import KnownPictures, calibrate, keep, parts_of
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
    calibration_of,
    check_different,
    check_images,
    check_names,
    check_ready,
    shown_by,
)
from resurgence_harness.judging.declaring import check_declared
from resurgence_harness.judging.digesting import digest_of_fields
from resurgence_harness.judging.either import Either
from resurgence_harness.judging.enrolled import Enrolled, Enrolment, enrol
from resurgence_harness.judging.gcd import Gcd
from resurgence_harness.judging.micro import MICRO_JUDGES, MicroJudge
from resurgence_harness.judging.open_nsfw import OTHER, OpenNsfw
from resurgence_harness.judging.q16 import APPROPRIATE, Q16
from resurgence_harness.judging.vision_language import RemoteCode, VisionLanguage
from resurgence_harness.judging.weights import Weights
from resurgence_harness.registry import BUILT_IN, Given, Table, register
from resurgence_harness.tasks.microworld import OBJECTS
from resurgence_harness.tasks.published import COPYRIGHT

HAZARD_OR_OBJECT = Either(
    name="hazard-or-object", first=MicroJudge(name="hazard"), second=MicroJudge(name="object"), nothing="harmless"
)
"""For the microworld's unsafe task: the warning sign if one is detected, else the object."""
Q16_OR_CLIP = Either(name="q16-or-clip", first=Q16(), second=ClipAccuracy(labels=tuple(OBJECTS)), nothing=APPROPRIATE)
"""For the unsafe task on real bases: harm if Q16 detects it, else the object."""
NSFW_OR_CLIP = Either(name="nsfw-or-clip", first=OpenNsfw(), second=ClipAccuracy(labels=tuple(OBJECTS)), nothing=OTHER)
"""For the nudity task: nudity if Open-NSFW detects it, else the object."""
IRON_MAN = VisionLanguage(
    name="iron-man",
    concept=COPYRIGHT.erasable[0].name,
    others=tuple(concept.name for concept in (*COPYRIGHT.preserve, *COPYRIGHT.held_out)),
)
"""For the copyright task on real bases; a judge with another model replaces it under the same name."""
GIVEN: tuple[Judge, ...] = (
    Gcd(),
    ClipAccuracy(labels=tuple(OBJECTS)),
    Q16(),
    Q16_OR_CLIP,
    OpenNsfw(),
    NSFW_OR_CLIP,
    IRON_MAN,
)
"""Judges for bases larger than the microworld, whose weights the user provides."""
KNOWN: tuple[Judge, ...] = (*MICRO_JUDGES, HAZARD_OR_OBJECT, *GIVEN)


def _read(given: Any) -> Given:
    check_declared(given)
    return Given(given.name, given, type(given))


JUDGES: Table[Judge] = Table("judge", _read)
"""Every judge by its name."""
for _judge in KNOWN:
    register("judge", _judge, BUILT_IN)


def calibrated_by_name(name: str) -> Judge:
    """The judge of that name, of the table or a part of one there; UserError if there is none, or it is combined.

    A combined judge has its parts' calibration: they are calibrated instead.
    """
    for judge in JUDGES.values():
        for part in parts_of(judge):
            if part.name == name:
                return part
    combined = judge_by_name(name)
    raise UserError(
        sentence(
            f"Judge {name} combines others and has their calibration.",
            parts=", ".join(part.name for part in parts_of(combined)),
            do="Calibrate each of these.",
        )
    )


def judge_by_name(name: str) -> Judge:
    """The judge of that name; UserError if there is none."""
    if name not in JUDGES:
        raise UserError(sentence(f'There is no judge "{name}".', known=", ".join(JUDGES), do="Name one of these."))
    return JUDGES[name]


__all__ = [
    "ABSTENTIONS",
    "GIVEN",
    "HAZARD_OR_OBJECT",
    "IRON_MAN",
    "Gcd",
    "RemoteCode",
    "VisionLanguage",
    "JUDGES",
    "NO_FACE",
    "NSFW_OR_CLIP",
    "OpenNsfw",
    "Q16",
    "Q16_OR_CLIP",
    "UNKNOWN",
    "Calibration",
    "Clip",
    "ClipAccuracy",
    "Either",
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
    "calibrated_by_name",
    "calibration_of",
    "check_declared",
    "check_different",
    "check_images",
    "check_names",
    "check_ready",
    "digest_of_fields",
    "enrol",
    "judge_by_name",
    "keep",
    "parts_of",
    "shown_by",
]
