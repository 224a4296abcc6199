"""`resurgence export`: every judgment of a run as CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption
from resurgence_harness.cli.formatting import format_count
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.process import ExitCode


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("export")(export_command)


def export_command(
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR|FILE", help="A run's folder, or its verdict.json.")
    ] = Path("reports/out"),
    to: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the CSV.")] = Path("judgments.csv"),
    store: StoreOption = None,
    dictionary: Annotated[
        bool, typer.Option("--dictionary", help="Only print the data dictionary: a Table Schema, JSON.")
    ] = False,
) -> None:
    """Write every judgment of a run as CSV: one row per image and judge, from the store.

    Exit code 11 if the store lacks some of them: the file then has the others.
    """
    from resurgence_harness.reporting import judgments_csv
    from resurgence_harness.reporting.comparing.sides import read_side
    from resurgence_harness.reporting.file_set import write_set

    if dictionary:
        print(json.dumps(judgments_csv.dictionary(), indent=2, ensure_ascii=False))
        return
    if to.is_dir():
        raise UserError(sentence(f"{to} is a directory.", do="Give the path of a file with --to."))
    rows, unread = judgments_csv.read(read_side(source, store))
    if not rows:
        first = unread[0].why if unread else "it has no arm"
        raise UserError(
            sentence(
                f"No judgment of {source} can be read, so nothing was written.",
                reason=first,
                do="Name the run's store with --store; files of earlier versions do not record their judgments.",
            )
        )
    write_set(to.parent, {to.name: judgments_csv.text(rows)})
    print(f"{to}: {format_count(len(rows), 'judgment')}")
    for one in unread:
        print(f"Left out: {one.cell}, {one.arm}: {one.why}.")
    raise typer.Exit(ExitCode.INCOMPLETE if unread else ExitCode.DONE)
