"""Cost and power of a verdict: pairs until it is clear, and how often a planted rise is found.

    expected_pairs   pairs that the sequential engine takes, simulated for assumed rates
    fixed_pairs      pairs that a test with a fixed number needs, by formula

A scenario is P(detected before), P(detected after) and r = P(detected after | detected before). A pair then loses its
hit with P = before (1 − r) and gains one with P = after − before r. r is an assumption until pairs were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.statistics.designs import FIXED, Design, Hybrid, Shuffled
from resurgence_harness.statistics.intervals import check_alpha
from resurgence_harness.validation.edges import independent, parts, seeded
from resurgence_harness.validation.looks import BLOCK, Settled, joined, settle
from resurgence_harness.validation.report import Must, Row, Unit, monte_carlo

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Outcomes = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Pairs until the finding on a rise is clear; a run that stays undecided counts the whole grid."""

    mean: float
    median: float
    p95: float
    """95 % quantile over runs."""
    holds: float
    """Share of runs that conclude that the rise is under delta."""
    broken: float
    """Share of runs that conclude that the rise is above delta."""

    @property
    def undecided(self) -> float:
        """Share of runs that conclude neither."""
        return 1 - self.holds - self.broken


class Scenario(NamedTuple):
    """True detection rates; the rates are the paper's, r is assumed."""

    name: str
    before: float
    after: float
    r: float
    noted: float | None = None
    """Mean pairs on a grid of 2,500 in another simulation, with 24 stakes instead of 8 and a look after every pair."""


SCENARIOS = (
    Scenario("MACE celebrity", 0.042, 0.391, 0.7, 36),
    Scenario("MACE object", 0.045, 0.033, 0.5, 143),
    Scenario("UCE object", 0.023, 0.030, 0.5, 252),
    Scenario("UCE celebrity", 0.001, 0.004, 0.5, 145),
    Scenario("A/A .042", 0.042, 0.042, 0.5, 235),
    Scenario("A/A .042, fresh seeds", 0.042, 0.042, 0.042),
    Scenario("A/A .55", 0.55, 0.55, 0.7, 1039),
    Scenario("A/A 0", 0.0, 0.0, 0.0, 122),
    Scenario("ESD copyright", 0.0, 0.10, 0.0),
    Scenario("MACE unsafe", 0.275, 0.319, 0.7, 2302),
)


def changes(before: float, after: float, r: float) -> tuple[float, float]:
    """(P(lost), P(gained)) for these rates; SpecError if they are inconsistent."""
    lost, gained = before * (1 - r), after - before * r
    rates = (before, after, r)
    if not all(0 <= rate <= 1 for rate in rates) or gained < -1e-12 or lost + gained > 1 + 1e-12:
        raise SpecError(
            sentence(
                "These rates are inconsistent.",
                before=before,
                after=after,
                r=r,
                do="Give fractions, with after − before·r from 0 to 1 − before: r of the hits before are hits after.",
            )
        )
    return lost, max(gained, 0.0)


def expected_pairs(
    before: float,
    after: float,
    r: float,
    delta: float,
    grid: int,
    alpha: float = 0.01,
    *,
    block: int = BLOCK,
    replicates: int = 400,
    seed: int = 0,
) -> Cost:
    """Pairs until a rise is distinguished from delta on a shuffled grid of this size, with a look after every block.

    Simulated with a fixed seed, so the result is reproducible. 400 replicates give the mean within about 5 % and take
    a fraction of a second. SpecError for values out of range.
    """
    check_alpha(alpha)
    if not 0 < delta < 1 or min(grid, block, replicates) < 1:
        raise SpecError(
            sentence(
                "This cost cannot be simulated.",
                delta=delta,
                grid=grid,
                block=block,
                replicates=replicates,
                do="Give delta between 0 and 1, and whole numbers of 1 or more.",
            )
        )
    random = seeded(seed, f"cost {before} {after} {r} {delta} {grid} {alpha} {block}")
    return _cost(_runs(changes(before, after, r), Shuffled(grid), grid, delta, alpha, block, replicates, random)[0])


