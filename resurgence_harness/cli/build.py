"""`resurgence build`: make what a suite needs."""

from __future__ import annotations

import typer
from rich.console import Console

from resurgence_harness.cli.arguments import PASSED_ON, Arguments
from resurgence_harness.cli.cells import Cells, collected
from resurgence_harness.cli.plan import summary
from resurgence_harness.cli.words import count_words
from resurgence_harness.storing import check_usable


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("build", context_settings=PASSED_ON)(build_command)


def build_command(arguments: Arguments) -> None:
    """Make everything that a suite needs, so that pytest only has to decide."""
    from resurgence_harness.planning import plan

    cells = collected(arguments)
    check_usable(cells.store.name)
    planned = plan(cells.store, cells.wanted)
    if planned.needed:
        print(summary(planned))
    make_everything(cells)
    number = len(cells.plans)
    asked = f"{count_words(number, 'cell')} {'asks' if number == 1 else 'ask'}"
    print(f"Everything that {asked} for is in {cells.store.name}.")


def make_everything(cells: Cells) -> None:
    """Ask for every cell until its answer is clear, with a bar for the whole and one for what is being done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    engine = cells.engine
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        whole = bars.add_task("cells", total=len(cells.plans))
        part = bars.add_task("starting", total=None)
        stage = ""

        def progress(words: str, done: int, total: int, loss: float | None) -> None:
            nonlocal stage
            if words != stage:
                stage = words
                bars.reset(part)
            told = words if loss is None else f"{words}, loss {loss:.4f}"
            bars.update(part, description=told, completed=done, total=total)

        engine.bench.tell(progress)
        try:
            for plan, suite in cells.plans:
                engine.examine(plan, suite)
                bars.advance(whole)
        finally:
            engine.release()
