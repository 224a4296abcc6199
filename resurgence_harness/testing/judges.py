"""Contract tests of judges: `check_judge(judge, images)`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import ResurgenceError, UserError, sentence
from resurgence_harness.judging.contract import (
    ABSTENTIONS,
    UNKNOWN,
    Judge,
    ask,
    calibration_of,
    check_ready,
    shown_by,
)
from resurgence_harness.judging.declaring import check_declared, labels_of, misspelled
from resurgence_harness.judging.digesting import answers as answers_depend_on
from resurgence_harness.testing.mutating import as_subclass, changed, changed_fields, with_setting

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-3
"""Allowed difference of a score when the image is judged in another batch."""


def check_judge(
    judge: Judge, images: np.ndarray, *, others: Mapping[str, object] | None = None, device: str = "cpu"
) -> None:
    """Test a judge's contract; AssertionError names the member, the field or the image that violates it.

    `images`: uint8 [n, h, w, 3] in the judge's domain, at least two; better twenty, with every answer and some near a
    threshold. `others`: alternative values for settings for which none can be generated: {"first.name": "object"}. The
    judge computes its calibration and canaries, or they are stored (`judging.keep`).
    """
    check_members(judge)
    check_answers(judge, images, device=device)
    check_digest(judge, others or {})
    check_fields_without_effect(judge, images, device=device)
    check_canaries(judge)
    check_calibration(judge, others or {})


def check_members(judge: Judge) -> None:
    """Every member of the contract is declared with the correct name, and labels stand for concepts."""
    try:
        check_declared(judge)
        labels = labels_of(judge)
        shown = {label: shown_by(judge, label) for label in labels}
    except UserError as mistake:
        raise AssertionError(str(mistake)) from None
    for name, member in misspelled(judge).items():
        _require(False, f'Judge {judge.name} has "{name}", which is not used.', meant=member, do="Rename it.")
    _require(isinstance(judge.digest, str) and judge.digest, f"The digest of judge {judge.name} is not a string.")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    _require(not twice, f"Judge {judge.name} has a label twice.", label=twice)
    wrong = {label: names for label, names in shown.items() if not all(isinstance(one, str) and one for one in names)}
    _require(not wrong, f"Judge {judge.name} shows something other than concept names.", shows=wrong)
    _require(any(shown.values()), f"No label of judge {judge.name} stands for a concept.", labels=labels)


def check_answers(judge: Judge, images: np.ndarray, *, device: str = "cpu") -> None:
    """Each image gets a declared answer and a score in 0 … 1, deterministic and independent of its batch; NaN is never
    answered."""
    import numpy

    _require(len(images) > 1, "At least two images are needed to test batches.", images=len(images))
    before = images.copy()
    answers, scores = _asked(judge, images, device)
    _require(numpy.array_equal(images, before), f"Judge {judge.name} changed the images that it was given.")
    outside = [row for row, score in enumerate(scores) if not 0 <= score <= 1]
    _require(
        not outside,
        f"Judge {judge.name} gave a score outside 0 … 1.",
        image=outside,
        score=[float(scores[row]) for row in outside[:3]],
    )
    with _other_randomness():
        again, scores_again = _asked(judge, images, device)
    _same(judge, answers, again, "Called twice", "Draw every random number from a generator with a fixed seed.")
    moved = [row for row, pair in enumerate(zip(scores, scores_again, strict=True)) if pair[0] != pair[1]]
    _require(not moved, f"Judge {judge.name} gave other scores to the same images.", image=moved)
    parts = [_asked(judge, images[row : row + 1], device) for row in range(len(images))]
    alone = [answer for answers_of, _ in parts for answer in answers_of]
    _same(judge, answers, alone, "Called with one image", "An answer may depend only on its own image, not the batch.")
    apart = [row for row, (_, one) in enumerate(parts) if not math.isclose(one[0], scores[row], abs_tol=ROUNDING)]
    _require(not apart, f"Judge {judge.name} gives an image another score in another batch.", image=apart)
    for answer in sorted({*answers, *labels_of(judge)} & ABSTENTIONS):
        _require(shown_by(judge, answer) == (), f"An abstention of judge {judge.name} shows something.", answer=answer)
    # NaN: a judge may reject it or abstain, never answer.
    broken = numpy.full(images.shape, numpy.nan, numpy.float32)
    try:
        with numpy.errstate(all="ignore"):
            found, _ = judge.answer(broken, device)
    except Exception:  # rejected
        return
    seen = sorted(set(found) - ABSTENTIONS)
    _require(
        not seen,
        f"Judge {judge.name} answered images that contain NaN.",
        answer=seen,
        do="Begin answer() with judging.contract.check_images(images, judge=self.name).",
    )


def check_digest(judge: Judge, others: Mapping[str, object] = {}) -> None:
    """The digest changes with every setting of the judge, nested ones included."""
    for place, other in _with_other_settings(judge, others).items():
        _require(
            other.digest != judge.digest,
            f"The digest of judge {judge.name} does not cover {place}.",
            value=_at(judge, place),
            other=_at(other, place),
            do="Use digest_of_fields(self); declare a field that cannot change an answer with specs.not_in_key().",
        )


def check_fields_without_effect(judge: Judge, images: np.ndarray, *, device: str = "cpu") -> None:
    """A field that is declared not to affect answers does not: stored judgments would be reused for another value."""
    if not is_dataclass(judge):
        return
    expected, _ = _asked(judge, images, device)
    for one in fields(judge):
        if not one.init or answers_depend_on(one):
            continue
        for other in changed_fields(judge, one.name):
            try:
                found, _ = _asked(other, images, device)
            except Exception:  # the value is not usable, such as the path of a program
                continue
            _require(
                found == expected,
                f"Judge {judge.name} answers differently with another {one.name}, which is declared not to matter.",
                value=getattr(judge, one.name),
                other=getattr(other, one.name),
                do="Remove specs.not_in_key() from the field.",
            )


def check_canaries(judge: Judge) -> None:
    """There are canaries, the judge answers all correctly, and a judge that always gives one answer does not."""
    passed, total = judge.canaries()
    _require(total > 0, f"Judge {judge.name} has no canaries.", do="Keep some with judging.keep(judge, counts, …).")
    _require(passed == total, f"Judge {judge.name} fails its own canaries.", correct=f"{passed} of {total}")
    _require(
        _answering(judge, UNKNOWN).canaries() != (passed, total),
        f"The canaries of judge {judge.name} pass whatever it answers.",
        canaries=(passed, total),
        do="Show stored images to self.answer and count how many answers are right.",
    )
    constant = next((one for one in labels_of(judge) if _answering(judge, one).canaries() == (passed, total)), None)
    _require(
        constant is None,
        f"The canaries of judge {judge.name} pass if it always answers {constant!r}.",
        canaries=(passed, total),
        do="Add canaries with another correct answer.",
    )


def check_calibration(judge: Judge, others: Mapping[str, object] = {}) -> None:
    """Calibration counts are computed by the judge, or contain its digest and become invalid if a setting changes."""
    try:
        counted = calibration_of(judge)
    except UserError as mistake:
        raise AssertionError(str(mistake)) from None
    _require(bool(counted), f"Judge {judge.name} has no calibration.", do="Make one: judging.calibrate, judging.keep.")
    loose = _counts(_answering(judge, UNKNOWN)) != counted
    if loose:
        return  # the judge computes its counts at run time
    for kind, counts in counted.items():
        _require(
            counts.judge == judge.digest,
            f"The calibration of judge {judge.name} does not say whose answers were counted.",
            kind=kind,
            do="Count them with judging.calibrate(judge, known); stored counts carry Calibration(…, judge=<digest>).",
        )
    for place, other in _with_other_settings(judge, others).items():
        _require(
            _counts(other) != counted,
            f"The calibration of judge {judge.name} does not change with {place}.",
            value=_at(judge, place),
            other=_at(other, place),
            do="Store counts together with the judge's digest, as judging.keep does.",
        )


def _with_other_settings(judge: Judge, others: Mapping[str, object]) -> dict[str, Any]:
    """Setting → the judge with that setting changed. AssertionError if no other value is found or given in `others`.

    A judge's own `name` and `version` are in every key beside the digest, so the digest need not cover them.
    """
    found: dict[str, Any] = {}
    unknown = dict(others)
    for setting in changed(judge):
        if setting.place in ("name", "version"):
            continue
        tried = setting.candidates
        if setting.place in unknown:
            tried = (partial(with_setting, judge, setting.place, unknown.pop(setting.place)),)
        other = next((made for candidate in tried if (made := _made(candidate)) is not None), None)
        _require(
            other is not None,
            f"No other value was found for {setting.place} of judge {judge.name}.",
            value=_at(judge, setting.place),
            do=f"Give one: check_judge(…, others={{{setting.place!r}: …}}).",
        )
        found[setting.place] = other
    _require(not unknown, f"Judge {judge.name} has no such settings.", others=", ".join(unknown))
    return found


def _made(candidate: Any) -> Any:
    """The judge with another setting; None if its checks reject it."""
    try:
        made = candidate()
        _ = made.digest
    except Exception:  # rejected by its checks
        return None
    return made


def _answering(judge: Any, label: str) -> Any:
    """The same judge, and the judges that it contains, giving one answer to every image."""

    def answer(self: Any, images: Any, device: str) -> tuple[list[str], Any]:
        import numpy

        return [label] * len(images), numpy.zeros(len(images))

    if is_dataclass(judge) and not isinstance(judge, type):
        inner = {one.name: getattr(judge, one.name) for one in fields(judge) if one.init}
        judges = {name: _answering(value, label) for name, value in inner.items() if hasattr(value, "canaries")}
        judge = replace(judge, **judges) if judges else judge
    return as_subclass(judge, answer=answer)


def _counts(judge: Any) -> Any:
    """Its calibration; None if it is not ready or has none."""
    try:
        check_ready(judge)
        return calibration_of(judge)
    except Exception:  # a file that is bound to another digest, a pin that differs
        return None


def _asked(judge: Judge, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
    try:
        return ask(judge, images, device)
    except ResurgenceError as mistake:
        raise AssertionError(str(mistake)) from mistake


def _same(judge: Judge, first: Sequence[str], second: Sequence[str], when: str, do: str) -> None:
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        _require(
            one == other, f"{when}, judge {judge.name} gave image {row} another answer.", first=one, then=other, do=do
        )


def _at(value: Any, place: str) -> str:
    for name in place.split("."):
        value = getattr(value, name)
    return repr(value)[:80]


def _other_randomness() -> Any:
    """Set other global random states, and restore them afterwards."""
    from resurgence_harness.testing.surroundings import other_randomness

    return other_randomness()


def _require(fits: object, first: str, /, *, do: str = "", **facts: object) -> None:
    if not fits:
        raise AssertionError(sentence(first, do=do, **facts))
