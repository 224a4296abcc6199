"""How often the paired bound of a fixed number of pairs really errs, and the nominal alpha at which it errs no more.

A paired claim has one nuisance, q = P(lost). At D = delta the others are P(gained) = q + delta and 1 − 2q − delta, and

    size = max over q in [0, (1 − delta)/2] of  Σ_b P(b) P(c in the region of b)
           b ~ Binomial(n, q),  c ~ Binomial(n − b, (q + delta)/(1 − q))

D = delta is the worst of D ≥ delta (of D ≤ delta for the other side): one more gained pair never makes a rise look
smaller, so for every b a region is all c below (above) some count, and falling into it is monotone in P(gained).

Tango's bound is asymptotic: at alpha .01 the claim "above .05" errs in up to 2.4 % at 125 pairs. `critical_alpha`
raises its critical value until the size is at most alpha; the fixed and hybrid designs use it.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.statistics.intervals import check_alpha

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

_GRID = 200
"""Rates of discordance tried first; the three worst are then looked at closely. Equally spaced on the scale on which a
binomial count has the same spread everywhere, and finer than that spread up to thousands of pairs."""


SURELY = 0.4
"""Share of alpha that is small enough at any number of pairs tried: the size is .55 % at 1,000 and 2,500, for 1 %."""


class Side(StrEnum):
    """What is said falsely at D = delta."""

    HOLDS = "HOLDS"
    """The upper bound is under delta."""
    VIOLATED = "VIOLATED"
    """The lower bound is above delta."""


class Size(NamedTuple):
    """The largest error, and where it is made."""

    error: float
    at: float
    """The rate p, or q = P(lost)."""


def worst_paired(n: int, delta: float, alpha: float, *, tango_alpha: float | None = None) -> dict[Side, Size]:
    """The largest error of each side of `intervals.paired` at D = delta, over all rates of discordance.

    `tango_alpha` is the nominal alpha of Tango's part alone; the exact bound after 0 gained stays at alpha.
    """
    _check(n, delta, alpha)
    return {side: _size(n, delta, side, alpha, tango_alpha or alpha) for side in Side}


@lru_cache(maxsize=4096)
def critical_alpha(n: int, delta: float, alpha: float, side: Side | None = None) -> float:
    """The largest nominal alpha of Tango's bound, at most alpha, with which the claim about delta errs at most alpha.

    For one side, or the smaller of both. The exact bound after 0 gained keeps alpha: it is exact, and it is what makes
    `zero_event_floor` pairs enough. The size is a staircase in the nominal alpha; the answer lies within a thousandth
    under the step. Beyond 1,000 pairs it is `SURELY` times alpha, where enumerating takes seconds.
    """
    _check(n, delta, alpha)
    if n > 1000:
        return SURELY * alpha
    if side is None:
        return min(critical_alpha(n, delta, alpha, one) for one in Side)
    low, high = 0.0, alpha
    if _size(n, delta, side, alpha, alpha).error <= alpha:
        return alpha
    while high - low > 1e-3 * alpha:
        middle = (low + high) / 2
        if _size(n, delta, side, alpha, middle).error <= alpha:
            low = middle
        else:
            high = middle
    return low


def _check(n: int, delta: float, alpha: float) -> None:
    check_alpha(alpha)
    if n < 1 or not 0 < delta < 1:
        raise SpecError(
            sentence(
                f"{n} pairs and a limit of {delta} give no claim.", do="Give 1 pair or more, and a limit in (0, 1)."
            )
        )


def _size(n: int, delta: float, side: Side, alpha: float, tango_alpha: float) -> Size:
    import numpy as np

    edges = _edges(n, delta, side, alpha, tango_alpha)
    most = (1 - delta) / 2
    angles = np.linspace(0.0, math.pi / 2, _GRID)
    errors = _errors(edges, n, delta, side, most * np.sin(angles) ** 2)
    best = Size(float(errors.max()), float(most * np.sin(angles[errors.argmax()]) ** 2))
    step = angles[1]
    peaks = angles[np.argsort(errors)[-3:]]
    for _ in range(2):
        near = np.clip(peaks[:, None] + step * np.linspace(-1, 1, 11), 0.0, math.pi / 2).ravel()
        errors = _errors(edges, n, delta, side, most * np.sin(near) ** 2)
        best = max(best, Size(float(errors.max()), float(most * np.sin(near[errors.argmax()]) ** 2)))
        peaks, step = near[np.argsort(errors)[-1:]], step / 5
    return best


@lru_cache(maxsize=64)
def _edges(n: int, delta: float, side: Side, alpha: float, tango_alpha: float) -> NDArray[np.int64]:
    """For every b how many c the region holds: the smallest ones for HOLDS, the largest ones for VIOLATED."""
    import numpy as np

    b, c = np.arange(n + 1)[:, None], np.arange(n + 1)[None]
    inside, outside = claims(b, c, n, delta, tango_alpha, at_zero=alpha)
    return np.asarray(np.count_nonzero((inside if side is Side.HOLDS else outside) & (b + c <= n), axis=1))


def _errors(edges: NDArray[np.int64], n: int, rise: float, side: Side, q: Array) -> Array:
    """The chance of the region at D = rise, for every q."""
    import numpy as np
    from scipy.special import betainc

    b = np.arange(n + 1)
    weight = binomial(b, n, q[:, None])
    left, count = np.broadcast_to(n - b, weight.shape), np.broadcast_to(edges, weight.shape)
    share = np.broadcast_to(np.clip((q + rise) / np.maximum(1 - q, 1e-300), 0.0, 1.0)[:, None], weight.shape)
    chance = np.zeros(weight.shape)
    matters = (weight > 1e-18) & (count > 0)
    every = matters & (count > left)
    some = matters & ~every
    chance[every] = 1.0
    m, k, p = left[some], count[some], share[some]
    # P(c ≤ k − 1) below, P(c ≥ m − k + 1) above, as beta integrals
    chance[some] = betainc(m - k + 1.0, k * 1.0, 1 - p if side is Side.HOLDS else p)
    return np.asarray((weight * chance).sum(axis=1))


def binomial(k: NDArray[np.int64], n: int, p: Array) -> Array:
    """P(k of n), for broadcast arrays."""
    import numpy as np
    from scipy.special import gammaln, xlog1py, xlogy

    return np.asarray(np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, p) + xlog1py(n - k, -p)))


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


def sized_claims(b: ArrayLike, c: ArrayLike, n: int, delta: float, alpha: float) -> tuple[Flags, Flags]:
    """`claims` at the nominal alphas that the designs use, so that each side errs at most alpha."""
    inside = claims(b, c, n, delta, critical_alpha(n, delta, alpha, Side.HOLDS), at_zero=alpha)[0]
    return inside, claims(b, c, n, delta, critical_alpha(n, delta, alpha, Side.VIOLATED))[1]
