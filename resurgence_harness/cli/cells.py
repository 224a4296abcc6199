"""Collects the cells of a suite with pytest, as recipes, probes and judges."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.process.signals import Stopped
from resurgence_harness.storing import Store

if TYPE_CHECKING:
    import pytest

    from resurgence_harness.executing.builder import Builder
    from resurgence_harness.executing.shards import Shard
    from resurgence_harness.planning import Wanted
    from resurgence_harness.pytest_plugin.engine import Engine
    from resurgence_harness.selection import CellPlan
    from resurgence_harness.specs import Cell, Grid, Recipe


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of a suite and the evidence that they need."""

    wanted: list[Wanted]
    """The evidence until each verdict is clear: what was needed, or what is usually needed."""
    engine: Engine
    plans: list[tuple[CellPlan, Path]]
    """Every cell's plan, and the folder of its suite."""
    beyond: int
    """Images sampled in addition if no verdict becomes clear."""
    everything: list[tuple[CellPlan, Path]]
    """The cells of the whole suite, of which `plans` are one shard or all."""
    each: list[list[Wanted]]
    """`wanted` by cell."""
    clear: list[bool]
    """Of every cell whether stored evidence decides it."""

    @property
    def store(self) -> Store:
        """The store of the built artifacts."""
        return self.engine.store


def collected(arguments: Sequence[str], *, shard: Shard | None = None) -> Cells:
    """Collect the cells for these pytest arguments, those of one shard or all.

    UserError if there are none or a judge has no answer for a name, HarnessError if pytest fails.
    """
    from resurgence_harness.judging import check_names

    engine, cells = _collect(list(arguments))
    everything = cells
    if shard is not None:
        cells = _of_shard(cells, engine, shard)
    each: list[list[Wanted]] = []
    decided: list[bool] = []
    beyond: dict[tuple[Recipe, Grid], int] = {}
    for plan, suite in cells:
        recalled, judges = engine.recall(plan, suite), [engine.judge(name) for name in plan.judges]
        for judge in judges:
            check_names(judge, plan.names)
        inquiry, clear = recalled.inquiry, recalled.clear
        questions = list(inquiry.expected(clear=clear))
        each.append(recalled.wanted(judges, beyond=True))
        decided.append(clear)
        for name, arm in plan.arms.items():
            if arm.group is not None and not clear:
                blocks = sum(question.arm == name for question in questions)
                for recipe in (*arm.recipes, *(plan.checkpoints.values() if name == "after" else ())):
                    beyond[recipe, arm.grid] = max(len(arm.grid) - blocks * arm.grid.block, 0)
    return Cells(
        wanted=[one for own in each for one in own],
        engine=engine,
        plans=cells,
        beyond=sum(beyond.values()),
        everything=everything,
        each=each,
        clear=decided,
    )


def open_builder(arguments: Sequence[str], folder: str, run: str) -> Builder:
    """Collect a suite in a worker, and check its judges.

    `folder`: the driver's working directory; `run`: its fresh run, or empty.
    """
    from resurgence_harness.executing.builder import Builder, Opened
    from resurgence_harness.executing.jobs import name_of

    if Path(folder).is_dir() and not all(Path(one).exists() for one in arguments if not one.startswith("-")):
        os.chdir(folder)
    engine, cells = _collect(list(arguments))
    engine.options = replace(engine.options, run=run)
    return Builder(Opened(engine, {name_of(plan): (plan, suite) for plan, suite in cells}))


def _of_shard(cells: list[tuple[CellPlan, Path]], engine: Engine, shard: Shard) -> list[tuple[CellPlan, Path]]:
    """The cells of one shard; it may have none. UserError for settings that depend on the machine."""
    from resurgence_harness.executing.shards import lineages, split

    check_same_everywhere(engine)
    cells = sorted(cells, key=lambda one: (one[0].cell.task, one[0].cell.id))  # whatever order a plugin collects in
    plans = [plan for plan, _ in cells]
    judges = {name: engine.judge(name) for plan in plans for name in plan.judges}
    return [cells[place] for place in split(lineages(plans, judges), shard.of)[shard.number - 1]]


def check_same_everywhere(engine: Engine) -> None:
    """UserError for a batch that is resolved by each machine's GPU: machines would build different artifacts."""
    if engine.options.batch_resolved:
        raise UserError(
            sentence(
                "sampler.batch=auto depends on the machine, so shards and nodes would not build the same images.",
                do="Give the batch as a number: --resurgence-set sampler.batch=32.",
            )
        )


class _Collector:
    """A pytest plugin for one collection: keeps the planned cells and the engine with their options."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.cells: dict[Cell, tuple[CellPlan, Path]] = {}
        self.error: BaseException | None = None
        self.stopped = False
        """By Ctrl-C or a signal; pytest's exit code does not show it, being the same for a failed import."""

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.stopped = isinstance(excinfo.value, Stopped) or type(excinfo.value) is KeyboardInterrupt

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        """Keep what nobody foresaw: raised outside pytest it becomes one sentence. True: pytest prints nothing."""
        self.error = self.error or excinfo.value
        return True

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        from resurgence_harness.pytest_plugin.collecting import cell_of, is_cell, task_of
        from resurgence_harness.pytest_plugin.state import ENGINE, OPTIONS

        engine = session.config.stash.get(ENGINE, None)
        if engine is None:
            return
        self.engine = engine
        try:
            for item in session.items:
                cell = cell_of(item, session.config.stash[OPTIONS]) if is_cell(item) else None
                if cell is not None and cell not in self.cells:
                    self.cells[cell] = engine.plan(cell, task_of(item)), item.path.parent
        except UserError as error:  # raised again after pytest has ended, since pytest would print a traceback
            self.error = error


def _collect(arguments: list[str]) -> tuple[Engine, list[tuple[CellPlan, Path]]]:
    """Run pytest's collection in this process; its output is shown only if it fails."""
    import pytest

    found, output, errors = _Collector(), io.StringIO(), io.StringIO()
    alone = ["-n0"] if find_spec("xdist") is not None else []
    with redirect_stdout(output), redirect_stderr(errors):
        code = pytest.main([*arguments, "--collect-only", "-q", *alone, "-p", "no:cacheprovider"], plugins=[found])
    if found.stopped:
        raise KeyboardInterrupt
    if found.error is not None:
        raise found.error
    if code == pytest.ExitCode.INTERNAL_ERROR:
        what = f"{output.getvalue().strip()}\n{errors.getvalue().strip()}".strip()
        raise HarnessError(f"pytest failed while collecting {' '.join(arguments)}.\n{what}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        message = errors.getvalue().strip().removeprefix("ERROR: ")
        if message.startswith("usage:"):
            message = message.partition("error: ")[2]
        raise UserError(message or f"pytest could not collect {' '.join(arguments)}.\n{output.getvalue().strip()}")
    if found.engine is None or not found.cells:
        raise UserError(
            sentence(
                "No cells were collected.",
                arguments=" ".join(arguments),
                do="Give a folder with a suite, for example suites/celebrity.",
            )
        )
    return found.engine, list(found.cells.values())
