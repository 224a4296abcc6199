"""The typed results of a run: what is in its verdict.json, with a view for notebooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.process import ExitCode
from resurgence_harness.reporting import closing, courses, pages, terminal, verdict_json
from resurgence_harness.reporting.arms import ARMS
from resurgence_harness.reporting.escaping import html as escape
from resurgence_harness.reporting.old_allure import FOLDER as ALLURE
from resurgence_harness.reporting.verdict_json import CellResult, MissingCell, Verdicts
from resurgence_harness.statistics.formatting import percent

STRIPS = 3
"""Contact sheets that a notebook shows, those of blocked cells first."""
COLUMNS = {
    "base": "base",
    "before": "unlearned",
    "after": "fine-tuned",
    "retained_before": "retained, unlearned",
    "retained_after": "retained, fine-tuned",
}
"""Rates in the table of a notebook, and their headers."""


class Sheet(NamedTuple):
    """A contact sheet of a cell."""

    title: str
    picture: bytes
    """JPEG."""


@dataclass(frozen=True)
class Results:
    """The results of one run, as in its verdict.json.

    `results.passed` is the verdict on the run. A `Results` itself is neither true nor false, so that
    `if rh.gate(…):` cannot pass a model by mistake.
    """

    run: Verdicts
    """Everything that verdict.json contains."""
    folder: Path
    """Folder of verdict.json and of the run's reports."""

    @property
    def cells(self) -> tuple[CellResult, ...]:
        """The judged cells, in the order of the run."""
        return tuple(self.run.cells)

    @property
    def missing(self) -> tuple[MissingCell, ...]:
        """The planned cells without a verdict."""
        return tuple(self.run.missing)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the same run on the command line."""
        return ExitCode(self.run.exit_code)

    @property
    def passed(self) -> bool:
        """Whether every planned cell has a verdict, and each HOLDS or is KNOWN: exit code 0."""
        return self.exit_code is ExitCode.DONE and bool(self.run.cells) and not self.run.missing

    def __bool__(self) -> NoReturn:
        """Results have no truth value. TypeError always."""
        raise TypeError("Results are neither true nor false: ask for .passed, which is False unless every cell holds.")

    def __iter__(self) -> Iterator[CellResult]:
        """The judged cells."""
        return iter(self.run.cells)

    def __len__(self) -> int:
        """Number of judged cells."""
        return len(self.run.cells)

    def cell(self, name: str) -> CellResult:
        """The cell with this id ("uce-1-lora") or "task/id". UserError if there is none, or more than one."""
        found = [one for one in self.run.cells if name in (one.id, f"{one.task}/{one.id}")]
        if len(found) != 1:
            known = ", ".join(f"{one.task}/{one.id}" for one in self.run.cells) or "none"
            first = f"There is no cell {shown(name)}." if not found else f"{len(found)} cells are called {shown(name)}."
            raise UserError(sentence(first, cells=known))
        return found[0]

    def rows(self) -> list[dict[str, Any]]:
        """A flat row per cell, for `pandas.DataFrame(results.rows())`.

        Per arm its rate, bounds (both in [0, 1], one-sided at the cell's alpha), hits, judged and abstained images.
        """
        found = []
        for cell in self._records:
            row = {name: cell[name] for name in ("task", "id", "method", "concepts", "finetuning", "run", "verdict")}
            for arm in ARMS:
                values = cell.get(arm) or {}
                row |= {f"{arm}_{name}": value for name, value in values.items()}
            found.append({**row, "reason": cell["reason"], "images": cell["images"], "seconds": cell["seconds"]})
        return found

    def judgments(self, store: str | None = None) -> list[dict[str, Any]]:
        """A row per image and judge, as `resurgence export` writes them (docs/compare.md), for `pandas.DataFrame(…)`.

        `store`: where the judgments are; default: a folder `store` beside verdict.json, else the usual store. UserError
        if some of them are not there.
        """
        from resurgence_harness.reporting import judgments_csv
        from resurgence_harness.reporting.comparing.sides import read_side

        rows, unread = judgments_csv.read(read_side(self.folder, store))
        if unread:
            one = unread[0]
            first = f"The judgments of {one.cell}, {one.arm}, cannot be read."
            raise UserError(sentence(first, reason=one.why, arms=len(unread), do="Name the run's store."))
        return rows

    def sheets(self, cell: CellResult) -> list[Sheet]:
        """The contact sheets of a cell, the worst images first.

        None if another run has written into the folder since, and for tasks whose images are blurred in the report.
        """
        if not self._is_latest():
            return []
        if self.run.gate is not None:
            file = self.folder / f"contact-sheet-{cell.method}.jpg"
            open_to_all = not covered(cell.task) and file.is_file()
            return [Sheet("base | unlearned | candidate", file.read_bytes())] if open_to_all else []
        found = self._allure.get((cell.task, cell.id), ())
        return [Sheet(title, file.read_bytes()) for title, file in found if file.is_file()]

    def __str__(self) -> str:
        """The table, the reasons and the exit code, as at the end of a run on a terminal."""
        return terminal.plain([*closing.judged(self._document, full=True), terminal.closing(self._document)])

    def __repr__(self) -> str:
        """Number of cells by verdict, and the exit code."""
        return f"<Results of {self.folder}: {terminal.plain([terminal.closing(self._document)])}>"

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, the table, reasons, curves, and the worst images."""
        last = terminal.plain([terminal.closing(self._document)])
        style = {0: "good", 1: "bad"}.get(self.run.exit_code, "warn")
        parts = [f'<p class="verdict {style}">{escape(last)}</p>', self._table()]
        reasons = [*terminal.reasons(self._records), *terminal.missing(self._document["missing"])]
        if reasons:
            parts.append(pages.preformatted(terminal.plain(reasons)))
        parts += [courses.section(cell) for cell in self._records]
        parts += self._strips()
        return pages.page("".join(parts), whole=False)

    def _table(self) -> str:
        rows = []
        for cell in self.run.cells:
            rates = [getattr(cell, name) for name in COLUMNS]
            shown_rates = [
                f"{percent(one.rate)} ({percent(one.low)} to {percent(one.high)})" if one is not None else "—"
                for one in rates
            ]
            rows.append([cell.task, cell.id, cell.verdict, *shown_rates, cell.images])
        header = ["task", "cell", "verdict", *COLUMNS.values(), "images"]
        blocking = [place for place, cell in enumerate(self.run.cells) if cell.verdict == "VIOLATED"]
        return pages.table(header, rows, marked=blocking, text=3) if rows else ""

    def _strips(self) -> Iterator[str]:
        order = sorted(self.run.cells, key=lambda cell: ("VIOLATED", "UNDECIDED", "KNOWN", "HOLDS").index(cell.verdict))
        for cell in order[:STRIPS]:
            for title, picture in self.sheets(cell)[:1]:
                yield pages.heading(f"{cell.id}: {title}") + pages.picture(picture, about=title, covered=False)

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self.run.model_dump()

    @property
    def _records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self._document["cells"]
        return records

    def _is_latest(self) -> bool:
        try:
            return verdict_json.read(self.folder / "verdict.json").run_id == self.run.run_id != ""
        except UserError:
            return False

    @cached_property
    def _allure(self) -> dict[tuple[str, str], list[tuple[str, Path]]]:
        """(task, cell) → titles and files of its pictures."""
        found: dict[tuple[str, str], list[tuple[str, Path]]] = {}
        for file in sorted((self.folder / ALLURE).glob("*-result.json")):
            try:
                result = json.loads(file.read_bytes())
                about = {one["name"]: one["value"].strip("'") for one in result.get("parameters", ())}
                pictures = [one for one in result.get("attachments", ()) if one["type"] == "image/jpeg"]
                named = [(str(one["name"]), file.parent / Path(one["source"]).name) for one in pictures]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # a picture is no part of the verdict
            found[about.get("task", ""), about.get("cell", "")] = named
        return found


def covered(task: str) -> bool:
    """Whether the images of a task are blurred in reports; those of an unknown task are."""
    from resurgence_harness.tasks import TASKS
    from resurgence_harness.tasks.published import PUBLISHED

    known = [tasks[task] for tasks in (TASKS, PUBLISHED) if task in tasks]
    return not known or any(one.covered for one in known)


def load(path: str | Path) -> Results:
    """The results of an earlier run: a verdict.json, or the folder that contains it.

    UserError if there is none, or if it is damaged or of another schema.
    """
    file = Path(path)
    file = file / "verdict.json" if file.is_dir() else file
    return Results(verdict_json.read(file), file.parent)
