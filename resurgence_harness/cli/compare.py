"""`resurgence compare`: two runs of the same cells."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.process.unforeseen import keep_in


class FailOn(StrEnum):
    """What makes the command fail."""

    REGRESSION = "regression"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("compare", epilog=one_line())(compare_command)


def compare_command(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="The earlier run: its folder, its verdict.json, or a bare store.")
    ],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The later run.")],
    fail_on: Annotated[
        FailOn | None,
        typer.Option(help="Exit code 1 if a cell got worse, 10 if that is undecided, 11 if a cell is missing."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to write compare.json, compare.md and compare.html.")
    ] = Path("reports/compare"),
    alpha: Annotated[
        float | None, typer.Option(metavar="P", help="Joint error of all intervals. Default: the runs' alpha.")
    ] = None,
    concepts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Erased concepts, one per line: for bare stores, which do not record them."),
    ] = None,
    store: StoreOption = None,
    second_store: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="The store of SECOND, if it is another.")
    ] = None,
) -> None:
    """Compare two runs of the same cells: rates with intervals, changed verdicts and why, new images side by side.

    Images are compared in pairs where prompt, seed and judge agree and the store still has their judgments; otherwise
    the two runs' rates are compared, which is stated. A folder "store" beside a verdict.json is used as its store.
    """
    from rich.text import Text

    from resurgence_harness.gate import running
    from resurgence_harness.library.comparing import REPORTS, compare
    from resurgence_harness.library.gating import console
    from resurgence_harness.reporting import closing
    from resurgence_harness.reporting.comparing import text

    running.make(out)
    for name in REPORTS:
        (out / name).unlink(missing_ok=True)  # a comparison that is refused leaves no report of an earlier one
    keep_in(out)
    found = compare(first, second, alpha=alpha, store=store, second_store=second_store, concepts=concepts)
    written = found.write(out)
    screen = console()
    for line in [*text.lines(found.document), text.closing(found.document, failing=fail_on is not None)]:
        screen.print(Text.assemble(*((part, closing.RICH[style]) for part, style in line)), soft_wrap=True)
    print(f"Written: {', '.join(map(str, written))}")
    raise typer.Exit(found.exit_code if fail_on is not None else ExitCode.DONE)
