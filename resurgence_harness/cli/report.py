"""`resurgence report`: an HTML report of the last run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.cli.formatting import format_count, format_size
from resurgence_harness.process.unforeseen import keep_in


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("report")(report_command)


def report_command(
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="Output of a run: verdict.json and allure-results.")
    ] = Path("reports/out"),
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write the report. Default: beside the results.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Allure results, if the run was started with --alluredir.")
    ] = None,
    single: Annotated[bool, typer.Option("--single-file", help="One HTML file, to attach to a ticket.")] = False,
    serve: Annotated[bool, typer.Option("--open", help="Then serve it on this machine's local address.")] = False,
    port: Annotated[int, typer.Option(metavar="N", help="Port to serve it on; 0 for any free port.")] = 8765,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only write the figures to this directory, as PNG and SVG.")
    ] = None,
) -> None:
    """Make an HTML report of the last run: the verdicts that block the candidate, with their images.

    Needs Node (installed by pip install "resurgence-harness\\[report]"); Allure is downloaded once. The report loads
    nothing from other hosts.
    """
    from resurgence_harness.reporting import report
    from resurgence_harness.reporting.generator import generator

    keep_in(figures or to or source)
    if figures is not None:
        drawn = report.draw_figures(source, figures)
        print(f"{format_count(len(drawn), 'file')} in {figures}: {', '.join(path.name for path in drawn)}")
        return
    found = report.read(source, results)
    built = report.build(found, to or source, generator(told=True), single=single)
    print(built.title)
    print(f"{built.page} ({format_size(built.size)}, {format_count(len(found.tests), 'test')})")
    if built.left_out:
        print(f"{format_count(built.left_out, 'result')} of other runs in {found.folder} left out.")
    if serve:
        from resurgence_harness.reporting.serving import serve_until_stopped

        serve_until_stopped(built.page, port)
    elif not single:
        print("Its pages need a web server: `resurgence report --open`; a --single-file report opens without one.")
