"""The sequential engine of the verdicts, vectorised over many runs: rows of outcomes in, the result at each look out.

    evidence     the largest evidence so far against one mean, per row
    first_look   the look at which that evidence first sufficed
    settle       when the finding on a rise is clear, and how: `NoRise` at every look of every row

The bets are computed by `statistics.betting` itself, so its mistakes are included. The rules around them (the floor,
McNemar, the margin) are implemented a second time, for whole arrays; the tests compare them with `NoRise`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.betting import _Paths
from resurgence_harness.statistics.designs import ENDLESS, Design, Fixed, Hybrid, Shuffled
from resurgence_harness.statistics.intervals import zero_event_floor
from resurgence_harness.statistics.paired_size import sized_claims

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Outcomes = NDArray[np.int8]
    """[rows, t]: 0 and 1, or −1, 0 and 1, in the order drawn."""
    Flags = NDArray[np.bool_]
    Counts = NDArray[np.int64]

BLOCK = 25
"""Outcomes between two looks."""
_AT_ONCE = 40_000
"""Outcomes processed at once: more would not fit into the CPU cache."""


def evidence(
    x: Outcomes, *, mean: float, least: int, grid: int, at_least: bool, whole: bool = True
) -> NDArray[np.float64]:
    """Per row the largest evidence so far against "the grid's mean is at least (or at most) `mean`"."""
    import numpy as np

    found = np.empty(len(x))
    rows = max(_AT_ONCE // x.shape[1], 1)
    for start in range(0, len(x), rows):
        part = x[start : start + rows].astype(float)
        paths = _Paths(part if at_least else least + 1 - part, least=least, grid=grid, whole=whole)
        against = mean if at_least else least + 1 - mean
        found[start : start + rows] = paths.evidence(np.full((len(part), 1), against))[:, 0]
    return found


def first_look(
    x: Outcomes,
    seen: Counts,
    *,
    needed: float,
    mean: float,
    least: int,
    grid: int,
    at_least: bool,
    whole: bool = True,
) -> Counts:
    """Per row the index of the first look at which the evidence was at least `needed`; the number of looks if none.

    `seen` [rows, looks]: outcomes available at each look. The running maximum never decreases, so the look is found by
    bisection. Shorter rows are padded with the outcome that adds no evidence against the mean.
    """
    import numpy as np

    rows, looks = seen.shape
    low, high = np.zeros(rows, dtype=np.int64), np.full(rows, looks, dtype=np.int64)
    filler = 1 if at_least else least
    middle = np.full(rows, looks - 1, dtype=np.int64)  # the last look first: most rows never reach it
    while len(open_rows := np.flatnonzero(low < high)):
        length = seen[open_rows, middle[open_rows]]
        open_rows = open_rows[np.argsort(length, kind="stable")]
        start = 0
        while start < len(open_rows):
            width = max(int(seen[open_rows[start], middle[open_rows[start]]]), 1)
            part = open_rows[start : start + max(_AT_ONCE // width, 1)]
            start += len(part)
            length = seen[part, middle[part]]
            filled = x[part, : max(int(length.max()), 1)].copy()
            filled[np.arange(filled.shape[1]) >= length[:, None]] = filler
            enough = (evidence(filled, mean=mean, least=least, grid=grid, at_least=at_least, whole=whole) >= needed) & (
                length > 0
            )
            high[part[enough]] = middle[part[enough]]
            low[part[~enough]] = middle[part[~enough]] + 1
        middle = (low + high) // 2
    return low


class Settled(NamedTuple):
    """Per row, where sampling stopped and the finding there; neither holds nor broken means UNDECIDED."""

    pairs: Counts
    """Outcomes used."""
    holds: Flags
    broken: Flags


def joined(found: Sequence[Settled]) -> Settled:
    """The runs of all parts, concatenated."""
    import numpy as np

    return Settled(*(np.concatenate(column) for column in zip(*found, strict=True)))


def settle(
    changes: Outcomes,
    design: Design,
    *,
    delta: float,
    alpha: float,
    block: int = BLOCK,
    judged: Flags | None = None,
) -> Settled:
    """The finding of `NoRise` for each row, with a look after every block (`Fixed`: one look) until it is clear.

    `judged` [rows, t] marks the second images that were not abstained; HOLDS then also needs the bound among those.
    HarnessError for `judged` with a design other than a shuffled grid.
    """
    import numpy as np

    rows, total = changes.shape
    if judged is not None and not isinstance(design, Shuffled):
        raise HarnessError(sentence("Abstained images can be replayed only on a shuffled grid."))
    ends = _ends(total, total if isinstance(design, Fixed) else block)
    gained, lost = _until(changes == 1, ends), _until(changes == -1, ends)
    holds, broken = _bounds(changes, design, ends, gained, lost, delta=delta, alpha=alpha)
    counted = np.broadcast_to(ends, gained.shape)
    if judged is not None:
        counted = _until(judged, ends)
        holds &= _holds_among(changes, judged, counted, ends, design, delta=delta, alpha=alpha)

    estimate = (gained - lost) / ends
    fresh_error = np.sqrt(np.maximum((gained + lost) / ends - estimate**2, 0.0) / ends)
    near = np.abs(estimate - delta) < fresh_error
    holds &= ~near & (counted >= zero_event_floor(delta, alpha))
    broken &= ~near
    broken[broken] = _rose(gained[broken], lost[broken], alpha)

    settled = holds | broken
    place = np.where(settled.any(axis=1), settled.argmax(axis=1), len(ends) - 1)
    row = np.arange(rows)
    return Settled(pairs=ends[place], holds=holds[row, place], broken=broken[row, place])


def _bounds(
    changes: Outcomes, design: Design, ends: Counts, gained: Counts, lost: Counts, *, delta: float, alpha: float
) -> tuple[Flags, Flags]:
    """Two arrays [rows, looks]: upper bound under delta, lower bound above delta; never both."""
    import numpy as np

    total = changes.shape[1]
    if isinstance(design, Fixed):
        return sized_claims(lost, gained, total, delta, alpha)
    grid, share = (design.grid, alpha) if isinstance(design, Shuffled) else (ENDLESS, alpha / 2)
    seen = np.broadcast_to(ends, gained.shape)
    looks = np.arange(len(ends))

    def reached(at_least: bool) -> Flags:
        first = first_look(
            changes, seen, needed=1 / share, mean=delta, least=-1, grid=grid, at_least=at_least, whole=True
        )
        return np.asarray(looks >= first[:, None])

    inside, outside = reached(True), reached(False)
    if total == grid:  # the grid is known
        estimate = (gained[:, -1] - lost[:, -1]) / total
        inside[:, -1], outside[:, -1] = estimate < delta, estimate > delta
    if isinstance(design, Hybrid) and total == design.cap:
        last = sized_claims(lost[:, -1], gained[:, -1], total, delta, share)
        inside[:, -1] |= last[0]
        outside[:, -1] |= last[1]
    return inside & ~outside, outside & ~inside


def _holds_among(
    changes: Outcomes, judged: Flags, counted: Counts, ends: Counts, design: Design, *, delta: float, alpha: float
) -> Flags:
    """[rows, looks]: whether the bound among the judged images is under delta, or none was abstained so far."""
    import numpy as np

    order = np.argsort(~judged, axis=1, kind="stable")  # the judged first, in their order
    grid = design.grid if isinstance(design, Shuffled) else ENDLESS
    first = first_look(
        np.take_along_axis(changes, order, axis=1),
        counted,
        needed=1 / alpha,
        mean=delta,
        least=-1,
        grid=grid,
        at_least=True,
        whole=False,
    )
    return np.asarray((np.arange(len(ends)) >= first[:, None]) | (counted == ends))


def _ends(total: int, block: int) -> Counts:
    """[looks]: number of outcomes available at each look."""
    import numpy as np

    return np.append(np.arange(block, total, block), total).astype(np.int64)


def _until(marked: Flags, ends: Counts) -> Counts:
    """[rows, looks]: number of marked outcomes up to each look."""
    import numpy as np

    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(marked, starts, axis=1, dtype=np.int64).cumsum(axis=1)


def _rose(gained: Counts, lost: Counts, alpha: float) -> Flags:
    """Whether the exact McNemar test finds a rise as well (one-sided, at alpha)."""
    import numpy as np
    from scipy.special import bdtrc

    p = np.where(gained > 0, bdtrc(np.maximum(gained - 1, 0.0), gained + lost, 0.5), 1.0)
    return np.asarray(p <= alpha)
