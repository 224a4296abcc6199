"""Error rates by exact summation, where all outcomes can be enumerated.

worst_proportion   Clopper and Pearson's bounds, over all rates
worst_paired       Tango's bounds with the exact one at zero events, over all rates of discordance
critical_alpha     the nominal alpha at which the error of those bounds is at most alpha
hybrid_error       fresh seeds until it is clear, with a last look at a cap, over all sequences
order_error        betting on a small grid, over all its orders
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from resurgence_harness.statistics.betting import STAKES
from resurgence_harness.statistics.intervals import check_alpha, clopper_pearson
from resurgence_harness.statistics.paired_size import (
    Side,
    Size,
    binomial,
    critical_alpha,
    sized_claims,
    worst_paired,
)
from resurgence_harness.validation.looks import evidence
from resurgence_harness.validation.report import Must, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Flags = NDArray[np.bool_]

ROUNDING = 1e-9
"""Rounding error allowed in a sum of probabilities."""


# Proportions


def worst_proportion(n: int, alpha: float) -> dict[Side, Size]:
    """The largest P(upper bound < p) and P(lower bound > p) over p, on a fine grid and just beside every bound."""
    import numpy as np

    lows, highs = np.array([clopper_pearson(k, n, alpha) for k in range(n + 1)]).T
    k = np.arange(n + 1)
    found = {}
    for side, bounds, beyond in ((Side.HOLDS, highs, 1e-12), (Side.VIOLATED, lows, -1e-12)):
        rates = np.clip(np.concatenate([np.linspace(0, 1, 2001), bounds + beyond]), 0.0, 1.0)
        missed = bounds < rates[:, None] if side is Side.HOLDS else bounds > rates[:, None]
        errors = (binomial(k, n, rates[:, None]) * missed).sum(axis=1)
        found[side] = Size(float(errors.max()), float(rates[errors.argmax()]))
    return found


# Sequences


def hybrid_error(limit: float, cap: int, alpha: float, *, lost: float | None = None) -> dict[Side, float]:
    """Per side, the exact error probability of `Hybrid(cap)` with the true value at the limit, over all sequences.

    With `lost` the true value is a rise with P(lost) = lost and P(gained) = lost + limit; without it, a rate. For
    independent outcomes the bets depend on the counts alone, so the probability of every count is propagated outcome by
    outcome, and removed where a bet has won.
    """
    import numpy as np

    check_alpha(alpha)
    least, down = (0, 0.0) if lost is None else (-1, lost)
    up = down + limit
    found = {}
    for side in Side:
        if lost is None:
            last = np.array(
                [
                    [
                        (bounds[1] < limit) if side is Side.HOLDS else (bounds[0] > limit)
                        for bounds in (clopper_pearson(k, cap, alpha / 2) for k in range(cap + 1))
                    ]
                ]
            )
        else:
            b, c = np.arange(_most(down, cap))[:, None], np.arange(_most(up, cap))[None]
            inside, outside = sized_claims(b, np.minimum(c, cap - b), cap, limit, alpha / 2)
            last = inside if side is Side.HOLDS else outside
        found[side] = _carried(down, up, limit, least, cap, 2 / alpha, side, last[:, : _most(up, cap)])
    return found


def _most(p: float, cap: int) -> int:
    """Number of counts, from 0, that contain all but a negligible probability; the rest is counted as an error."""
    return 1 if p == 0 else min(cap, math.ceil(cap * p + 9 * math.sqrt(cap * p * (1 - p)) + 12)) + 1


def _carried(
    down: float, up: float, mean: float, least: int, cap: int, needed: float, side: Side, last: Flags
) -> float:
    import numpy as np

    stakes = np.asarray(STAKES)

    def factor(outcome: int) -> Array:
        """The factor by which the outcome multiplies the wealth at each stake, [stakes]."""
        gain = (mean - outcome) / (1 - mean) if side is Side.HOLDS else (outcome - mean) / (mean - least)
        return 1 + stakes * gain

    rows, columns = _most(down, cap), _most(up, cap)
    neither, gained = np.log(factor(0)), np.arange(columns) * np.log(factor(1) / factor(0))[:, None]
    after_lost = np.exp(np.arange(rows)[:, None] * np.log(factor(-1) / factor(0))) if rows > 1 else None

    def wealth(t: int) -> Array:
        """Mean wealth over stakes for every count after t outcomes, [rows, columns]; capped against overflow."""
        if after_lost is None:
            return np.asarray(np.exp(np.minimum(t * neither[:, None] + gained, 700)).mean(axis=0))[None]
        return np.asarray((after_lost * (np.exp(t * neither) / len(STAKES))) @ np.exp(gained))

    mass = np.zeros((rows, columns))
    mass[0, 0], error = 1.0, 0.0
    for t in range(1, cap + 1):
        carried = mass * (1 - down - up)
        carried[1:] += mass[:-1] * down
        carried[:, 1:] += mass[:, :-1] * up
        beyond = mass[-1].sum() * down + mass[:, -1].sum() * up  # off the edge of the table
        won = wealth(t) >= needed
        error += float(carried[won].sum() + beyond)
        carried[won] = 0.0
        mass = carried
    return error + float(mass[last].sum())


def order_error(values: tuple[int, ...], alpha: float) -> dict[Side, float]:
    """Per side, the share of all orders of a grid in which betting ever rejects its true mean."""
    import numpy as np

    check_alpha(alpha)
    total, gained, lost = len(values), values.count(1), values.count(-1)
    orders = []
    for places in itertools.combinations(range(total), gained + lost):
        for ups in itertools.combinations(places, gained):
            row = np.zeros(total, dtype=np.int8)
            row[list(places)] = -1
            row[list(ups)] = 1
            orders.append(row)
    x, mean, least = np.stack(orders), sum(values) / total, -1 if lost else 0
    return {
        side: float(np.mean(evidence(x, mean=mean, least=least, grid=total, at_least=side is Side.HOLDS) >= 1 / alpha))
        for side in Side
    }


# Checks


def check_proportions(numbers: tuple[int, ...], alphas: tuple[float, ...]) -> list[Row]:
    """The error of Clopper and Pearson's bounds is at most alpha at every rate."""
    return [
        Row(
            "Exact: a rate's bound at a fixed number of images, worst rate",
            f"{side}, n = {n}, α {alpha:g}, worst at p = {size.at:.3f}",
            size.error,
            Must.AT_MOST,
            alpha + ROUNDING,
        )
        for n in numbers
        for alpha in alphas
        for side, size in worst_proportion(n, alpha).items()
    ]


