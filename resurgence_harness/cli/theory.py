"""`resurgence theory`: exact values of the paper's linear score model beside its bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.tables import show
from resurgence_harness.errors import UserError, sentence


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("theory")(theory_command)


def theory_command(
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the three figures of docs/theory.md there, as SVG.")
    ] = None,
) -> None:
    """Print exact values of the paper's linear score model (section 5) beside its bounds. Needs no diffusion model."""
    from resurgence_harness.theory.account import account

    if figures is not None and figures.exists() and not figures.is_dir():
        raise UserError(sentence(f"{figures} is not a directory.", do="Give a directory with --figures."))
    for table in account():
        show(*table.header, rows=table.rows, title=table.title)
        print()
    if figures is None:
        return
    from resurgence_harness.theory.figures import draw

    try:
        written = draw(figures)
    except OSError as error:
        raise UserError(
            sentence(
                f"Figures cannot be written into {figures}.", reason=error, do="Give a directory that can be written."
            )
        ) from error
    print(f"{format_count(len(written), 'figure')} in {figures}: {', '.join(path.name for path in written)}")
