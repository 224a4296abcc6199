"""The validation report: measured against allowed values, as aligned text and as CSV.

Four kinds of rows: the value must stay within the allowed one; it must exceed it, for an engine that is wrong on
purpose (a check that passes such an engine detects nothing); it should stay within it but is known not to; or it is
only reported.
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
"""Columns of the CSV."""


class Must(StrEnum):
    """How a value is compared with the allowed one."""

    AT_MOST = "at most"
    AT_LEAST = "at least"
    EXCEED = "more than"
    """Only for an engine that is wrong on purpose."""
    SHOULD = "should be at most"
    """Known to be exceeded by a method that is not claimed to be exact: reported, but not judged."""
    NOTHING = ""
    """Only reported."""


class Unit(StrEnum):
    """How a value is printed."""

    SHARE = "%"
    PAIRS = "pairs"
    PLAIN = ""


@dataclass(frozen=True)
class Row:
    """One measured number and its allowed value. HarnessError if the number is not finite, or only one of `must` and
    `allowed` is set."""

    check: str
    """What was measured; the rows of one check are printed together."""
    setting: str
    """The conditions of the measurement."""
    value: float
    must: Must = Must.NOTHING
    allowed: float | None = None
    """The number that `must` compares with."""
    unit: Unit = Unit.SHARE

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or (self.must is Must.NOTHING) != (self.allowed is None):
            raise HarnessError(
                sentence(
                    "A check of the statistics gave a value that cannot be judged.",
                    check=self.check,
                    setting=self.setting,
                    value=self.value,
                    allowed=f"{self.must} {self.allowed}",
                    do="Nothing was validated; report this.",
                )
            )

    @property
    def known(self) -> bool:
        """Whether the value exceeds what it should be, which is a known limitation."""
        return self.must is Must.SHOULD and self.allowed is not None and self.value > self.allowed

    @property
    def answer(self) -> str:
        """yes, NO, known, or empty."""
        return "known" if self.known else {True: "yes", False: "NO", None: ""}[self.passed]

    @property
    def passed(self) -> bool | None:
        """Whether the comparison holds; None for a number that is not judged."""
        if self.allowed is None or self.must is Must.SHOULD:
            return None
        if self.must is Must.AT_LEAST:
            return self.value >= self.allowed
        return (self.value <= self.allowed) is (self.must is Must.AT_MOST)


def monte_carlo(alpha: float, replicates: int) -> float:
    """The largest simulated share compatible with an error rate of alpha: three standard errors above it."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)


def passed(rows: Iterable[Row]) -> bool:
    """Whether every judged row passed; False if no row is judged."""
    judged = [row.passed for row in rows if row.passed is not None]
    return bool(judged) and all(judged)


def folder(path: Path) -> Path:
    """The directory to write into, created if missing; UserError if it is not writable. Call it before measuring."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} is read-only")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def write(rows: Sequence[Row], into: Path, *, head: str) -> list[Path]:
    """Write validate.txt, beginning with `head`, and validate.csv; returns their paths. HarnessError if that fails."""
    texts = {
        "validate.txt": f"{head}\n\n{as_text(rows)}",
        "validate.csv": as_csv(rows),
    }
    written = []
    for name, text in texts.items():
        try:
            (into / name).write_text(text, encoding="utf-8")
        except OSError as error:  # not the user's mistake: `folder` has checked that it is writable
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
    """The rows grouped by check, aligned; then the failed rows and the overall result."""
    width = max((len(row.setting) for row in rows), default=0)
    shown = [
        (_shown(row.value, row.unit), "" if row.allowed is None else _shown(row.allowed, row.unit)) for row in rows
    ]
    wide = max((len(value) for value, _ in shown), default=0)
    lines = []
    for check, group in groupby(zip(rows, shown, strict=True), key=lambda pair: pair[0].check):
        lines += ["", check]
        for row, (value, allowed) in group:
            bound = f"{row.must} {allowed}" if allowed else ""
            lines.append(f"  {row.setting:<{width}}  {value:>{wide}}  {bound:<22}  {row.answer}".rstrip())
    judged = [row for row in rows if row.passed is not None]
    failed = [row for row in judged if not row.passed]
    known = [row for row in rows if row.known]
    lines += ["", *(f"FAILED  {row.check}: {row.setting}" for row in failed)]
    if known:
        worst = max(known, key=lambda row: row.value / (row.allowed or 1.0))
        lines += [
            f"KNOWN   {len(known)} numbers exceed what they should be and are not judged; the worst is",
            f"        {worst.check}: {worst.setting}: {_shown(worst.value, worst.unit)}",
        ]
    if failed or not judged:
        lines.append(f"NOT VALID: {len(failed)} of {len(judged)} judged numbers are outside what is allowed.")
    else:
        lines.append(f"VALID: all {len(judged)} judged numbers are within what is allowed.")
    return "\n".join(lines).lstrip("\n") + "\n"


def _shown(value: float, unit: Unit) -> str:
    if unit is Unit.SHARE:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f} pairs" if unit is Unit.PAIRS else f"{value:.3g}"
