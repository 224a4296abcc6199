"""The comparison of two runs as a function, and the same for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.library.given import Names, as_files
from resurgence_harness.library.results import Results, covered
from resurgence_harness.process import ExitCode
from resurgence_harness.reporting import terminal
from resurgence_harness.reporting.comparing import document as schema
from resurgence_harness.reporting.comparing import markdown, page, text
from resurgence_harness.reporting.comparing.cells import Found, compare_runs
from resurgence_harness.reporting.comparing.document import CellCompared, ComparisonDocument
from resurgence_harness.reporting.comparing.sides import read_side
from resurgence_harness.reporting.file_set import write_set
from resurgence_harness.statistics.intervals import check_alpha

REPORTS = JSON, MARKDOWN, PAGE = ("compare.json", "compare.md", "compare.html")


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs, as in compare.json. It is neither true nor false: ask `worse` or `exit_code`."""

    found: Found

    @property
    def document(self) -> ComparisonDocument:
        """Everything that compare.json contains."""
        return self.found.document

    @property
    def cells(self) -> tuple[CellCompared, ...]:
        """The cells of both runs, in the order of the first."""
        return tuple(self.document.cells)

    @property
    def worse(self) -> tuple[CellCompared, ...]:
        """The cells that are shown to be worse in the second run."""
        return tuple(cell for cell in self.document.cells if cell.result == "worse")

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of `resurgence compare --fail-on regression`; 0 only if nothing got worse in any cell."""
        return ExitCode(self.document.exit_code)

    def __bool__(self) -> NoReturn:
        """A comparison has no truth value. TypeError always."""
        raise TypeError("A comparison is neither true nor false: ask for .worse or .exit_code.")

    def __iter__(self) -> Iterator[CellCompared]:
        """The compared cells."""
        return iter(self.document.cells)

    def __len__(self) -> int:
        """Number of compared cells."""
        return len(self.document.cells)

    def cell(self, name: str) -> CellCompared:
        """The cell with this id or "task/id". UserError if there is none, or more than one."""
        found = [one for one in self.document.cells if name in (one.id, f"{one.task}/{one.id}")]
        if len(found) != 1:
            known = ", ".join(f"{one.task}/{one.id}" for one in self.document.cells)
            first = f"There is no cell {shown(name)}." if not found else f"{len(found)} cells are called {shown(name)}."
            raise UserError(sentence(first, cells=known))
        return found[0]

    def rows(self) -> list[dict[str, Any]]:
        """A flat row per cell and rate, for `pandas.DataFrame(comparison.rows())`."""
        return [
            {
                **{"task": cell.task, "id": cell.id, "first": cell.first, "second": cell.second},
                **{"result": cell.result, "rate": change.rate, "paired": change.paired, "pairs": change.pairs},
                **{"first_rate": change.first.rate, "second_rate": change.second.rate, "change": change.estimate},
                **{"low": change.low, "high": change.high, "shown": change.shown},
            }
            for cell in self.document.cells
            for change in cell.changes
        ]

    def markdown(self) -> str:
        """For a pull request; under 60 kB."""
        return markdown.text(self.document)

    def html(self) -> str:
        """One page that loads nothing, with the new images side by side."""
        return page.page(self.found, self._sheets, covered=self._covered)

    def write(self, out: str | Path) -> list[Path]:
        """Write compare.json, compare.md and compare.html, all or none. HarnessError if one cannot be written."""
        files = {PAGE: self.html(), MARKDOWN: self.markdown(), JSON: schema.text(self.document)}
        return write_set(Path(out), files)

    def __str__(self) -> str:
        """As on a terminal."""
        return terminal.plain(text.lines(self.document))

    def __repr__(self) -> str:
        """The result in one sentence."""
        return f"<Comparison: {self.document.sentence}>"

    def _repr_html_(self) -> str:
        """For notebooks: the page as a fragment; images of a task that is blurred in the report are left out."""
        open_to_all = {name: one for name, one in self._sheets.items() if not self._covered[name.partition("/")[0]]}
        return page.page(self.found, open_to_all, covered=self._covered, whole=False)

    @cached_property
    def _sheets(self) -> dict[str, bytes]:
        made = {name: page.sheet(self.found, name, pairs) for name, pairs in self.found.images.items()}
        return {name: picture for name, picture in made.items() if picture is not None}

    @cached_property
    def _covered(self) -> dict[str, bool]:
        return {cell.task: covered(cell.task) for cell in self.document.cells}


def compare(
    first: str | Path | Results,
    second: str | Path | Results,
    *,
    alpha: float | None = None,
    store: str | None = None,
    second_store: str | None = None,
    concepts: Names = None,
) -> Comparison:
    """Compare two runs of the same cells; the same as `resurgence compare`.

    `first` and `second`: a run's folder, its verdict.json, its `Results`, or a bare store (a folder, or an address);
    the second is the newer one. `concepts`: the erased concepts, for bare stores, which do not record them. `alpha`:
    probability that any interval misses its rate, default the smallest of the common cells. `store`: where the
    judgments are, default the usual store; a folder `store` beside a verdict.json is used first. `second_store`: that
    of the second run, if it is another.

    UserError for a run that cannot be read or that judged nothing, for the same run twice, and for two runs without a
    comparable cell in common.
    """
    if alpha is not None:
        check_alpha(alpha)
    from resurgence_harness.gate.release_policy import read_concepts

    with as_files(concepts=concepts) as lists:
        listed = lists["concepts"]
        erased = [one.name for one in read_concepts(listed)] if listed is not None else []
    sides = [
        read_side(given.folder if isinstance(given, Results) else given, place, erased=erased)
        for given, place in ((first, store), (second, second_store or store))
    ]
    return Comparison(compare_runs(*sides, alpha=alpha))
