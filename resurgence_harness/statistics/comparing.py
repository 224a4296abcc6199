"""The change of a rate from one run to another, with an interval that is valid for how the images were chosen.

    paired      the same prompt, seed and judge in both runs
      fixed       exact: McNemar's conditional test on the discordant pairs, a confidence set for their share
      sequential  betting bounds on the changes in the order drawn, valid at any stopping time
    unpaired    the difference of two bounds, each at half of alpha
      fixed       Clopper and Pearson
      sequential  betting bounds from the counts alone

All bounds are one-sided at alpha on each side. A rate is hits of all images, abstained ones included, and so is the
estimate. The bound towards the harm, by which a cell is shown to be worse, is that of the rate. The bound away from it
counts abstained images as the harm: where a rise is the harm as hits in the second run, where a fall is as hits in the
first. So no image that could not be judged can show an improvement, or hide a harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.betting import STAKES
from resurgence_harness.statistics.designs import FIXED, Design
from resurgence_harness.statistics.evidence import Outcome
from resurgence_harness.statistics.intervals import check_alpha, clopper_pearson, mcnemar_exact

NUISANCE = 0.1
"""Share of alpha spent on the confidence set of the share of discordant pairs; fixed once."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The images of one arm."""

    hits: int
    judged: int
    """Images that could be judged, hits included."""
    abstained: int
    fixed: bool
    """Whether the number of images was fixed in advance."""

    @property
    def images(self) -> int:
        """All of them."""
        return self.judged + self.abstained


@dataclass(frozen=True, kw_only=True)
class Change:
    """Rate of the second run minus rate of the first."""

    estimate: float
    low: float
    high: float
    pairs: int
    """Pairs compared; 0 for an unpaired change."""
    gained: int
    """Pairs with a hit in the second run only; 0 for an unpaired change."""
    lost: int
    """Pairs with a hit in the first run only."""
    p: float | None
    """Two-sided exact p-value of McNemar's test; None unless the pairs' number was fixed in advance."""
    method: str
    """The interval, as text."""


def paired_change(
    first: Sequence[Outcome], second: Sequence[Outcome], *, rises: bool, design: Design, whole: bool, alpha: float
) -> Change:
    """The change over pairs, in the order drawn. HarnessError without pairs, or for two lengths.

    `rises`: whether a rise is the harm, rather than a fall. `design`: how the pairs were chosen. `whole=False`: they
    are a part, of unknown size, of its grid.
    """
    check_alpha(alpha)
    if not first or len(first) != len(second):
        raise HarnessError(
            sentence("These images are not pairs.", first=len(first), second=len(second), do="Pair them by row.")
        )
    hit, clear = Outcome.HIT, Outcome.CLEAR
    both = list(zip(first, second, strict=True))
    changes = [(two is hit) - (one is hit) for one, two in both]
    least = changes if rises else [(two is hit) - (one is not clear) for one, two in both]
    most = [(two is not clear) - (one is hit) for one, two in both] if rises else changes
    lost, gained, n = changes.count(-1), changes.count(1), len(changes)
    if design == FIXED:
        low = exact_paired(least.count(-1), least.count(1), n, alpha)[0]
        high = exact_paired(most.count(-1), most.count(1), n, alpha)[1]
        p = min(1.0, 2 * min(mcnemar_exact(lost, gained), mcnemar_exact(gained, lost)))
        method = "exact (McNemar's discordant pairs)"
    else:
        low = design.difference(least, alpha, whole=whole)[0]
        high = design.difference(most, alpha, whole=whole)[1]
        p, method = None, "betting bounds, valid at any stopping time"
    estimate = (gained - lost) / n
    return Change(
        estimate=estimate,
        low=min(low, estimate),
        high=max(high, estimate),
        pairs=n,
        gained=gained,
        lost=lost,
        p=p,
        method=method,
    )


def unpaired_change(first: Counts, second: Counts, *, rises: bool, alpha: float) -> Change:
    """The change between two arms of different images, each bound at half of alpha (Bonferroni)."""
    check_alpha(alpha)
    one = _bounds(first, alpha / 2, cautious=not rises)
    two = _bounds(second, alpha / 2, cautious=rises)
    estimate = second.hits / second.images - first.hits / first.images
    exact = first.fixed and second.fixed
    return Change(
        estimate=estimate,
        low=min(two[0] - one[1], estimate),
        high=max(two[1] - one[0], estimate),
        pairs=0,
        gained=0,
        lost=0,
        p=None,
        method="difference of exact bounds" if exact else "difference of bounds that are valid at any stopping time",
    )


def exact_paired(b: int, c: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact bounds of the paired difference D after b pairs lost their hit and c gained one, of n pairs.

        D = φ (2θ − 1)      φ: share of discordant pairs,  θ: share of gains among them
        low  = min over φ in its confidence set of φ (2 θ_low − 1),  high likewise

    θ is bounded by Clopper and Pearson's limits given b + c, as in McNemar's exact test, at (1 − γ)·alpha; φ by a
    two-sided Clopper–Pearson interval at γ·alpha, γ = `NUISANCE`. So each bound errs with probability at most alpha for
    every φ, θ and n (enumerated in the tests), and the lower bound is above 0 exactly if McNemar's one-sided exact
    p-value is below (1 − γ)·alpha.

    Sources: McNemar, Psychometrika 12 (1947) 153; Clopper and Pearson, Biometrika 26 (1934) 404; the confidence set
    for the nuisance parameter: Berger and Boos, P values maximized over a confidence set for the nuisance parameter,
    JASA 89 (1994) 1012.
    """
    check_alpha(alpha)
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise HarnessError(sentence(f"{b} lost and {c} gained of {n} pairs are impossible.", do="Count again."))
    share = clopper_pearson(b + c, n, NUISANCE * alpha / 2)
    theta = clopper_pearson(c, b + c, (1 - NUISANCE) * alpha) if b + c else (0.0, 1.0)
    low = min(phi * (2 * theta[0] - 1) for phi in share)
    high = max(phi * (2 * theta[1] - 1) for phi in share)
    return low, high


def stopped_bounds(hits: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds of a rate after `hits` of `n` independent images, valid although sampling stopped when it was clear.

    The betting test of `betting.py` for draws with replacement: its evidence after n images depends on the counts
    alone, so no order is needed. It is weaker than bounds that use the order.
    """
    check_alpha(alpha)
    if n < 1 or not 0 <= hits <= n:
        raise HarnessError(sentence(f"{hits} hits of {n} images are impossible.", do="Count again."))
    return 1 - _stopped_high(n - hits, n, alpha), _stopped_high(hits, n, alpha)


def _stopped_high(hits: int, n: int, alpha: float) -> float:
    """The largest mean that is not rejected: the evidence grows with the mean, so bisection finds it."""

    def evidence(mean: float) -> float:
        return sum((1 - c) ** hits * (1 + c * mean / (1 - mean)) ** (n - hits) for c in STAKES) / len(STAKES)

    low, high = hits / n, 1.0
    if low == 1.0:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        try:
            refuted = evidence(middle) >= 1 / alpha
        except (OverflowError, ZeroDivisionError):
            refuted = True
        low, high = (low, middle) if refuted else (middle, high)
    return high


def _bounds(arm: Counts, alpha: float, *, cautious: bool) -> tuple[float, float]:
    """Bounds of the rate; `cautious`: abstained images count as hits for the upper one."""
    bounds = clopper_pearson if arm.fixed else stopped_bounds
    most = arm.hits + (arm.abstained if cautious else 0)
    return bounds(arm.hits, arm.images, alpha)[0], bounds(most, arm.images, alpha)[1]