def costs_of_a_claim(delta: float, alpha: float, grid: int) -> list[tuple[str, Cost]]:
    """(label, cost) of distinguishing a rise from delta in four scenarios, from no hits at all to full resurgence.

    Half of the hits before are assumed to be hits after (r = .5).
    """
    low = 0.04
    risen = [(low, low + delta + 0.05), (low, max(0.39, low + delta + 0.10))]
    truths = [("no hits, before or after", 0.0, 0.0), (f"{low:.0%} before and after", low, low)]
    truths += [(f"{before:.0%} before, {after:.0%} after", before, after) for before, after in risen]
    return [(label, expected_pairs(before, after, 0.5, delta, grid, alpha)) for label, before, after in truths]


def fixed_pairs(psi: float, difference: float, delta: float, alpha: float = 0.01, power: float = 0.95) -> int:
    """Pairs that a test with a fixed number needs to distinguish `difference` from delta with this power.

    N = (z_{1−α} + z_power)² (ψ − D²) / (δ − D)², with ψ the share of pairs that differ; 15.77 at α .01 and power .95.
    A normal approximation: at small ψ, N is governed by `zero_event_floor` instead.
    """
    check_alpha(alpha)
    if not (0 < power < 1 and abs(difference) <= psi <= 1 and difference != delta):
        raise SpecError(
            sentence(
                "No number of pairs can be computed for these values.",
                psi=psi,
                difference=difference,
                delta=delta,
                power=power,
                do="Give a power in (0, 1), |D| ≤ ψ ≤ 1, and a D other than delta.",
            )
        )
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return max(math.ceil(z * z * (psi - difference**2) / (delta - difference) ** 2 - 1e-9), 1)


def _runs(
    probabilities: tuple[float, float],
    design: Design,
    total: int,
    delta: float,
    alpha: float,
    block: int,
    replicates: int,
    random: Generator,
) -> tuple[Settled, NDArray[np.float64]]:
    """When each run was settled, and float64 [replicates], the difference over its whole grid."""
    import numpy as np

    draw = independent(*probabilities, total)
    found, means = [], []
    for rows in parts(replicates):
        x = draw(rows, random)
        found.append(settle(x, design, delta=delta, alpha=alpha, block=block))
        means.append(x.mean(axis=1, dtype=float))
    return joined(found), np.concatenate(means)


def _cost(settled: Settled) -> Cost:
    import numpy as np

    return Cost(
        mean=float(settled.pairs.mean()),
        median=float(np.median(settled.pairs)),
        p95=float(np.quantile(settled.pairs, 0.95, method="higher")),
        holds=float(settled.holds.mean()),
        broken=float(settled.broken.mean()),
    )


def plant(before_hits: int, kept: int, grid: int, rise: int, rows: int, random: Generator) -> Outcomes:
    """Outcomes with a planted regression, in random order: int8 [rows, grid] of −1, 0 and 1.

    Of `before_hits` hits before, `kept` are hits after, and as many new ones are gained as were lost: no rise. Then
    `rise` images that are clear after become hits, chosen at random, possibly among the lost ones.
    """
    import numpy as np

    pairs = np.zeros((grid, 2), dtype=np.int8)
    pairs[:before_hits, 0] = 1
    pairs[:kept, 1] = 1
    pairs[before_hits : 2 * before_hits - kept, 1] = 1
    before, after = (random.permuted(np.broadcast_to(np.arange(grid), (rows, grid)), axis=1) for _ in range(2))
    one, other = pairs[before, 0], pairs[before, 1].copy()
    # The order of `after` is random: the first `rise` clear images in it become hits.
    there = np.take_along_axis(other, after, axis=1) == 0
    turned = there & (there.cumsum(axis=1) <= rise)
    row, place = np.nonzero(turned)
    other[row, after[row, place]] = 1
    return np.asarray(other - one)


# Checks


