"""The `resurgence` command: its parts put together, and its mistakes told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import resurgence_harness
from resurgence_harness.cli import build, paper, plan, report, store, theory, validate
from resurgence_harness.cli.codes import EXIT_CODES, HARNESS_ERROR, USER_ERROR
from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.gate import command as gate

app = typer.Typer(
    name="resurgence",
    help=f"Safety regression tests for concept resurgence in Stable Diffusion models.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(store.store_app, name="store")
for part in (gate, plan, build, theory, validate, report, paper):
    part.register(app)


def main() -> None:
    """The `resurgence` command: a person's mistake is one message without a traceback."""
    try:
        app()
    except UserError as error:
        _fail(error, USER_ERROR)
    except HarnessError as error:
        _fail(error, HARNESS_ERROR)


def _version(asked: bool) -> None:
    if asked:
        print(f"resurgence-harness {resurgence_harness.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def _fail(error: Exception, code: int) -> None:
    print(f"resurgence: {error}", file=sys.stderr)
    raise SystemExit(code)
