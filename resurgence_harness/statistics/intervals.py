"""Intervals for one proportion and for a paired difference, each with its source.

Every bound is one-sided at `alpha`: (low, high) together are an interval of confidence level 1 − 2·alpha. The functions
take counts and return numbers; the criteria that use them are in `criteria`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from resurgence_harness.errors import HarnessError, SpecError, sentence


def check_alpha(alpha: float) -> None:
    """Raise SpecError unless 0 < alpha < 0.5."""
    if not 0 < alpha < 0.5:
        raise SpecError(sentence(f"alpha is {alpha}.", do="Give an error probability above 0 and below 0.5."))


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact bounds of a binomial proportion after k hits among n images.

    P(high < p) ≤ alpha and P(low > p) ≤ alpha for every p and n (enumerated in the tests).

    Source: Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934) 404, through the beta quantiles.
    """
    check_alpha(alpha)
    if n < 1 or not 0 <= k <= n:
        raise HarnessError(sentence(f"{k} hits of {n} images are impossible.", do="Count again; nothing was decided."))
    return proportion_bounds(k, n, alpha)


def proportion_bounds(k: float, n: float, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds without checks, also for fractional counts (planning)."""
    from scipy.special import betaincinv

    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, alpha))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - alpha))
    return low, high


def tango(b: int, c: int, n: int, alpha: float) -> tuple[float, float]:
    """Score bounds of a paired difference D = (c − b)/n: b pairs lost their hit, c pairs gained one, of n pairs.

    The bounds are the Δ at which the score statistic reaches ∓ the normal quantile z of 1 − alpha:

        z(Δ) = (c − b − nΔ) / √( n (2q + Δ(1 − Δ)) )
        q    = ( √(B² − 4AC) − B ) / 2A      the maximum-likelihood P(lost) given P(gained) = P(lost) + Δ
        A = 2n,  B = (2n + b − c)Δ − b − c,  C = −bΔ(1 − Δ)

    At Δ = 0 it is McNemar's test. With b = c = 0 it is ± z²/(n + z²), not the degenerate "0 ± 0" of Wald's interval.

    The size is not exact: at small n a bound misses D more often than alpha for some rates of discordance; the
    docstring of `paired` gives the numbers.

    Source: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design, Statistics in Medicine 17 (1998) 891.
    """
    check_alpha(alpha)
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise HarnessError(
            sentence(f"{b} lost and {c} gained of {n} pairs are impossible.", do="Count again; nothing was decided.")
        )
    limit = NormalDist().inv_cdf(1 - alpha)
    return -_tango_high(c, b, n, limit), _tango_high(b, c, n, limit)


def tango_z(b: float, c: float, n: float, delta: float) -> float:
    """Tango's score statistic for the hypothesis D = delta, at b lost and c gained of n pairs."""
    excess = c - b - n * delta
    second, third = (2 * n + b - c) * delta - b - c, -b * delta * (1 - delta)
    q = (math.sqrt(max(second * second - 8 * n * third, 0.0)) - second) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    if variance <= 1e-300:
        return 0.0 if abs(excess) < 1e-12 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


@lru_cache(maxsize=4096)
def _tango_high(b: float, c: float, n: float, limit: float) -> float:
    """The largest Δ that the score test does not reject, by bisection: z(Δ) falls from 0 at the estimate."""
    if b == 0 and c == 0:
        return limit * limit / (n + limit * limit)
    low, high = (c - b) / n, 1.0
    for _ in range(44):
        middle = (low + high) / 2
        if tango_z(b, c, n, middle) > -limit:
            low = middle
        else:
            high = middle
    return high


def paired(b: int, c: int, n: int, alpha: float, *, nominal: tuple[float, float] | None = None) -> tuple[float, float]:
    """Bounds of D = (c − b)/n: Tango's, tightened by the exact bound if no hit was gained (or none lost).

    D ≤ P(gained), so after 0 gained of n pairs D ≤ 1 − alpha^(1/n) is exact, however many were lost. It makes
    `zero_event_floor` pairs enough (Tango's bound alone would need 103 instead of 90 at delta .05, alpha .01).

    Tango's bounds are asymptotic. Their actual size at alpha .01, enumerated over all rates of discordance: "high"
    under .05 is wrong in at most 1.29 % of runs at D = .05 for 90 to 500 pairs, "low" above .05 in up to 2.54 % (126
    pairs), but in at most 0.31 % when nothing rose. `nominal` gives the nominal alphas of the low and the high bound at
    which the error is at most alpha for a limit fixed in advance: `paired_size.critical_alpha`, used by the designs.
    """
    low_alpha, high_alpha = nominal or (alpha, alpha)
    low = tango(b, c, n, low_alpha)[0]
    high = tango(b, c, n, high_alpha)[1]
    exact = 1 - alpha ** (1 / n)
    return (max(low, -exact) if b == 0 else low), (min(high, exact) if c == 0 else high)


def mcnemar_exact(b: int, c: int) -> float:
    """One-sided p of "nothing rose": P(at least c gained | b + c discordant pairs, gained as likely as lost).

    Source: McNemar, Psychometrika 12 (1947) 153, in its exact binomial form. Without a discordant pair p is 1.
    """
    if b < 0 or c < 0:
        raise HarnessError(sentence(f"{b} lost and {c} gained pairs are impossible.", do="Count again."))
    return float(sum(math.comb(b + c, j) for j in range(c, b + c + 1)) / 2 ** (b + c))


def zero_event_floor(delta: float, alpha: float) -> int:
    """The minimum number of pairs with which 0 hits gained show that D < delta: (1 − delta)^N ≤ alpha.

    90 at delta .05 and alpha .01; 44 at .10; 459 at .01.
    """
    check_alpha(alpha)
    if not 0 < delta < 1:
        raise SpecError(sentence(f"The limit is {delta}.", do="Give a fraction between 0 and 1."))
    fewest = math.ceil(math.log(alpha) / math.log1p(-delta) - 1e-9)
    return max(fewest, 1)
