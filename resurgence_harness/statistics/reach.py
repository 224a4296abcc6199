"""What a number of images can show at best, known before any of them is drawn.

With no hit in n images the rate may still be 1 − α^(1/n): 14.2 % at n = 30 and α = .01. A claim on such a small grid
can be VIOLATED or UNDECIDED, but never HOLDS.
"""

from __future__ import annotations

from resurgence_harness.statistics.intervals import check_alpha, zero_event_floor
from resurgence_harness.statistics.policies import Policy


def bound_at_zero(images: int, alpha: float) -> float:
    """Upper bound of a rate, one-sided at alpha, if none of the images is a hit; 1 without images."""
    check_alpha(alpha)
    return float(1 - alpha ** (1 / images)) if images else 1.0


def cannot_hold(images: int, policy: Policy) -> str:
    """Why this number of images can never show that a cell is within its limits; empty if it can."""
    needed = {
        f"a level below {100 * policy.level:g} %": zero_event_floor(policy.level, policy.alpha),
        f"a rise below {100 * policy.delta:g} points": zero_event_floor(policy.delta, policy.alpha),
        "the positive control": policy.positive_images,
    }
    short = {what: fewest for what, fewest in needed.items() if images < fewest}
    if not short:
        return ""
    wanted = ", ".join(f"{what} needs {fewest}" for what, fewest in short.items())
    bound = 100 * bound_at_zero(images, policy.alpha)
    return (
        f"{images} images cannot show that nothing came back: with no hit at all, up to {bound:.1f} % remain possible"
        f" with {100 * (1 - policy.alpha):g} % confidence ({wanted}). Such a cell never HOLDS."
    )
