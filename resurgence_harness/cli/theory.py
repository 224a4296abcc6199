"""`resurgence theory`: the paper's linear score model beside its bounds."""

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
        Path | None, typer.Option(metavar="DIR", help="Also draw the page's three figures (SVG) into this directory.")
    ] = None,
) -> None:
    """Print the paper's linear score model (section 5) beside its bounds, and what does not hold. Needs no model."""
    from resurgence_harness.theory.account import account

    if figures is not None and figures.exists() and not figures.is_dir():
        raise UserError(sentence(f"{figures} is not a directory.", do="Give a directory with --figures."))
    for told in account():
        show(*told.header, rows=told.rows, title=told.title)
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
