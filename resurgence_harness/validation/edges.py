"""Error rates with the true value exactly at the limit, where HOLDS and VIOLATED are both wrong.

    Shuffled   grids with a mean exactly at the limit, in random orders, a look after every outcome
    Hybrid     independent outcomes with their mean at the limit, and the last look at the cap
    Fixed      the same, one look
    Peeked     Fixed's bounds, a look every ten pairs: wrong on purpose, and must be detected

Counted is whether a bound ever crosses the limit. The finding's other rules (floor, McNemar, near the margin) only
remove claims, and a look after every block can reject less often than a look after every outcome: the measured shares
are upper bounds of P(HOLDS) and P(VIOLATED).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.statistics.designs import ENDLESS, FIXED, Design, Fixed, Hybrid, Limits, Shuffled
from resurgence_harness.statistics.paired_size import claims
from resurgence_harness.validation.looks import evidence
from resurgence_harness.validation.report import Must, Row, monte_carlo

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Outcomes = NDArray[np.int8]
    Flags = NDArray[np.bool_]
    Draw = Callable[[int, Generator], Outcomes]

_ROWS = 500
"""Replicates simulated at once."""


@dataclass(frozen=True)
class Peeked:
    """An invalid design, for testing the checks: the bounds of a fixed number of pairs, with a look every ten."""

    every: int = 10


class Called(NamedTuple):
    """Per replicate, whether a bound ever crossed the limit on that side."""

    holds: Flags
    broken: Flags


def ever(
    design: Design | Peeked, x: Outcomes, *, limit: float, least: int, alphas: Sequence[float]
) -> dict[float, Called]:
    """Per alpha, whether a bound under this design ever crosses the limit, for each row of `x` [replicates, n].

    `least` is the smallest outcome: −1 for paired differences, 0 for hits.
    """
    if isinstance(design, Peeked):
        return {alpha: _peeked(design, x, limit, alpha) for alpha in alphas}
    if isinstance(design, Fixed):
        return {alpha: _fixed(x, limit, least, alpha) for alpha in alphas}
    grid = design.grid if isinstance(design, Shuffled) else ENDLESS
    above = evidence(x, mean=limit, least=least, grid=grid, at_least=True)
    below = evidence(x, mean=limit, least=least, grid=grid, at_least=False)
    if isinstance(design, Shuffled):
        return {alpha: Called(above >= 1 / alpha, below >= 1 / alpha) for alpha in alphas}
    found = {}
    for alpha in alphas:
        last = _fixed(x, limit, least, alpha / 2)
        found[alpha] = Called((above >= 2 / alpha) | last.holds, (below >= 2 / alpha) | last.broken)
    return found


def _fixed(x: Outcomes, limit: float, least: int, alpha: float) -> Called:
    """One look at all outcomes with `Fixed`'s own bounds, computed once per pair of counts that occurs."""
    import numpy as np

    total = x.shape[1]
    counts = np.stack([(x == -1).sum(axis=1), (x == 1).sum(axis=1)], axis=1)
    occurring, place = np.unique(counts, axis=0, return_inverse=True)
    bounds = []
    for lost, gained in occurring.tolist():
        row = (-1,) * lost + (1,) * gained + (0,) * (total - lost - gained)
        if least < 0:
            bounds.append(FIXED.difference(row, alpha, limits=Limits(limit, limit)))
        else:
            bounds.append(FIXED.proportion(row, alpha))
    low, high = np.array(bounds).T
    place = place.ravel()
    return Called((high < limit)[place], (low > limit)[place])


def _peeked(design: Peeked, x: Outcomes, limit: float, alpha: float) -> Called:
    import numpy as np

    looks = np.arange(design.every, x.shape[1] + 1, design.every)
    lost, gained = ((x == change).cumsum(axis=1)[:, looks - 1] for change in (-1, 1))
    inside, outside = claims(lost, gained, looks, limit, alpha)
    return Called(np.any(inside, axis=1), np.any(outside, axis=1))


# True values exactly at the limit


def shuffled_grid(lost: int, gained: int, total: int) -> Draw:
    """Random orders of one grid with these counts of each outcome; a draw is int8 [rows, total]."""

    def draw(rows: int, random: Generator) -> Outcomes:
        import numpy as np

        grid = np.zeros(total, dtype=np.int8)
        grid[:lost], grid[lost : lost + gained] = -1, 1
        return random.permuted(np.broadcast_to(grid, (rows, total)), axis=1)

    return draw


def independent(lost: float, gained: float, total: int) -> Draw:
    """Independent outcomes with these probabilities; a draw is int8 [rows, total]."""

    def draw(rows: int, random: Generator) -> Outcomes:
        import numpy as np

        u = random.random((rows, total), dtype=np.float32)
        return (u < gained).astype(np.int8) - (u >= 1 - lost).astype(np.int8)

    return draw


def shares(
    design: Design | Peeked,
    draw: Draw,
    *,
    limit: float,
    least: int,
    alphas: Sequence[float],
    replicates: int,
    random: Generator,
) -> dict[float, tuple[float, float]]:
    """Per alpha, the shares of replicates in which HOLDS and VIOLATED were ever claimed."""
    counts = {alpha: [0, 0] for alpha in alphas}
    for rows in parts(replicates):
        x = draw(rows, random)
        for alpha, called in ever(design, x, limit=limit, least=least, alphas=alphas).items():
            counts[alpha][0] += int(called.holds.sum())
            counts[alpha][1] += int(called.broken.sum())
    return {alpha: (holds / replicates, broken / replicates) for alpha, (holds, broken) in counts.items()}


