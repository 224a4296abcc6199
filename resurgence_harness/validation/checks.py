"""The checks of `resurgence validate`; each has its own random generator, so they are independent of one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.process import signals
from resurgence_harness.statistics.designs import FIXED, Hybrid, Shuffled
from resurgence_harness.validation import edges, exactness, power, replays
from resurgence_harness.validation.report import Row

ALPHA, DELTA, LEVEL = 0.01, 0.05, 0.10
"""The default policy: error per side, largest rise, largest rate."""
CAP, PAPER = 500, 2500
"""Grid sizes: the largest of a cell, and the paper's benchmark."""
DISCORDANT = (0.0, 0.02, 0.1, 0.2)
"""Values of P(lost); P(gained) is larger by δ."""

RATES = (0.0, 0.02, 0.042, 0.1, 0.3, 0.55)
"""Hit rates before a planted rise."""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The effort of the validation."""

    replicates: int
    """Replicates per simulated error rate."""
    numbers: tuple[int, ...]
    """Fixed numbers of pairs whose error is summed exactly."""
    orders: tuple[tuple[int, int, int], ...]
    """(total, lost, gained) of small grids whose orders are all enumerated."""
    repeats: int
    """Replicates for power and costs."""
    replays: int
    """Replays of stored outcomes."""


FAST = Depth(
    replicates=500,
    numbers=(90, 125, 200, 250),
    orders=((20, 0, 2), (30, 0, 3), (20, 1, 2)),
    repeats=200,
    replays=1000,
)
FULL = Depth(
    replicates=10_000,
    numbers=(90, 125, 126, 150, 200, 250, 300, 400, 500),
    orders=((20, 0, 2), (30, 0, 3), (40, 0, 4), (20, 1, 2), (40, 1, 3)),
    repeats=2000,
    replays=10_000,
)

Check = tuple[str, Callable[[], list[Row]]]
"""The name of a check, and the function that runs it."""


def every_check(depth: Depth, *, seed: int = 0, stored: Mapping[str, replays.Stored] | None = None) -> list[Check]:
    """All checks, in the order of the report; `stored` outcomes, by name, are replayed as well."""
    if seed < 0:
        raise UserError(sentence(f"The seed is {seed}.", do="Give 0 or more with --seed."))
    simulated: dict[str, Any] = {"alphas": (ALPHA, 0.05), "replicates": depth.replicates, "seed": seed}
    rise = partial(edges.check_rise, delta=DELTA, **simulated)
    level = partial(edges.check_level, limit=LEVEL, **simulated)
    independent = [(q, q + DELTA) for q in DISCORDANT]
    spent: dict[str, Any] = {"delta": DELTA, "alpha": ALPHA, "seed": seed}

    def realised(total: int) -> list[tuple[float, float]]:
        return [(round(q * total), round((q + DELTA) * total)) for q in DISCORDANT]

    def fixed(n: int) -> Check:
        cases = [(0.005, 0.005 + DELTA), *independent[1::2]]
        return f"error of a fixed number, {n} pairs", partial(rise, FIXED, cases, n)

    found: list[Check] = []
    for total in (CAP, PAPER):
        found.append(
            (f"error on a shuffled grid, {total} pairs", partial(rise, Shuffled(total), realised(total), total))
        )
    for total in (CAP, PAPER):
        found.append((f"error of the hybrid, cap {total}", partial(rise, Hybrid(total), independent, total)))
    found += [fixed(n) for n in (90, 125, 250, CAP)]
    found.append(("an engine that peeks", partial(rise, edges.Peeked(), independent[1::2], CAP)))
    for design, name in ((Shuffled(CAP), "a shuffled grid"), (Hybrid(CAP), "the hybrid")):
        found.append((f"error of a level, {name}", partial(level, design, (CAP, PAPER))))
    found.append(("error of a level, fixed number", partial(level, FIXED, (90, 125, 250, CAP))))
    trap = partial(edges.check_order, total=PAPER, concepts=100, risen=10, replicates=depth.replicates, **spent)
    found.append(("concepts one after the other", trap))
    planted = {"rates": RATES, "r": 0.7, "beyond": 0.05, "cap": CAP, "replicates": depth.repeats, **spent}
    found += [
        ("exact: rates", partial(exactness.check_proportions, depth.numbers, (ALPHA, 0.05))),
        ("exact: pairs", partial(exactness.check_paired, depth.numbers, DELTA, ALPHA)),
        ("exact: pairs, utility", partial(exactness.check_paired, (200, 400), 0.10, ALPHA)),
        ("exact: hybrid", partial(exactness.check_hybrid, CAP, DISCORDANT, DELTA, LEVEL, ALPHA)),
        ("exact: orders", partial(exactness.check_orders, depth.orders, (0.05, 0.2))),
        ("power at a planted rise", partial(power.check_power, **planted)),
        ("power on fresh seeds", partial(power.check_fresh_power, **planted)),
    ]
    for grid in (250, CAP, PAPER):
        found.append(
            (f"costs on a grid of {grid}", partial(power.check_costs, grid=grid, replicates=depth.repeats, **spent))
        )
    replayed: dict[str, Any] = {"replicates": depth.replays, **spent}
    for name, one in (stored or {}).items():
        found += [
            (f"{name}, A/A {arm}", partial(replays.check_same_model, one, arm, name, **replayed))
            for arm in ("before", "after")
        ]
        found += [
            (f"{name}, A/B {pairs or ''}", partial(replays.check_stored, one, name, pairs=pairs, **replayed))
            for pairs in (None, 250)
        ]
    return found


def run(
    checks: Sequence[Check], *, jobs: int = 1, progress: Callable[[str, float, int], None] | None = None
) -> list[Row]:
    """Run the checks in `jobs` processes; the rows are in the order of the checks.

    `progress` gets the name and the seconds of each check, and how many are done. HarnessError if a process dies, since
    a check without a result has not passed.
    """
    if jobs < 1:
        raise UserError(sentence(f"{jobs} processes cannot run the checks.", do="Give 1 or more with --jobs."))
    rows: list[list[Row]] = [[] for _ in checks]
    for done, (place, seconds, found) in enumerate(_measured(checks, jobs), start=1):
        rows[place] = found
        if progress is not None:
            progress(checks[place][0], seconds, done)
    return _together([row for part in rows for row in part])


def _measured(checks: Sequence[Check], jobs: int) -> Iterator[tuple[int, float, list[Row]]]:
    """(index, seconds, rows) of every check, in the order of completion."""
    if jobs == 1:
        for place, (_, check) in enumerate(checks):
            yield (place, *_timed(check))
        return
    with ProcessPoolExecutor(max_workers=jobs, initializer=signals.for_worker) as pool:
        waiting = {pool.submit(_timed, check): place for place, (_, check) in enumerate(checks)}
        try:
            for future in as_completed(waiting):
                yield (waiting[future], *future.result())
        except BrokenProcessPool as error:
            raise HarnessError(
                sentence(
                    "A process that measured the statistics died.", do="Try fewer with --jobs; nothing is valid yet."
                )
            ) from error
        except BaseException:  # otherwise the pool would wait until its processes are done
            signals.end_children()
            raise


def _timed(check: Callable[[], list[Row]]) -> tuple[float, list[Row]]:
    start = perf_counter()
    rows = check()
    return perf_counter() - start, rows


def _together(rows: list[Row]) -> list[Row]:
    """The rows grouped by heading, headings in order of first appearance."""
    headings = {check: place for place, check in enumerate(dict.fromkeys(row.check for row in rows))}
    return sorted(rows, key=lambda row: headings[row.check])
