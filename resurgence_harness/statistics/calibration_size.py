"""How many labelled pictures a calibration needs: what a limit is read as, with these counts and with more of them.

    read(δ) = J_low · δ        `judge_error.observed_delta`

With more pictures at the same error rates J_low rises towards J = Se + Sp − 1, which no number of pictures exceeds.
"""

from __future__ import annotations

from resurgence_harness.errors import JudgeError
from resurgence_harness.statistics.judge_error import JudgeAccuracy, observed_delta, youden

FACTORS = (2, 3, 5, 10, 20, 50, 100)
"""Multiples of a calibration that are looked at."""
NEAR = 0.95
"""Share of J that J_low reaches with enough pictures."""


def read_as(delta: float, accuracy: JudgeAccuracy, alpha: float) -> float | None:
    """What a limit is read as; None if the judge is not shown to be better than chance."""
    try:
        return observed_delta(delta, accuracy, alpha)
    except JudgeError:
        return None


def multiplied(accuracy: JudgeAccuracy, factor: int) -> JudgeAccuracy:
    """The same rates on `factor` times as many pictures."""
    return JudgeAccuracy(
        true_positives=accuracy.true_positives * factor,
        positives=accuracy.positives * factor,
        true_negatives=accuracy.true_negatives * factor,
        negatives=accuracy.negatives * factor,
    )


def enough(accuracy: JudgeAccuracy, alpha: float) -> int | None:
    """The smallest factor, 1 included, at which J_low is at least `NEAR` of J; None if none of `FACTORS` is enough."""
    index = youden(accuracy, alpha).estimate
    if index <= 0:
        return None
    for factor in (1, *FACTORS):
        if youden(multiplied(accuracy, factor), alpha).low >= NEAR * index:
            return factor
    return None


def account(accuracy: JudgeAccuracy, *, pictures: int, judge: str, delta: float, alpha: float) -> str:
    """One paragraph: what the limit is read as with these pictures, and with how many more it would be what."""
    now = read_as(delta, accuracy, alpha)
    index = youden(accuracy, alpha).estimate
    if index <= 0:
        return f"With {pictures} pictures, {judge} is no better than chance; no number of pictures changes that."
    factor = enough(accuracy, alpha)
    more = 3 if factor is None or factor == 1 else factor
    if now is None:  # the least that lets a cell hold
        more = next((one for one in FACTORS if read_as(delta, multiplied(accuracy, one), alpha)), more)
    then = read_as(delta, multiplied(accuracy, more), alpha)
    first = (
        f"With {pictures} pictures, {judge} is not shown to be better than chance, so no cell can hold"
        if now is None
        else f"With {pictures} pictures, {judge}'s δ of {_short(delta)} is read as {_short(now)}"
    )
    second = f"{pictures * more:,} with the same error rates would give {_short(then)}" if then is not None else ""
    last = f"its own errors allow at most {_short(index * delta)}"
    return "; ".join(part for part in (first, second, last) if part) + "."


def _short(value: float) -> str:
    return f"{value:.3f}".lstrip("0").rstrip("0") or "0"
