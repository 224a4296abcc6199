"""`resurgence validate`: measure the error rates, power and cost of the verdict's statistics."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import resurgence_harness
from resurgence_harness.cli.formatting import format_time
from resurgence_harness.process import ExitCode
from resurgence_harness.process.unforeseen import keep_in


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("validate")(validate_command)


def validate_command(
    full: Annotated[bool, typer.Option("--full", help="Ten thousand replicates instead of five hundred.")] = False,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Also replay these outcomes (CSV: concept,prompt,seed,before,after); may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the random numbers.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="N", help="Number of processes.")] = 1,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write validate.txt and validate.csv there.")
    ] = None,
) -> None:
    """Measure error rates, power and cost of the verdict's statistics. Needs no model.

    Exits with 12 if a number is outside what is allowed, or an engine that is wrong on purpose is not detected.
    """
    from resurgence_harness import validation

    stored = {path.name.partition(".")[0]: validation.read(path) for path in outcomes or ()}
    into = None if to is None else validation.folder(to)
    if into is not None:
        keep_in(into)
    checks = validation.every_check(validation.FULL if full else validation.FAST, seed=seed, stored=stored)

    def progress(name: str, seconds: float, done: int) -> None:
        print(f"{done}/{len(checks)} {name}, {format_time(seconds)}", file=sys.stderr)

    rows = validation.run(checks, jobs=jobs, progress=progress)
    print(validation.as_text(rows), end="")
    if into is not None:
        head = f"$ {shlex.join(['resurgence', *sys.argv[1:]])}\nresurgence-harness {resurgence_harness.__version__}"
        print(f"Written: {', '.join(str(path) for path in validation.write(rows, into, head=head))}")
    if not validation.passed(rows):
        raise typer.Exit(ExitCode.HARNESS_ERROR)
