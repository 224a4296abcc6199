"""`resurgence build`: build what a suite needs."""

from __future__ import annotations

from typing import Annotated

import typer

from resurgence_harness.cli.arguments import PASSED_ON, Arguments
from resurgence_harness.cli.cells import Cells, collected
from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.plan import summary
from resurgence_harness.library.progress_bar import shown_progress
from resurgence_harness.storing import check_usable


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("build", context_settings=PASSED_ON)(build_command)


def build_command(
    arguments: Arguments,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Build one of N parts of about equal cost, for job arrays and CI matrices: docs/scale.md.",
        ),
    ] = None,
) -> None:
    """Build everything that a suite needs, so that pytest only has to decide."""
    from resurgence_harness.executing.shards import parse_shard
    from resurgence_harness.planning import plan

    part = parse_shard(shard) if shard is not None else None
    cells = collected(arguments, shard=part)
    check_usable(cells.store.name)
    planned = plan(cells.store, cells.wanted)
    if part is not None:
        print(f"Shard {part}: {len(cells.plans)} of {format_count(cells.planned, 'cell')}.")
        if not cells.plans:
            print("Nothing to build: the suite has fewer groups of cells with a common checkpoint than shards.")
            return
    if planned.needed:
        print(summary(planned))
    make_everything(cells)
    print(f"All artifacts of {format_count(len(cells.plans), 'cell')} are in {cells.store.name}.")


def make_everything(cells: Cells) -> None:
    """Examine every cell until its verdict is clear."""
    engine = cells.engine
    try:
        with shown_progress(engine.bench.set_progress, cells=len(cells.plans)) as advance:
            for plan, suite in cells.plans:
                engine.examine(plan, suite)
                advance()
    finally:
        engine.release()