def check_paired(numbers: tuple[int, ...], delta: float, alpha: float) -> list[Row]:
    """How far the error of Tango's bounds exceeds alpha; with the critical nominal alpha it does not exceed it."""
    rows = []
    for n in numbers:
        for side, size in worst_paired(n, delta, alpha).items():
            where = f"{side}, n = {n}, δ {delta:g}, α {alpha:g}"
            known = "Exact: Tango's bound as published, fixed number of pairs, worst discordance (known to exceed α)"
            rows.append(Row(known, f"{where}, worst at P(lost) = {size.at:.4f}", size.error, Must.SHOULD, alpha))
            critical = critical_alpha(n, delta, alpha, side)
            corrected = worst_paired(n, delta, alpha, tango_alpha=critical)[side].error
            rows.append(
                Row(
                    "Exact: as the designs use it, Tango's nominal α lowered until the worst is at most α",
                    f"{where}, nominal {critical:.6f}",
                    corrected,
                    Must.AT_MOST,
                    alpha + ROUNDING,
                )
            )
    return sorted(rows, key=lambda row: row.check != rows[0].check)


def check_hybrid(cap: int, lost: tuple[float, ...], delta: float, level: float, alpha: float) -> list[Row]:
    """The error of the hybrid at the limit is at most alpha, over all sequences."""
    check = "Exact: fresh seeds until it is clear, last look at a cap, over all sequences"
    rows = [
        Row(check, f"{side} of a rise, cap {cap}, δ {delta:g}, P(lost) {q:g}, α {alpha:g}", error, Must.AT_MOST, alpha)
        for q in lost
        for side, error in hybrid_error(delta, cap, alpha, lost=q).items()
    ]
    return rows + [
        Row(check, f"{side} of a level, cap {cap}, limit {level:g}, α {alpha:g}", error, Must.AT_MOST, alpha)
        for side, error in hybrid_error(level, cap, alpha).items()
    ]


def check_orders(grids: tuple[tuple[int, int, int], ...], alphas: tuple[float, ...]) -> list[Row]:
    """The error of betting on a small grid is at most alpha, over all its orders."""
    rows = []
    for total, lost, gained in grids:
        values = (-1,) * lost + (1,) * gained + (0,) * (total - lost - gained)
        what = f"+{gained} −{lost} of {total}" if lost else f"{gained} of {total}"
        for alpha in alphas:
            for side, error in order_error(values, alpha).items():
                rows.append(
                    Row(
                        "Exact: a shuffled grid looked at after every image, over all its orders",
                        f"{side}, {what}, α {alpha:g}",
                        error,
                        Must.AT_MOST,
                        alpha + ROUNDING,
                    )
                )
    return rows
