"""Ranges of a step's settings, checked where the value is written."""

from __future__ import annotations

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import Arithmetic, check_arithmetic

TRAINED_IN: tuple[Arithmetic, ...] = ("float32", "float16")
"""The arithmetics in which steps can be trained."""


def check_trained_in(step: str, arithmetic: Arithmetic) -> None:
    """SpecError for an unknown arithmetic, and for one in which no step can be trained."""
    check_arithmetic(step, arithmetic)
    if arithmetic not in TRAINED_IN:
        raise SpecError(
            sentence(f"{step} is not trained in {arithmetic}.", known=", ".join(TRAINED_IN), do="Choose one of these.")
        )


def whole(step: str, low: int, /, **values: int) -> None:
    """Raise a SpecError for the first value that is not a whole number of at least `low`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise SpecError(sentence(f"{step}.{name} must be a whole number of at least {low}, got {value!r}."))


def at_least(step: str, low: float, /, **values: float) -> None:
    """Raise a SpecError for the first value that is under `low` or not finite."""
    for name, value in values.items():
        if not low <= value < float("inf"):
            raise SpecError(sentence(f"{step}.{name} must be at least {low:g}, got {value}."))


def positive(step: str, /, **values: float) -> None:
    """Raise a SpecError for the first value that is not above 0 or not finite."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SpecError(sentence(f"{step}.{name} must be above 0, got {value}."))
