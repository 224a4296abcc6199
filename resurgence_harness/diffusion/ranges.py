"""Ranges of a step's settings, checked where the value is written."""

from __future__ import annotations

from resurgence_harness.errors import SpecError, sentence


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
