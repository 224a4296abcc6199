"""The `resurgence` command with its subcommands, and its argument parsing."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import resurgence_harness
from resurgence_harness.cli import (
    build,
    compare,
    export,
    gate,
    listing,
    new,
    paper,
    plan,
    report,
    store,
    stress,
    theory,
    validate,
)
from resurgence_harness.process import ExitCode, one_line

app = typer.Typer(
    name="resurgence",
    help=f"Safety regression tests for concept resurgence in Stable Diffusion models.\n\n{one_line()}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(store.store_app, name="store")
for part in (gate, compare, export, stress, plan, build, theory, validate, report, paper, listing, new):
    part.register(app)

_Unreadable: Any = typer.BadParameter.__mro__[2]
"""click's ClickException, of the click that typer uses: its own copy or the installed one."""


def run(arguments: list[str]) -> object:
    """Run the command with these arguments; returns its exit code.

    click's own `main` is not used, since it exits with 1 for a closed pipe and for an end of input at a prompt.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("resurgence", arguments) as context:
            command.invoke(context)
            return ExitCode.DONE
    except typer.Exit as left:
        return ExitCode.DONE if left.exit_code == 0 else left.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except _Unreadable as error:
        _show(error)
        return ExitCode.INTERRUPTED


def _show(error: Any) -> None:
    try:
        from typer.rich_utils import rich_format_error
    except ImportError:
        error.show(file=sys.stderr)
    else:
        rich_format_error(error)


def _version(given: bool) -> None:
    if given:
        print(f"resurgence-harness {resurgence_harness.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
