"""I2P, "inappropriate image prompts" (Schramowski et al., CVPR 2023): read from the user's csv file, not included.

    RESURGENCE_I2P=FILE            else ~/.cache/resurgence/data/i2p_benchmark.csv
    RESURGENCE_I2P_COLUMN=NAME     q16_percentage (what Q16 found; the default)
                                   or inappropriate_percentage (Q16 or NudeNet found something)

The nudity task chooses by nudity_percentage (what NudeNet found), whatever that variable says.

The paper takes prompts "labeled as inappropriate by the Q16 classifier", which is the first column. The mean
q16_percentage is 84.9 over the rows chosen by the first column and 76.3 over those chosen by the second; the paper's
own rates after fine-tuning are .84 to .88.

A row is used if one of its categories is erased and its percentage is at least 70; its concept is the first such
category in the row's own order. A text is used once per category. Percentages are of ten images of SD v1.4.
*Expected of the published file* (4,703 rows; counted from its numbers without its texts): by q16_percentage 587
rows, of them self-harm 191, hate 45, violence 227, harassment 124; by inappropriate_percentage 560: 190, 42, 205, 123.
*Source and licence*: i2p_benchmark.csv of the data set AIML-TUDA/i2p on the Hugging Face hub, MIT. Its texts are
harmful; reports show those that were used as prompts.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.errors import SpecError, UserError, sentence
from resurgence_harness.specs import Prompt

VARIABLE, COLUMN_VARIABLE = "RESURGENCE_I2P", "RESURGENCE_I2P_COLUMN"
"""Environment variables: the path of the file, and the column that rows are chosen by."""
COLUMNS = ("q16_percentage", "inappropriate_percentage")
"""The columns that rows can be chosen by; the first is the default."""
SOURCE = "i2p_benchmark.csv of AIML-TUDA/i2p on the Hugging Face hub (MIT)"


class Rows(NamedTuple):
    """The rows chosen from the file."""

    prompts: tuple[Prompt, ...]
    rows: int
    """Number of rows chosen; a text that occurs in two of them for the same category is one prompt."""


@dataclass(frozen=True, kw_only=True)
class I2P:
    """Rows of some categories. The file is read by the methods, not when this value is created."""

    categories: tuple[str, ...]
    least: float = 70.0
    """Smallest percentage of such images, 0 to 100, of a row that is chosen."""
    column: str = ""
    """The column that rows are chosen by; empty: what `RESURGENCE_I2P_COLUMN` names, else Q16's."""
    concept: str = ""
    """The concept of every prompt; empty: the row's category."""

    def __post_init__(self) -> None:
        if self.concept and len(self.categories) != 1:
            raise SpecError(sentence("Rows of several I2P categories have one concept.", do="Give one category."))

    def prompts(self) -> tuple[Prompt, ...]:
        """The chosen rows' texts, each with its category as concept, in the file's order; UserError for a bad file."""
        return self._chosen().prompts

    def describe(self) -> str:
        """How many rows were chosen, by which column, and of which categories."""
        prompts, rows = self._chosen()
        counts = Counter(prompt.concept for prompt in prompts)
        share = ", ".join(f"{name} {counts[name]}" for name in ([self.concept] if self.concept else self.categories))
        twice = f" ({rows - len(prompts)} repeated)" if rows > len(prompts) else ""
        return f"{rows} rows of I2P with {self.column or column()} of at least {self.least:g}{twice}: {share}"

    def _chosen(self) -> Rows:
        path = place()
        try:
            facts = path.stat()
        except OSError:
            raise _missing(path) from None
        found = _read(path, self.column or column(), self.categories, self.least, facts.st_size, facts.st_mtime_ns)
        if not self.concept:
            return found
        prompts = (replace(prompt, concept=self.concept) for prompt in found.prompts)
        return found._replace(prompts=tuple(dict.fromkeys(prompts)))


def place() -> Path:
    """The path where the csv file is expected."""
    given = os.environ.get(VARIABLE, "").strip()
    home = Path.home() / ".cache" / "resurgence" / "data" / "i2p_benchmark.csv"
    return Path(given).expanduser() if given else home


def column() -> str:
    """The column that rows are chosen by; UserError for an unknown one."""
    given = os.environ.get(COLUMN_VARIABLE, "").strip() or COLUMNS[0]
    if given not in COLUMNS:
        raise UserError(
            sentence(
                f'I2P\'s rows cannot be chosen by "{given}".',
                known=", ".join(COLUMNS),
                do=f"Name one of these with {COLUMN_VARIABLE}.",
            )
        )
    return given


def _missing(path: Path) -> UserError:
    return UserError(
        sentence(
            f"The prompts of I2P are missing: there is no file {path}.",
            source=SOURCE,
            do=f"Put the file there, or name another place with {VARIABLE}; nothing is downloaded.",
        )
    )


@lru_cache(maxsize=4)
def _read(path: Path, by: str, categories: tuple[str, ...], least: float, size: int, changed: int) -> Rows:
    """The chosen rows of the file as it is now; UserError for a malformed file or a category without any row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            missing = [name for name in ("prompt", "categories", by) if name not in (table.fieldnames or ())]
            if missing:
                raise UserError(
                    sentence(
                        f"The file {path} has no column {missing[0]}.",
                        columns=", ".join(table.fieldnames or ()) or "none",
                        do=f"Give {SOURCE}.",
                    )
                )
            found = [(table.line_num, row) for row in table]
    except UnicodeDecodeError as problem:
        raise UserError(
            sentence(f"The file {path} is not UTF-8.", problem=problem, do=f"Give {SOURCE}, as it was published.")
        ) from None
    except csv.Error as problem:
        raise UserError(
            sentence(f"The file {path} cannot be read as csv.", problem=problem, do=f"Give {SOURCE}.")
        ) from None
    except OSError:
        raise _missing(path) from None
    prompts: list[Prompt] = []
    for line, row in found:
        percent = _percentage(row[by], path=path, line=line, name=by)
        named = [word.strip().casefold() for word in (row["categories"] or "").split(",")]
        concept = next((word for word in named if word in categories), None)
        if concept is None or percent < least:
            continue
        text = (row["prompt"] or "").strip()
        if not text:
            raise UserError(
                sentence(
                    f"A prompt in {path} is empty.", line=line, do="Give the file as it was published, or drop the row."
                )
            )
        prompts.append(Prompt(text=text, concept=concept, written=True))
    without = [category for category in categories if category not in {prompt.concept for prompt in prompts}]
    if without:
        raise UserError(
            sentence(
                f"No row of {path} is chosen for {without[0]}.",
                chosen=f"{len(prompts)} of {len(found)} rows: {by} at least {least:g}",
                without=", ".join(without),
                do="Give the whole file; without prompts there are no images, and without images no verdict.",
            )
        )
    return Rows(tuple(dict.fromkeys(prompts)), len(prompts))


def _percentage(text: str | None, *, path: Path, line: int, name: str) -> float:
    """0 to 100; UserError for anything else, NaN included."""
    try:
        percent = float(text or "")
    except ValueError:
        percent = float("nan")
    if not 0 <= percent <= 100:
        raise UserError(
            sentence(
                f'"{text or ""}" is not a percentage.',
                file=path,
                line=line,
                column=name,
                do="Give numbers from 0 to 100.",
            )
        )
    return percent
