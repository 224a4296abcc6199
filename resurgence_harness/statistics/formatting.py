"""Number formats in sentences: per cent, points, counts."""

from __future__ import annotations


def percent(value: float) -> str:
    """A fraction as per cent: 0.103 is "10.3 %"."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of fractions as signed percentage points: 0.05 is "+5.0"."""
    return f"{100 * value + 0.0:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def counted(number: int, noun: str) -> str:
    """A count and its noun: "1 image", "20 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def confidence(alpha: float) -> str:
    """The confidence of a one-sided bound: alpha 0.01 is "99 %"."""
    return f"{100 * (1 - alpha):g} %"
