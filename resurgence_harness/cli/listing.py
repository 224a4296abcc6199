"""`resurgence list`: every registered method, fine-tuning, judge and task, and where it comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.tables import show
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.registry.tables import KINDS


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("list")(list_command)


def list_command(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help=f"Only this kind: {', '.join(KINDS)}.")] = None,
) -> None:
    """List the registered methods, fine-tunings, judges and tasks, with the packages that they come from.

    What a conftest.py adds belongs to its suite: it is noted in the suite's reports and by `resurgence plan`.
    """
    from resurgence_harness import judging, tasks  # noqa: F401  their tables are defined when they are imported
    from resurgence_harness.presets.stepping import check_steps
    from resurgence_harness.registry import entries
    from resurgence_harness.registry.origins import DIGITS

    if kind is not None and kind not in KINDS:
        raise UserError(
            sentence(f'There is no kind "{shown(kind)}".', known=", ".join(KINDS), do="Name one of these, or none.")
        )
    chosen = [entry for one in ([kind] if kind else KINDS) for entry in entries(one)]
    check_steps()
    rows = [(entry.kind, shown(entry.name), shown(str(entry.origin)), entry.source[:DIGITS] or "—") for entry in chosen]
    show("kind", "name", "from", "source", rows=rows)
    packages = sorted({str(entry.origin) for entry in chosen if entry.origin.kind == "package"})
    outside = f", {format_count(len(packages), 'package')}: {', '.join(map(shown, packages))}" if packages else ""
    print(f"{len(chosen)} registered{outside}")
