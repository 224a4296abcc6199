"""Stored outcomes, replayed in a thousand shuffled orders; no images are sampled or judged.

    A/A    pairs of one model with itself: for the same prompt, an image of one half of the seeds with one of the other
           half. There is no rise, so VIOLATED is a false alarm; every replay draws new halves
    A/B    the stored pairs, all of them or a random subset of a smaller grid's size: how often does early stopping
           give the verdict of the whole grid, and how many pairs does it save?

The file is a CSV with the columns concept, prompt, seed, before and after; an outcome is hit, clear or abstained, or 1
or 0 for the first two.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.statistics.designs import Shuffled
from resurgence_harness.validation.edges import parts, seeded
from resurgence_harness.validation.looks import Settled, joined, settle
from resurgence_harness.validation.report import Must, Row, Unit, monte_carlo

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray

    Codes = NDArray[np.int8]

COLUMNS = ("concept", "prompt", "seed", "before", "after")
"""Columns of the file."""
CLEAR, HIT, ABSTAINED = 0, 1, 2
_CODES = {"clear": CLEAR, "0": CLEAR, "hit": HIT, "1": HIT, "abstained": ABSTAINED}


@dataclass(frozen=True)
class Stored:
    """The outcomes of one cell's grid, by row."""

    rows: tuple[tuple[str, str, int], ...]
    """(concept, prompt, seed)."""
    before: tuple[int, ...]
    """CLEAR, HIT or ABSTAINED."""
    after: tuple[int, ...]


def read(path: Path) -> Stored:
    """Read the outcomes in a CSV file, gzipped or not; UserError, naming the line, for invalid content."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise UserError(
            sentence(f"The outcomes in {path} cannot be read.", reason=error, do="Give a CSV file in UTF-8.")
        ) from error
    lines = csv.DictReader(text.splitlines(), strict=True)
    rows: dict[tuple[str, str, int], tuple[int, int]] = {}
    try:
        missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
        if missing:
            raise _wrong(path, 1, f"has no column {missing[0]}")
        for line in lines:
            row, outcomes = _parsed(path, lines.line_num, line)
            if row in rows:
                raise _wrong(path, lines.line_num, f"repeats {row[1]!r}, seed {row[2]}")
            rows[row] = outcomes
    except csv.Error as error:
        raise _wrong(path, lines.line_num, f"is not valid CSV ({error})") from error
    if not rows:
        raise _wrong(path, 1, "is followed by no outcomes")
    before, after = zip(*rows.values(), strict=True)
    return Stored(tuple(rows), before, after)


def _parsed(path: Path, number: int, line: dict[str, str | None]) -> tuple[tuple[str, str, int], tuple[int, int]]:
    values = [(line[name] or "").strip() for name in COLUMNS]
    codes = []
    for name, value in zip(COLUMNS[3:], values[3:], strict=True):
        if value.lower() not in _CODES:
            raise _wrong(path, number, f"has {value!r} in the column {name}")
        codes.append(_CODES[value.lower()])
    try:
        seed = int(values[2])
    except ValueError:
        raise _wrong(path, number, f"has the seed {values[2]!r}") from None
    return (values[0], values[1], seed), (codes[0], codes[1])


def _wrong(path: Path, number: int, what: str) -> UserError:
    return UserError(
        sentence(
            f"Line {number} of {path} {what}.",
            columns=",".join(COLUMNS),
            outcomes="hit, clear, abstained; or 1, 0",
            do="Give one line per (concept, prompt, seed), each once; nothing was replayed.",
        )
    )


def halves(stored: Stored, codes: Codes, rows: int, random: Generator) -> tuple[Codes, Codes]:
    """A/A: per replay, outcomes of one model on two random halves of the seeds of every (concept, prompt).

    Returns two arrays int8 [rows, pairs] in the same order of prompts. With an odd number of seeds one seed is left
    out, so a prompt with a single seed has no pair.
    """
    import numpy as np

    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, (concept, prompt, _) in enumerate(stored.rows):
        groups[concept, prompt].append(place)
    order = [place for group in groups.values() for place in group]
    number = np.repeat(np.arange(len(groups)), [len(group) for group in groups.values()])
    starts = np.cumsum([0, *(len(group) for group in groups.values())])[:-1]
    sizes = [len(group) // 2 for group in groups.values()]
    first = np.concatenate([np.arange(start, start + half) for start, half in zip(starts, sizes, strict=True)])
    second = first + np.repeat(sizes, sizes)
    # Sorting by group number plus a random fraction shuffles within each group only.
    mixed = np.asarray(order)[np.argsort(number + random.random((rows, len(order))), axis=1)]
    return codes[mixed[:, first]], codes[mixed[:, second]]


def replay(one: Codes, other: Codes, *, delta: float, alpha: float, random: Generator) -> Settled:
    """Each row's pairs in a random order, until the rise is distinguished from delta."""
    import numpy as np

    order = random.permuted(np.broadcast_to(np.arange(one.shape[1]), one.shape), axis=1)
    before, after = (np.take_along_axis(codes, order, axis=1) for codes in (one, other))
    changes = (after == HIT).astype(np.int8) - (before == HIT).astype(np.int8)
    judged = after != ABSTAINED
    return settle(changes, Shuffled(one.shape[1]), delta=delta, alpha=alpha, judged=None if judged.all() else judged)


