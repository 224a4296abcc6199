"""`resurgence build`: build what a suite needs."""

from __future__ import annotations

from functools import partial

import typer

from resurgence_harness.cli.arguments import PASSED_ON, Arguments
from resurgence_harness.cli.cells import Cells, collected
from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.plan import summary
from resurgence_harness.storing import check_usable


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("build", context_settings=PASSED_ON)(build_command)


def build_command(arguments: Arguments) -> None:
    """Build everything that a suite needs, so that pytest only has to decide."""
    from resurgence_harness.planning import plan

    cells = collected(arguments)
    check_usable(cells.store.name)
    planned = plan(cells.store, cells.wanted)
    if planned.needed:
        print(summary(planned))
    make_everything(cells)
    print(f"All artifacts of {format_count(len(cells.plans), 'cell')} are in {cells.store.name}.")


def make_everything(cells: Cells) -> None:
    """Examine every cell until its verdict is clear."""
    from resurgence_harness.watching import watched, word

    engine = cells.engine
    named = [(word({"task": plan.cell.task, "id": plan.cell.id}), plan, suite) for plan, suite in cells.plans]
    works = [(name, partial(engine.expected, plan.cell, plan.task)) for name, plan, _ in named]
    try:
        with watched([name for name, _, _ in named]) as view:
            engine.watch(view.recorder)
            view.plan(works, store=lambda: engine.store, device=engine.bench.device)
            for name, plan, suite in named:
                with view.recorder.during(name):
                    engine.examine(plan, suite)
    finally:
        engine.release()
