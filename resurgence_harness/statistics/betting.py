"""Anytime-valid bounds for the mean of a finite grid: betting without replacement.

A cell's grid holds N outcomes x₁ … x_N in [a, 1], fixed by checkpoint, prompt and seed; they are observed in shuffled
order. To reject "the grid's mean is at least m", a bet is placed on each outcome before it is observed:

    m_t = (N m − S_{t−1}) / (N − t + 1)                    mean of the unobserved outcomes if the grid's mean is m
    e_t(c) = e_{t−1}(c) · (1 + c (m_t − x_t) / (1 − m_t))  stake c in (0, 1): stays positive, since x_t ≤ 1
    e_t = mean of e_t(c) over `STAKES`

If the mean is m or more, no bet is favourable, e is a supermartingale that starts at 1, and P(ever e_t ≥ 1/α) ≤ α
(Ville): testing after every image and stopping early keep the error rate. The upper bound is the largest m not rejected
so far, the lower bound the same for −x. At t = N the whole grid is observed and both bounds equal its mean.

The only randomness used is the order: prompts may differ and cluster in any way. So the bounds are about this grid
(L1), not about other seeds, prompts or concepts.

*Sources:* Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (arXiv 2010.09686), and
Confidence sequences for sampling without replacement (arXiv 2006.04347); Ville, Étude critique de la notion de
collectif (1939). Departure: a mixture over fixed stakes in place of their adaptive ones, so that the same outcomes
always give the same number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.intervals import check_alpha

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAKES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.97)
"""Fractions of the largest stake that keeps e positive: small ones detect small effects, large ones end clear cases
early. Fixed once, never fitted to results."""
_CANDIDATES, _ROUNDS = 4, 6
"""Candidates per round, and rounds, of the search for a bound: to within .00013, always rounded to the wide side."""
_BLOCK = 32
"""Number of running means evaluated together, from the largest down."""


@lru_cache(maxsize=4096)
def betting_bounds(
    values: tuple[int, ...], *, least: int, grid: int, alpha: float, whole: bool = True
) -> tuple[float, float]:
    """(low, high) of the grid's mean after these outcomes, one-sided at `alpha` each, valid at all looks jointly.

    `values` are outcomes in the shuffled order, each between `least` (0 for hits, −1 for differences) and 1. `grid` is
    N. `whole=False`: the outcomes belong to a subset of the grid of unknown size, in the grid's order (the images that
    could be judged), so a bet is placed only if it is valid for every subset size up to N.

    In the rare orders that reject both sides (at most α on each side) the interval spans both rejected bounds.
    """
    import numpy as np

    _check(values, least=least, grid=grid, alpha=alpha)
    x = np.asarray(values, dtype=float)
    if whole and len(x) == grid:
        return float(x.mean()), float(x.mean())
    # Reflecting outcomes v to least + 1 − v keeps their range and turns "at most m" into "at least".
    paths = _Paths(np.stack([x, least + 1 - x]), least=least, grid=grid, whole=whole)
    high, mirrored = paths.first_refuted(1 / alpha)
    low = least + 1 - mirrored
    return min(low, high), max(low, high)


def e_value(values: Sequence[int], *, mean: float, least: int, grid: int, at_least: bool) -> float:
    """The largest e-value so far against "the grid's mean is at least (or at most) `mean`".

    If the statement is true, at most α of all orders ever reach 1/α; 1 is no evidence, 100 rejects at α = .01;
    infinite if no outcomes of the unobserved rows could give such a mean.
    """
    import numpy as np

    _check(values, least=least, grid=grid, alpha=0.01)
    x = np.asarray(values, dtype=float)
    if not at_least:
        x, mean = least + 1 - x, least + 1 - mean
    return float(_Paths(x[None], least=least, grid=grid, whole=True).evidence(np.array([[mean]]))[0, 0])


def _check(values: Sequence[int], *, least: int, grid: int, alpha: float) -> None:
    check_alpha(alpha)
    if not 1 <= len(values) <= grid:
        raise HarnessError(
            sentence(
                f"{len(values)} outcomes of a grid of {grid} are impossible.",
                do="Draw at least one image, and each row of the grid at most once.",
            )
        )
    for value in set(values):
        if not (isinstance(value, int) and least <= value <= 1):
            raise HarnessError(
                sentence(f"An outcome is {value}.", do=f"Give whole numbers from {least} to 1; nothing was decided.")
            )


class _Paths:
    """Rows of outcomes in the order drawn, and each row's evidence against "this row's mean is at least m"."""

    def __init__(self, x: NDArray[np.float64], *, least: float, grid: int, whole: bool) -> None:
        """`x` is [rows, t]."""
        import numpy as np

        self.x, self.least, self.grid, self.whole = x[:, None], float(least), grid, whole
        sums = np.cumsum(x, axis=1)
        self.before = np.concatenate([np.zeros((len(x), 1)), sums[:, :-1]], axis=1)[:, None]
        self.sum = sums[:, -1:]
        self.seen = np.arange(x.shape[1], dtype=float)
        self.stakes = np.asarray(STAKES)[:, None, None, None]

    def evidence(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest e so far, at least 1, for `means` [rows, candidates]; infinite if such a mean is impossible."""
        import numpy as np

        needed = self.grid * means[..., None] - self.before  # the sum that the unobserved outcomes had to have
        unobserved = needed / (self.grid - self.seen)  # m_t, [rows, candidates, t]
        idle = unobserved <= self.least  # no outcome can be evidence against it
        left = self.grid - self.x.shape[-1]
        # A sum that N outcomes cannot reach is out of reach for fewer, too.
        impossible = (unobserved.max(axis=-1) > 1 + 1e-12) | (self.grid * means - self.sum > left + 1e-9)
        if not self.whole:
            # For a subset of unknown size M ≤ N, m_t is smallest at M = N as long as the running mean is at most m:
            # bet only then.
            idle |= self.before > means[..., None] * self.seen + 1e-12
        gain = (unobserved - self.x) / np.maximum(1 - unobserved, 1e-12)
        gain[idle] = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            paths = (1 + self.stakes * gain).cumprod(axis=-1)
            largest = np.add.reduce(paths, axis=0).max(axis=-1) / len(STAKES)
        largest[impossible | np.isnan(largest)] = np.inf
        evidence: NDArray[np.float64] = np.maximum(largest, 1.0)
        return evidence

    def first_refuted(self, needed: float) -> list[float]:
        """Per row the mean above which all means are rejected, rounded up; 1 if none is rejected."""
        import numpy as np

        rows = np.arange(len(self.x))
        low, high = np.full(len(rows), self.least), np.ones(len(rows))
        if not self.whole:
            low, high = np.array([self._between(row, needed) for row in range(len(self.x))]).T
        steps = np.arange(1, _CANDIDATES + 1) / (_CANDIDATES + 1)
        for _ in range(_ROUNDS):
            means = low[:, None] + (high - low)[:, None] * steps
            kept = np.count_nonzero(self.evidence(means) < needed, axis=1)
            edges = np.concatenate([low[:, None], means, high[:, None]], axis=1)
            low, high = edges[rows, kept], edges[rows, kept + 1]
        return [float(value) for value in high]

    def _between(self, row: int, needed: float) -> tuple[float, float]:
        """Bracket for the search if the subset's size is unknown: the last mean not rejected, and the next one.

        For a whole grid the evidence grows with the mean, so bisection works. For a subset, a larger mean is bet
        against more often and a lost bet lowers the evidence, so the evidence can fall, but only at running means.
        """
        import numpy as np

        this = _Paths(self.x[row], least=self.least, grid=self.grid, whole=False)
        falls = np.unique(this.before[0, 0, 1:] / this.seen[1:])[::-1]
        above = 1.0
        for first in range(0, len(falls), _BLOCK):
            means = falls[first : first + _BLOCK]
            kept = np.flatnonzero(this.evidence(means[None])[0] < needed)
            if len(kept):
                return float(means[kept[0]]), float(means[kept[0] - 1] if kept[0] else above)
            above = means[-1]
        return self.least, float(above)