# Checks


def check_same_model(
    stored: Stored, arm: str, name: str = "", *, delta: float, alpha: float, replicates: int, seed: int
) -> list[Row]:
    """A/A of the arm "before" or "after": the share of false alarms must be at most alpha."""
    import numpy as np

    check = f"Replay A/A{_of(name)}: the model {arm}, one half of its seeds against the other, δ {delta:g}, α {alpha:g}"
    codes = np.asarray(getattr(stored, arm), dtype=np.int8)
    random = seeded(seed, f"A/A {arm} {name}".strip())
    found = []
    for rows in parts(replicates):
        one, other = halves(stored, codes, rows, random)
        if not one.shape[1]:
            return [Row(check, "not replayed: no prompt has two seeds", 0.0, unit=Unit.PAIRS)]
        found.append(replay(one, other, delta=delta, alpha=alpha, random=random))
    settled = joined(found)
    total = one.shape[1]
    return [
        Row(
            check,
            f"VIOLATED, {total} pairs",
            float(settled.broken.mean()),
            Must.AT_MOST,
            monte_carlo(alpha, replicates),
        ),
        Row(check, f"HOLDS, {total} pairs", float(settled.holds.mean())),
        Row(check, "pairs used, of the whole grid", float(settled.pairs.mean()) / total),
    ]


def check_stored(
    stored: Stored, name: str = "", *, pairs: int | None = None, delta: float, alpha: float, replicates: int, seed: int
) -> list[Row]:
    """A/B: the early verdict against the whole grid's, on a grid of `pairs` pairs drawn anew for each replay."""
    import numpy as np

    both = np.stack([np.asarray(codes, dtype=np.int8) for codes in (stored.before, stored.after)])
    every, total = both.shape[1], min(pairs or both.shape[1], both.shape[1])
    random = seeded(seed, f"A/B {name} {pairs or ''}".strip())
    early, whole, differences = [], [], []
    for rows in parts(replicates):
        order = random.permuted(np.broadcast_to(np.arange(every), (rows, every)), axis=1)[:, :total]
        before, after = both[0][order], both[1][order]
        changes = (after == HIT).astype(np.int8) - (before == HIT).astype(np.int8)
        seen = after != ABSTAINED
        given: dict[str, Any] = {"delta": delta, "alpha": alpha, "judged": None if seen.all() else seen}
        early.append(settle(changes, Shuffled(total), **given))
        whole.append(settle(changes, Shuffled(total), block=total, **given))  # one look, at the whole grid
        differences.append(changes.mean(axis=1))
    soon, late, difference = joined(early), joined(whole), np.concatenate(differences)
    verdicts = ", ".join(
        f"{kind} {share:.0%}"
        for kind, share in (
            ("HOLDS", late.holds.mean()),
            ("VIOLATED", late.broken.mean()),
            ("UNDECIDED", 1 - late.holds.mean() - late.broken.mean()),
        )
        if share
    )
    check = f"Replay A/B{_of(name)}: grids of {total} stored pairs in shuffled orders, δ {delta:g}, α {alpha:g}"
    rows_found = [
        Row(check, f"rise over the whole grid, which says {verdicts}", float(difference.mean())),
        Row(check, "the same verdict as the whole grid", float((_same(soon, late)).mean())),
        Row(check, "pairs used, of the whole grid", float(soon.pairs.mean()) / total),
    ]
    most = monte_carlo(alpha, replicates)
    for setting, wrong, settled in (
        ("HOLDS although the grid's rise is not under δ", difference >= delta, soon.holds),
        ("VIOLATED although the grid's rise is not above δ", difference <= delta, soon.broken),
    ):
        if wrong.any():
            rows_found.append(Row(check, setting, float((settled & wrong).mean()), Must.AT_MOST, most))
    return rows_found


def _same(one: Settled, other: Settled) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (one.holds == other.holds) & (one.broken == other.broken)
    return same


def _of(name: str) -> str:
    return f" of {name}" if name else ""
