"""What was measured beside what is allowed, as aligned text and as CSV.

A row must stay within what is allowed; or it must exceed it, if its engine is wrong on purpose, since a check that
passes that engine has no teeth; or it should stay within, and is known not to; or it only tells a number.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path

from resurgence_harness.errors import HarnessError, UserError, sentence

COLUMNS = ("check", "setting", "value", "allowed", "passed")
"""Of the CSV."""


class Must(StrEnum):
    """What is asked of a value."""

    AT_MOST = "at most"
    AT_LEAST = "at least"
    EXCEED = "more than"
    """Only of an engine that is wrong on purpose."""
    SHOULD = "should be at most"
    """Known to be exceeded, by a method that is not claimed to be exact: progress, and not judged."""
    NOTHING = ""


class Unit(StrEnum):
    """How a value is shown."""

    SHARE = "%"
    PAIRS = "pairs"
    PLAIN = ""


@dataclass(frozen=True)
class Row:
    """One number, and whether it may be so."""

    check: str
    """What was measured; rows of one check stand together."""
    setting: str
    """Under what."""
    value: float
    must: Must = Must.NOTHING
    allowed: float | None = None
    """The number that `must` speaks of."""
    unit: Unit = Unit.SHARE

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or (self.must is Must.NOTHING) != (self.allowed is None):
            raise HarnessError(
                sentence(
                    "A check of the statistics measured nothing that can be judged.",
                    check=self.check,
                    setting=self.setting,
                    value=self.value,
                    allowed=f"{self.must} {self.allowed}",
                    do="Nothing was validated; report this.",
                )
            )

    @property
    def known(self) -> bool:
        """Whether it is more than it should be, as is known of it."""
        return self.must is Must.SHOULD and self.allowed is not None and self.value > self.allowed

    @property
    def answer(self) -> str:
        """Yes, NO, known, or nothing."""
        return "known" if self.known else {True: "yes", False: "NO", None: ""}[self.passed]

    @property
    def passed(self) -> bool | None:
        """None for a number that is only told or is known to exceed what it should."""
        if self.allowed is None or self.must is Must.SHOULD:
            return None
        if self.must is Must.AT_LEAST:
            return self.value >= self.allowed
        return (self.value <= self.allowed) is (self.must is Must.AT_MOST)


def monte_carlo(alpha: float, replicates: int) -> float:
    """The largest share that simulation may show of an error of alpha: three standard errors above it."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)


def passed(rows: Iterable[Row]) -> bool:
    """Whether everything that must be so is so; a report that judges nothing has not passed."""
    judged = [row.passed for row in rows if row.passed is not None]
    return bool(judged) and all(judged)


def folder(path: Path) -> Path:
    """The directory to write into, made if it is not there; asked for before anything is measured."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} is read-only")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def write(rows: Sequence[Row], into: Path, *, head: str) -> list[Path]:
    """validate.txt, under a head that says what made it, and validate.csv."""
    texts = {
        "validate.txt": f"{head}\n\n{as_text(rows)}",
        "validate.csv": as_csv(rows),
    }
    written = []
    for name, text in texts.items():
        try:
            (into / name).write_text(text, encoding="utf-8")
        except OSError as error:  # `folder` has found that it could be written
            raise HarnessError(str(_unwritable(into, error))) from error
        written.append(into / name)
    return written


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        sentence(f"The report cannot be written into {path}.", reason=error, do="Give a directory that can be written.")
    )


def as_csv(rows: Iterable[Row]) -> str:
    """One line per row, in `COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        allowed = "" if row.allowed is None else f"{row.must} {row.allowed:.6g}"
        writer.writerow((row.check, row.setting, f"{row.value:.6g}", allowed, row.answer))
    return text.getvalue()


def as_text(rows: Sequence[Row]) -> str:
    """The rows under their checks, aligned; last, what failed and whether all is well."""
    width = max((len(row.setting) for row in rows), default=0)
    shown = [
        (_shown(row.value, row.unit), "" if row.allowed is None else _shown(row.allowed, row.unit)) for row in rows
    ]
    wide = max((len(value) for value, _ in shown), default=0)
    lines = []
    for check, group in groupby(zip(rows, shown, strict=True), key=lambda pair: pair[0].check):
        lines += ["", check]
        for row, (value, allowed) in group:
            asked = f"{row.must} {allowed}" if allowed else ""
            lines.append(f"  {row.setting:<{width}}  {value:>{wide}}  {asked:<22}  {row.answer}".rstrip())
    judged = [row for row in rows if row.passed is not None]
    failed = [row for row in judged if not row.passed]
    known = [row for row in rows if row.known]
    lines += ["", *(f"FAILED  {row.check}: {row.setting}" for row in failed)]
    if known:
        worst = max(known, key=lambda row: row.value / (row.allowed or 1.0))
        lines += [
            f"KNOWN   {len(known)} numbers exceed what they should be and are not judged; most of all",
            f"        {worst.check}: {worst.setting}: {_shown(worst.value, worst.unit)}",
        ]
    if failed or not judged:
        lines.append(f"NOT VALID: {len(failed)} of {len(judged)} judged numbers are not as they must be.")
    else:
        lines.append(f"VALID: all {len(judged)} judged numbers are as they must be.")
    return "\n".join(lines).lstrip("\n") + "\n"


def _shown(value: float, unit: Unit) -> str:
    if unit is Unit.SHARE:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f} pairs" if unit is Unit.PAIRS else f"{value:.3g}"
