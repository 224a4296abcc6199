"""`resurgence store`: what was made, whether it is whole, and what may go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption, opened
from resurgence_harness.cli.tables import show
from resurgence_harness.cli.words import age_words, count_words, size_words, time_words
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.storing import Artifact, Store, default_root

store_app = typer.Typer(help=f"Look after the store of everything that was made.\n\n{one_line()}", no_args_is_help=True)


@store_app.command("ls")
def ls_command(
    store: StoreOption = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: checkpoint, images, judgments …")] = None,
) -> None:
    """List what is there, oldest first."""
    found = opened(store)
    artifacts = [artifact for artifact in found.ls() if kind is None or artifact.kind == kind]
    now = datetime.now(UTC)
    rows = [
        (
            artifact.key[:12],
            artifact.kind,
            artifact.words,
            size_words(artifact.size),
            age_words(now - artifact.made),
            age_words(now - artifact.used),
            time_words(artifact.seconds),
        )
        for artifact in artifacts
    ]
    if rows:
        show("key", "kind", "what", "size", "made", "used", "took", rows=rows, right=[3, 4, 5, 6])
    sizes = f"{size_words(_total(artifacts))} in {found.name}{_kinds(artifacts)}"
    print(f"{count_words(len(artifacts), 'artifact')}, {sizes}")


@store_app.command("verify")
def verify_command(store: StoreOption = None) -> None:
    """Read every byte and compare it with what was written. Damage is named; the next build repairs it."""
    found = opened(store)
    whole = broken = 0
    for checked in found.verify():
        if checked.problem:
            broken += 1
            print(f"{checked.key}  {checked.problem}")
        else:
            whole += 1
    print(f"{count_words(whole, 'artifact')} whole, {broken} broken in {found.name}")
    if broken:
        raise typer.Exit(ExitCode.HARNESS_ERROR)


@store_app.command("gc")
def gc_command(
    store: StoreOption = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="Remove what was last used longer ago.")] = 30.0,
    keep: Annotated[list[str] | None, typer.Option(metavar="KIND", help="A kind to keep; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what was not used for long, and what killed builders left. All of it can be made again."""
    found = opened(store)
    removed = found.gc(older_than_days=older_than, keep_kinds=keep or [], dry_run=dry_run)
    for one in removed:
        print(f"{size_words(one.size):>9}  {one.words}  ({one.reason})")
    verb = "would be removed from" if dry_run else "removed from"
    print(f"{count_words(len(removed), 'thing')}, {size_words(sum(one.size for one in removed))}, {verb} {found.name}")


@store_app.command("path")
def path_command(store: StoreOption = None) -> None:
    """Print where the store is."""
    found = Store(store or default_root())
    print(found.name if found.remote is not None else found.root)


def _total(artifacts: Iterable[Artifact]) -> int:
    return sum(artifact.size for artifact in artifacts)


def _kinds(artifacts: Sequence[Artifact]) -> str:
    kinds = sorted({artifact.kind for artifact in artifacts})
    parts = [
        f"{kind} {size_words(_total([artifact for artifact in artifacts if artifact.kind == kind]))}" for kind in kinds
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""