def check_power(
    *, rates: Sequence[float], r: float, delta: float, beyond: float, cap: int, alpha: float, replicates: int, seed: int
) -> list[Row]:
    """How often a rise planted `beyond` delta is VIOLATED on a grid of `cap` pairs, for several rates before it."""
    rows = []
    for rate in rates:
        hits = round(rate * cap)
        random = seeded(seed, f"power {rate}")
        parted = [
            settle(
                plant(hits, round(r * hits), cap, round((delta + beyond) * cap), count, random),
                Shuffled(cap),
                delta=delta,
                alpha=alpha,
            )
            for count in parts(replicates)
        ]
        settled = joined(parted)
        early = float((settled.broken & (settled.pairs < cap)).mean())
        rows.append(
            Row(
                f"Power: a rise planted at D = δ + {100 * beyond:g} points, grid {cap}, α {alpha:g}, until it is clear",
                f"VIOLATED, {hits} of {cap} hits before, r {r:g}; {settled.pairs.mean():.0f} pairs on average,"
                f" {100 * early:.0f} % before the grid's end",
                float(settled.broken.mean()),
                Must.AT_LEAST,
                0.95,
            )
        )
    return rows


def check_fresh_power(
    *, rates: Sequence[float], r: float, delta: float, beyond: float, cap: int, alpha: float, replicates: int, seed: int
) -> list[Row]:
    """The same for a claim on fresh seeds, where the grid is unlimited, with the number of pairs by formula."""
    rows = []
    for rate in rates:
        probabilities = changes(rate, rate + delta + beyond, r)
        needed = fixed_pairs(sum(probabilities), delta + beyond, delta, alpha)
        for name, design, total in (
            ("last look at a cap", Hybrid(cap), cap),
            ("fixed number", FIXED, cap),
            ("fixed number", FIXED, 125),
        ):
            random = seeded(seed, f"fresh {rate} {name} {total}")
            settled, _ = _runs(probabilities, design, total, delta, alpha, BLOCK, replicates, random)
            rows.append(
                Row(
                    f"Power: a rise of δ + {100 * beyond:g} points on fresh seeds, α {alpha:g}",
                    f"VIOLATED, {rate:g} before, r {r:g}, {name}, {total} pairs (formula for .95: {needed:,})",
                    float(settled.broken.mean()),
                )
            )
    return rows


def check_costs(*, grid: int, delta: float, alpha: float, replicates: int, seed: int) -> list[Row]:
    """Pairs and verdicts of every scenario on a grid, and how often an early verdict contradicts the whole grid."""
    rows, alarms, used, wrong = [], [], 0.0, (0.0, 0.0)
    check = f"Cost: pairs until a rise is distinguished from δ = {delta:g}, grid {grid}, α {alpha:g}, mean"
    for scenario in SCENARIOS:
        truth = changes(scenario.before, scenario.after, scenario.r)
        random = seeded(seed, f"costs {scenario.name} {grid}")
        settled, whole = _runs(truth, Shuffled(grid), grid, delta, alpha, BLOCK, replicates, random)
        cost = _cost(settled)
        used += cost.mean / grid / len(SCENARIOS)
        wrong = (
            max(wrong[0], float((settled.holds & (whole >= delta)).mean())),
            max(wrong[1], float((settled.broken & (whole <= delta)).mean())),
        )
        if scenario.before == scenario.after:
            alarms.append(
                Row(
                    f"Cost: VIOLATED on grid {grid} without a true rise: a verdict covers only the seeds of its grid",
                    f"{scenario.name}, r {scenario.r:g}, α {alpha:g}",
                    cost.broken,
                    Must.SHOULD,
                    monte_carlo(alpha, replicates),
                )
            )
        noted = f"; noted {scenario.noted:,.0f}" if scenario.noted and grid == 2500 else ""
        rows.append(
            Row(
                check,
                f"{scenario.name} {scenario.before:g} → {scenario.after:g}, r {scenario.r:g}: median {cost.median:.0f},"
                f" 95 % {cost.p95:.0f}; H {cost.holds:.2f} V {cost.broken:.2f} U {abs(cost.undecided):.2f}{noted}",
                cost.mean,
                unit=Unit.PAIRS,
            )
        )
    rows.append(Row(check, f"mean over {len(SCENARIOS)} scenarios, of the images of the whole grid", used))
    rows += alarms
    rows += [
        Row(
            f"Cost: a verdict on grid {grid} that its own whole grid contradicts",
            f"{side}, the worst scenario, α {alpha:g}",
            share,
            Must.AT_MOST,
            monte_carlo(alpha, replicates),
        )
        for side, share in zip(("HOLDS", "VIOLATED"), wrong, strict=True)
    ]
    return rows
