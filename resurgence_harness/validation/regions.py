"""Which counts make the paired bound of a fixed number of pairs speak: `intervals.paired` for whole arrays."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]


def scores(b: ArrayLike, c: ArrayLike, n: ArrayLike, delta: float) -> Array:
    """`intervals.tango_z` for arrays: the score statistic of D = delta at b lost and c gained of n pairs."""
    import numpy as np

    b, c, n = (np.asarray(one, dtype=float) for one in (b, c, n))
    excess = c - b - n * delta
    second, third = (2 * n + b - c) * delta - b - c, -b * delta * (1 - delta)
    q = (np.sqrt(np.maximum(second * second - 8 * n * third, 0.0)) - second) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    certain = np.where(np.abs(excess) < 1e-12, 0.0, np.copysign(np.inf, excess))
    return np.asarray(np.where(variance <= 1e-300, certain, excess / np.sqrt(np.maximum(variance, 1e-300))))


def claims(
    b: ArrayLike, c: ArrayLike, n: ArrayLike, delta: float, alpha: float, *, at_zero: float | None = None
) -> tuple[Flags, Flags]:
    """Whether the upper bound of `intervals.paired` is under delta, and whether the lower one is above it; delta > 0.

    `at_zero` is the alpha of the exact bound after 0 gained, where it is another one than Tango's.
    """
    import numpy as np

    z = scores(b, c, n, delta)
    needed = NormalDist().inv_cdf(1 - alpha)
    exact = (np.asarray(c) == 0) & (1 - (at_zero or alpha) ** (1 / np.asarray(n, dtype=float)) < delta)
    return np.asarray((z < -needed) | exact), np.asarray(z > needed)
