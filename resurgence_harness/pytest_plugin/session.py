"""The run as a whole, in the controller: planned cells, their verdicts, missing cells, the exit code, the reports.

Workers send each cell's record with its test report, and write their planned cells into the run's folder after
collection. A planned cell without a record is missing: its worker died, -x stopped the run, or the harness failed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resurgence_harness.errors import ResurgenceError, UserError, sentence, shown
from resurgence_harness.pytest_plugin import old_results, run_folder
from resurgence_harness.pytest_plugin.ledger import Ledger
from resurgence_harness.pytest_plugin.sight import Sight
from resurgence_harness.pytest_plugin.state import gating_in, options_of

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.collecting import Collected
    from resurgence_harness.pytest_plugin.live_view import RunView
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.specs import Base
    from resurgence_harness.storing import Seal

REGRESSION, INCOMPLETE, HARNESS_ERROR, TERMINATED = 1, 11, 12, 143
VERDICT_FILE = "verdict.json"


SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""The run as a whole; absent in workers."""


class Session:
    """One run, in the controller (the only process without xdist)."""

    def __init__(self, config: pytest.Config, sight: Sight) -> None:
        """`sight`: the parsed test files; nothing is read or made for a run without cells."""
        self._config, self.sight = config, sight
        self.base: Base | None = None
        """The published model, once it is known."""
        self.allure = ""
        """Our folder of Allure results if the user chose none; else empty."""
        self.notes: tuple[str, ...] = ()
        """Notes on the prompts, for the results."""
        self.folder = run_folder.new_folder()
        """Where workers write collected cells and progress; created by the first writer."""
        self.gate = sight.gate
        """Whether a release gate is requested; then every group of its policy needs a verdict."""
        self.ignored: dict[str, Seal] = {}
        """Store entries that were treated as absent in any process of this run, by key."""
        self.terminated = False
        """Whether SIGTERM ends this run."""
        self.settled: int | None = None
        """The exit code, once it is known; None for a run without cells."""
        self._ledger = Ledger()
        self._begun = self._closing_printed = self._by_hand = self._by_plugin = self._bad_collection = False
        self._problems: list[str] = []
        self._commands: list[str] = []
        self._started = datetime.now(UTC)
        self._progress: RunView | None = None
        self._run: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of this process; a worker has its id."""
        return "main"

    @property
    def found(self) -> None:
        """None: the controller examines a gate's models itself."""
        return None

    @property
    def options(self) -> Options:
        """The choices of this run."""
        return options_of(self._config)

    @property
    def involved(self) -> bool:
        """Whether this run has cells, or a gate is requested."""
        return self._begun or self.gate

    def close(self) -> None:
        """Stop the view of the run and remove the run's folder."""
        if self._progress is not None:
            self._progress.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # Before the tests

    def begin(self, collected: Collected) -> None:
        """Plan the collected cells and start the run. UserError if results cannot be written."""
        from resurgence_harness.gate import running

        self._ledger.plan(collected.cells, found=collected.of)
        self.gate |= any(entry.get("gate") for entry in collected.cells)
        if self._begun or not collected.cells:
            return
        self._begun = True
        old_results.remove_stale_outputs(self._config, self._config.option)
        running.make(self.options.out, option="--resurgence-out")
        try:
            run_folder.make(self.folder)
        except OSError as error:
            do = "Free space there, or name another place with TMPDIR."
            first = f"The run's folder {self.folder} cannot be made."
            raise UserError(sentence(first, reason=error.strerror, do=do)) from None
        self._show_progress()

    def _show_progress(self) -> None:
        from resurgence_harness.pytest_plugin.live_view import RunView

        self._progress = RunView(self._config, self.folder, self._ledger.planned)
        self._progress.start()

    @property
    def suites(self) -> list[Any]:
        """The planned cells of suites."""
        return [entry for entry in self._ledger.planned if not entry.get("gate")]

    # While tests run

    def erase_progress(self) -> None:
        """Erase the view of the run before other output."""
        if self._progress is not None:
            self._progress.erase()

    def collected(self, report: pytest.CollectReport) -> None:
        """Process a collection report."""
        self._bad_collection |= report.failed

    def stopped(self, error: BaseException) -> None:
        """Record Ctrl-C or pytest.exit(); -x and collection errors arrive here, too, as kinds of KeyboardInterrupt."""
        self._by_hand |= type(error) is KeyboardInterrupt
        self._by_plugin |= isinstance(error, pytest.exit.Exception)

    def reported(self, report: pytest.TestReport) -> None:
        """A test report, from this process or a worker."""
        self._ledger.reported(report)

    def lost_worker(self) -> None:
        """Record that a worker died."""
        self._ledger.lost_worker = True

    # After the tests

    def finish(self, status: int) -> int:
        """Determine the exit code and write all results, once; returns the exit code."""
        if self.settled is not None:
            return self.settled
        if self._progress is not None:
            self._progress.stop()
        if not self.involved:
            return status
        self.settled = self._settle(status)
        return self.settled

    def broke(self, error: BaseException) -> int:
        """Handle an error outside of tests, from pytest, a plugin or the terminal; returns the exit code."""
        by_hand = isinstance(error, KeyboardInterrupt)
        if by_hand:
            self._by_hand = True
        else:
            text = str(error).strip().splitlines() or ["no reason given"]
            self._problems.append(f"pytest did not end as it should: {type(error).__name__}: {text[0]}")
        try:
            code = self.finish(int(pytest.ExitCode.INTERRUPTED) if by_hand else 0)
        except Exception as another:  # a second error must not hide the first
            self._problems.append(f"The results cannot be written: {type(another).__name__}: {another}")
            code = HARNESS_ERROR
        if not by_hand and code != REGRESSION:
            code = HARNESS_ERROR
            self._withdraw()
        self.settled = code
        return code

    def _settle(self, status: int) -> int:
        usage = int(pytest.ExitCode.USAGE_ERROR)
        if status == usage or (self._ledger.mistakes and not self._ledger.violated):
            return usage
        if old_results.shows_only(self._config.option):
            return INCOMPLETE if self.gate and status in (0, pytest.ExitCode.NO_TESTS_COLLECTED) else status
        try:
            if self.gate:
                self._ledger.plan(self._groups())
            missing = self._ledger.missing(self._why_unrun())
            code = self._after_problems(self._exit_code(status, missing))
            self._run = self._results(code, missing)
        except UserError as error:  # the policy is read here for the first time
            self._ledger.mistakes.append(str(error))
            return usage
        self._write(self._run)
        code = self._after_problems(code)
        self._run["exit_code"] = code  # for the closing output; written files keep the code of the verdicts
        return code

    def _after_problems(self, code: int) -> int:
        """The code after problems with writing results or ending the run: 12, unless `code` is 1 or 143."""
        return HARNESS_ERROR if self._problems and code not in (REGRESSION, TERMINATED) else code

    def _withdraw(self) -> None:
        """Remove the attestation that the run passed."""
        from resurgence_harness.gate import running

        with suppress(OSError):
            (self.options.out / running.ATTESTATION).unlink(missing_ok=True)

    def _write(self, run: dict[str, Any]) -> None:
        """Write every file; a failure becomes a problem of this run, and removes its attestation."""
        from resurgence_harness.gate import running
        from resurgence_harness.reporting import job_summary, verdict_json

        out = self.options.out
        gate = bool(run.get("gate"))
        with self._writing(out):
            if gate:
                running.write(run, out, gating_in(self._config).models)
            else:
                verdict_json.write(out / VERDICT_FILE, run)
        if self._problems:
            self._withdraw()
        results = getattr(self._config.option, "allure_report_dir", None)
        if results:
            with self._writing(Path(results)):
                self._write_allure(Path(results), run)
        if gate:
            with self._writing(Path(os.environ.get("GITHUB_STEP_SUMMARY") or out)):
                self._commands = job_summary.write_job_summary(run)

    @contextmanager
    def _writing(self, place: Path) -> Iterator[None]:
        try:
            yield
        except ResurgenceError as error:
            self._problems.append(str(error))
        except Exception as error:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".splitlines()[0]
            self._problems.append(f"The results cannot be written into {shown(str(place))}: {reason}.")

    def summarize(self, terminal: Any) -> None:
        """Print the table, the reasons, and what the exit code says."""
        self._closing_printed = True
        lines = self._lines()
        if lines:
            terminal.section("resurgence", sep="=")
        for command in self._commands:
            terminal.write_line(command)
        if not lines:
            return
        from resurgence_harness.reporting.closing import PYTEST

        for line in lines:
            for segment in line:
                terminal.write(segment.text, **PYTEST[segment.style])
            terminal.write("\n")

    def print_closing(self) -> None:
        """Print the same to stderr if pytest has no terminal or did not reach its summary."""
        if not self._closing_printed and (lines := self._lines()):
            from resurgence_harness.reporting.terminal import plain

            with suppress(OSError, ValueError):
                print(plain(lines), file=sys.stderr)

    def _lines(self) -> list[Any]:
        if self.settled is None:
            return []
        from resurgence_harness.reporting import closing

        if self._run is None and not self._ledger.mistakes:
            return closing.nothing_judged() if self.settled == INCOMPLETE else []
        return closing.lines(
            self._run,
            mistakes=self._ledger.mistakes,
            problems=self._problems,
            notes=self._notes(),
            where=self._shown(self.options.out / VERDICT_FILE),
            full=getattr(self._config.option, "verbose", 0) > 0,
        )

    def _notes(self) -> tuple[str, ...]:
        if not self.ignored:
            return self.notes
        from resurgence_harness.storing import describe_ignored

        return (*self.notes, f"Store: {describe_ignored(self.ignored)}")

    def _groups(self) -> list[dict[str, Any]]:
        """Every group of the gate's policy as a planned cell."""
        from resurgence_harness.pytest_plugin.gate_groups import group_entry

        policy = gating_in(self._config).policy
        return [group_entry(policy, group) for group in policy.groups]

    def _why_unrun(self) -> str:
        if self.terminated:
            return "the run was ended by SIGTERM"
        if self._by_hand:
            return "the run was stopped by hand"
        return "the run was ended by pytest.exit()" if self._by_plugin else "it was skipped or not run"

    def _exit_code(self, status: int, missing: list[dict[str, Any]]) -> int:
        """1 for a regression, then 12, 11, 10; pytest's 2, 3 and 4 and SIGTERM's 143 keep their meaning."""
        from resurgence_harness.statistics import VerdictKind, exit_code

        if self.terminated:
            return TERMINATED
        if status == pytest.ExitCode.INTERNAL_ERROR:
            return REGRESSION if self._ledger.violated else status  # an error of pytest does not undo a regression
        if status == pytest.ExitCode.INTERRUPTED and (self._by_hand or self._bad_collection):
            return status
        broken = sum(entry["kind"] == "harness error" for entry in missing)
        otherwise = len(self._ledger.failures()) + self._ledger.lost_worker
        kinds = [VerdictKind(record["verdict"]) for record in self._ledger.records()]
        code = exit_code(kinds, unrun=len(missing) - broken + otherwise, harness_errors=broken)
        if code or not status:
            return code
        return INCOMPLETE if status in (1, 2, 5) else status  # a plugin's own code stays

    def _results(self, code: int, missing: list[dict[str, Any]]) -> dict[str, Any]:
        """The content of verdict.json."""
        from resurgence_harness.presets import plain
        from resurgence_harness.pytest_plugin.workers import resolved_device
        from resurgence_harness.reporting.run_document import Chosen, MadeOn, document
        from resurgence_harness.specs import Base

        records, failures, suites = self._ledger.records(), self._ledger.failures(), self.suites
        notes = dict.fromkeys(note for record in records for note in record.get("notes", ()))
        records = [{name: value for name, value in record.items() if name != "notes"} for record in records]
        selection = self.options.selection
        choices = asdict(replace(selection, changed=(), data=None, lives=(), unlearned=(), concepts=()))
        del choices["lives"]
        if selection.lives:
            choices["recipes"] = {life.name: str(life) for life in selection.lives}
        choices["unlearned"] = {one.name: {"digest": one.digest, "label": one.label} for one in selection.unlearned}
        choices["concepts"] = [concept.name for concept in selection.concepts]
        if selection.data is not None:
            choices["data"] = {"digest": selection.data.digest, "images": len(selection.data)}
        chosen = Chosen(
            engine=choices.pop("engine") or "sequential",
            choices={name: value for name, value in choices.items() if name not in ("changed", "settings")},
            changed={name: plain(value) for name, value in selection.changed},
            settings=selection.settings,
            prompts=self.notes,
            notes=list(notes),
        )
        made_on = MadeOn(
            device=resolved_device(self.options.device),
            folder=self._config.invocation_params.dir,
            ignored=self.ignored,
            fresh=self.options.run,
            workers=getattr(self._config.option, "numprocesses", None) or 0,
        )
        found = {"cells": len(suites), "of": max(len(suites), self._ledger.found)} if suites else None
        base = self.base or (Base(digest="", name=self.options.base) if suites else None)
        return document(
            records,
            missing,
            code=code,
            started=self._started,
            base=base,
            chosen=chosen,
            made_on=made_on,
            declared=self._declared(),
            stopped=code in (pytest.ExitCode.INTERRUPTED, TERMINATED),
            gate=self._gate(),
            selected=found,
            failed_tests=failures,
            lost_worker=self._ledger.lost_worker,
        )

    def _declared(self) -> list[str]:
        """Every planned cell, and every cell that the profile declares for the tasks of this run."""
        from resurgence_harness.selection import Selection, cells

        tasks = self.options.tasks
        declared = [f"{entry['task']}/{entry['id']}" for entry in self._ledger.planned]
        chosen = self.options.selection
        profile = chosen if chosen.concepts else Selection(profile=chosen.profile)
        for name in dict.fromkeys(entry["task"] for entry in self.suites):
            declared += [f"{name}/{cell.id}" for cell in (cells(tasks[name], profile) if name in tasks else ())]
        return declared

    def _gate(self) -> dict[str, Any] | None:
        """The object `gate` of verdict.json; None if the run is not a gate."""
        if not self.gate:
            return None
        from resurgence_harness.gate import running

        gating = gating_in(self._config)
        return running.about(gating.policy, gating.models, self.options.device)

    def _write_allure(self, results: Path, run: dict[str, Any]) -> None:
        from resurgence_harness.reporting import allure

        severities = {name: task.severity for name, task in self.options.tasks.items()}
        allure.write_run(results, run, severities=severities)

    def _shown(self, path: Path) -> str:
        try:
            return os.path.relpath(path, self._config.invocation_params.dir)
        except ValueError:
            return str(path)