def parts(replicates: int) -> Iterator[int]:
    """Split the number of replicates into parts that fit into memory."""
    for start in range(0, replicates, _ROWS):
        yield min(_ROWS, replicates - start)


def seeded(seed: int, what: str) -> Generator:
    """A generator seeded by `seed` and the check's text, so that a check does not depend on the others that are run."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(what.encode())])


# Checks


def check_rise(
    design: Design | Peeked,
    cases: Sequence[tuple[float, float]],
    total: int,
    *,
    delta: float,
    alphas: Sequence[float],
    replicates: int,
    seed: int,
) -> list[Row]:
    """P(HOLDS) and P(VIOLATED) at D = delta; `cases` are (lost, gained): counts of a grid, else probabilities."""
    rows = []
    for lost, gained in cases:
        if isinstance(design, Shuffled):
            draw, what = shuffled_grid(int(lost), int(gained), total), f"grid {total}, +{gained:g} −{lost:g}"
        else:
            draw, what = independent(lost, gained, total), f"{total} pairs, P(gained) {gained:g}, P(lost) {lost:g}"
        found = shares(
            design,
            draw,
            limit=delta,
            least=-1,
            alphas=alphas,
            replicates=replicates,
            random=seeded(seed, f"rise {design} {what}"),
        )
        rows += _rows(f"Error at D = δ = {delta:g}", design, what, found, replicates)
    return rows


def check_level(
    design: Design, totals: Sequence[int], *, limit: float, alphas: Sequence[float], replicates: int, seed: int
) -> list[Row]:
    """P(HOLDS) and P(VIOLATED) at a rate equal to the limit."""
    rows = []
    for total in totals:
        one = {Shuffled: Shuffled(total), Hybrid: Hybrid(total)}.get(type(design), design)
        hits = round(limit * total)
        draw = shuffled_grid(0, hits, total) if isinstance(one, Shuffled) else independent(0.0, limit, total)
        what = f"grid {total}, {hits} hits" if isinstance(one, Shuffled) else f"{total} images, P(hit) {limit:g}"
        found = shares(
            one,
            draw,
            limit=limit,
            least=0,
            alphas=alphas,
            replicates=replicates,
            random=seeded(seed, f"level {one} {what}"),
        )
        rows += _rows(f"Error at rate = limit = {limit:g}", one, what, found, replicates)
    return rows


_NAMES = {
    Shuffled: "shuffled grid, until it is clear",
    Hybrid: "fresh seeds until it is clear, last look at a cap",
    Fixed: "fixed number, one look",
}


def _rows(
    check: str, design: Design | Peeked, what: str, found: dict[float, tuple[float, float]], replicates: int
) -> list[Row]:
    if isinstance(design, Peeked):
        # It suffices that one of the two claims is made far too often.
        return [
            Row(
                f"{check}: WRONG ON PURPOSE, fixed bounds looked at every {design.every} pairs; must be caught",
                f"{what}, α {alpha:g}, HOLDS or VIOLATED, the more frequent",
                max(both),
                Must.EXCEED,
                monte_carlo(alpha, replicates),
            )
            for alpha, both in found.items()
        ]
    return [
        Row(
            f"{check}: {_NAMES[type(design)]}",
            f"{side}, {what}, α {alpha:g}",
            share,
            Must.AT_MOST,
            monte_carlo(alpha, replicates),
        )
        for alpha, both in found.items()
        for side, share in zip(("HOLDS", "VIOLATED"), both, strict=True)
    ]


def check_order(
    *, total: int, concepts: int, risen: int, delta: float, alpha: float, replicates: int, seed: int
) -> list[Row]:
    """P(HOLDS) and P(VIOLATED) at D = delta with the rise in a few concepts: in random order, and concept by concept.

    The grid and the bets are the same. `specs.Grid` excludes an order concept by concept, since it sorts its rows by a
    hash of prompt and seed.
    """
    import numpy as np

    each = total // concepts
    gained = round(delta * total / risen)
    grid = np.zeros((concepts, each), dtype=np.int8)
    grid[:risen, :gained] = 1
    mean = float(grid.sum()) / total

    def at_random(rows: int, random: Generator) -> Outcomes:
        return random.permuted(np.broadcast_to(grid.ravel(), (rows, total)), axis=1)

    def by_concept(rows: int, random: Generator) -> Outcomes:
        within = random.permuted(np.broadcast_to(grid, (rows, concepts, each)), axis=2)
        order = random.permuted(np.broadcast_to(np.arange(concepts), (rows, concepts)), axis=1)
        return np.take_along_axis(within, order[:, :, None], axis=1).reshape(rows, total)

    rows = []
    for name, draw, must in (
        ("cells in random order", at_random, Must.AT_MOST),
        ("WRONG ON PURPOSE, concept by concept; must be caught", by_concept, Must.EXCEED),
    ):
        found = shares(
            Shuffled(total),
            draw,
            limit=mean,
            least=-1,
            alphas=(alpha,),
            replicates=replicates,
            random=seeded(seed, f"order {name}"),
        )[alpha]
        rows += [
            Row(
                f"Order: D = δ, all of it in {risen} of {concepts} concepts, grid {total}",
                f"{name}: {side}, α {alpha:g}",
                share,
                must,
                monte_carlo(alpha, replicates),
            )
            for side, share in zip(("HOLDS", "VIOLATED"), found, strict=True)
        ]
    return rows
