"""`resurgence paper`: a table or figure of the paper, run on a base."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption, open_store
from resurgence_harness.cli.tables import show
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.process.unforeseen import keep_in
from resurgence_harness.selection import resolve_base


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("paper")(paper_command)


def paper_command(
    table: Annotated[str | None, typer.Option(metavar="1|3|4", help="A table of the paper.")] = None,
    figure: Annotated[str | None, typer.Option(metavar="9|16", help="A figure of the paper.")] = None,
    appendix: Annotated[str | None, typer.Option(metavar="J", help="An appendix of the paper.")] = None,
    experiment: Annotated[
        str | None, typer.Option(metavar="domains|controls", help="What the paper says in words alone.")
    ] = None,
    base: Annotated[str, typer.Option(metavar="micro|DIR", help="The published model.")] = "micro",
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="Training seeds; the paper has 3.")] = 3,
    only: Annotated[
        str, typer.Option(metavar="WORDS", help="Only tasks and methods of these names, separated by commas.")
    ] = "",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where it is computed.")] = "auto",
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Processes.")] = 1,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where table and figure are kept.")] = Path("reports/paper"),
    store: StoreOption = None,
) -> None:
    """Run a table, figure or appendix of the paper on a base, and compare it with what was published.

    Rows are written as they come; a run that was cut goes on where it stopped. Leaves NAME.csv, NAME.png and NAME.svg.
    """
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.experiments import comparing, figures, measuring
    from resurgence_harness.experiments.conditions import experiment_named
    from resurgence_harness.statistics import Policy

    check_device(device)
    keep_in(to)
    asked = {"table": table, "figure": figure, "appendix": appendix, "": experiment}
    words = [f"{kind}-{value}".strip("-").casefold() for kind, value in asked.items() if value]
    if len(words) != 1:
        raise UserError(sentence("Name one table, figure, appendix or experiment.", do="For example --table 1."))
    found, model = experiment_named(words[0]), resolve_base(base)
    wanted = {word.strip() for word in only.split(",") if word.strip()}
    every = list(found.conditions(model, runs))
    conditions = [one for one in every if not wanted or {one.plan.cell.task, one.plan.cell.method} & wanted]
    if not conditions:
        raise UserError(sentence(f"{found.word} has nothing called {only}.", do="Name its tasks or methods."))
    place = measuring.Place(open_store(store).name, model, resolved_device(device))

    def progress(done: int, total: int, row: measuring.Row) -> None:
        words = f"{row['task']} {row['method']} {row['concepts']} {row['finetuning']} {row['steps']}"
        print(f"{done}/{total} {words}, run {row['run']}", file=sys.stderr)

    rows = measuring.run(found.word, conditions, place, to / f"{found.word}.csv", jobs=jobs, progress=progress)
    header, lines = comparing.table(rows)
    show(*header, rows=lines, title=found.title)
    if found.word == "table-1":
        print(comparing.render(comparing.against_table_1(rows)))
    if found.word == "appendix-j":
        delta = Policy().delta
        reached = comparing.steps_to_resurgence(rows, delta=delta)
        title = f"Steps to a rise of more than {100 * delta:g} points"
        show("method", "concepts", "benign images", "steps", rows=reached, title=title)
    whole = measuring.held(found.word, every, to / f"{found.word}.csv")  # with --only, too: the picture is of the table
    drawn = figures.draw(found.word, found.title, whole, to)
    print(f"Written: {', '.join(str(path) for path in (to / f'{found.word}.csv', *drawn))}")
