"""`resurgence store`: what was made, whether it is whole, and what may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption, open_store
from resurgence_harness.cli.formatting import format_age, format_count, format_size, format_time
from resurgence_harness.cli.tables import show
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.storing import Artifact, Seal, Store, default_root, keeping
from resurgence_harness.storing.keeping import Checked
from resurgence_harness.storing.sealing import VARIABLE, store_key

store_app = typer.Typer(help=f"Look after the store of everything that was made.\n\n{one_line()}", no_args_is_help=True)


@store_app.command("ls")
def ls_command(
    store: StoreOption = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: checkpoint, images, judgments …")] = None,
) -> None:
    """List what is there, oldest first."""
    found = open_store(store)
    artifacts = [artifact for artifact in found.ls() if kind is None or artifact.kind == kind]
    now = datetime.now(UTC)
    rows = [
        (
            artifact.key[:12],
            artifact.kind,
            artifact.label,
            format_size(artifact.size),
            format_age(now - artifact.made),
            format_age(now - artifact.used),
            format_time(artifact.seconds),
        )
        for artifact in artifacts
    ]
    if rows:
        show("key", "kind", "what", "size", "made", "used", "took", rows=rows, right=[3, 4, 5, 6])
    sizes = f"{format_size(_total(artifacts))} in {found.here.name}{_kinds(artifacts)}"
    print(f"{format_count(len(artifacts), 'artifact')}, {sizes}")
    if hidden := len(found.entries()) - len(found.ls()):
        print(f"not sealed with {VARIABLE}, so counted as absent: {hidden} more")


@store_app.command("verify")
def verify_command(store: StoreOption = None) -> None:
    """Read every byte and compare it with what was written. Damage is named; the next build repairs it.

    Says how the entries are sealed, too. With RESURGENCE_STORE_KEY, one that another key sealed counts as damage.
    """
    found = open_store(store)
    _tell_checked(found, keeping.verify(found))


@store_app.command("seal")
def seal_command(store: StoreOption = None) -> None:
    """Seal with RESURGENCE_STORE_KEY what carries no keyed seal, so that runs with that key use it.

    Every byte is compared with its checksum first. That finds damage and no forgery: sealing vouches for what is there.
    """
    found = open_store(store)
    print(
        "Sealing vouches for what is there: whoever could write to this store until now may have changed it. "
        "Where that matters, start an empty store, or run the gate with --fresh."
    )
    _tell_checked(found, keeping.seal(found))


@store_app.command("gc")
def gc_command(
    store: StoreOption = None,
    older_than: Annotated[float, typer.Option(metavar="DAYS", help="Remove what was last used longer ago.")] = 30.0,
    keep: Annotated[list[str] | None, typer.Option(metavar="KIND", help="A kind to keep; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what was not used for long, and what killed builders left. All of it can be made again."""
    found = open_store(store)
    removed = keeping.gc(found, older_than_days=older_than, keep_kinds=keep or [], dry_run=dry_run)
    for one in removed:
        print(f"{format_size(one.size):>9}  {one.label}  ({one.reason})")
    verb = "would be removed from" if dry_run else "removed from"
    size = format_size(sum(one.size for one in removed))
    print(f"{format_count(len(removed), 'thing')}, {size}, {verb} {found.here.name}")


@store_app.command("path")
def path_command(store: StoreOption = None) -> None:
    """Print where the store is."""
    found = Store(store or default_root())
    print(found.name if found.remote is not None else found.root)


def _tell_checked(found: Store, every: Iterable[Checked]) -> None:
    """What is whole and how it is sealed; exit code 12 for damage."""
    whole = broken = 0
    seals: Counter[Seal] = Counter()
    for checked in every:
        wrong = checked.seal is Seal.WRONG
        problem = checked.problem or (f"is sealed with another key than {VARIABLE}, or was changed" if wrong else "")
        if checked.seal is not None:
            seals[checked.seal] += 1
        if problem:
            print(f"{checked.key}  {problem}")
        broken += bool(checked.problem)
        whole += not checked.problem
    print(f"{format_count(whole, 'artifact')} whole, {broken} broken in {found.here.name}")
    print(_seals(seals))
    if broken or seals[Seal.WRONG]:
        raise typer.Exit(ExitCode.HARNESS_ERROR)


def _seals(seals: Counter[Seal]) -> str:
    """How many entries are sealed in which way, and what that means."""
    if store_key() is None:
        unchecked = f"{seals[Seal.UNCHECKED]} sealed, not checked because {VARIABLE} is not set"
        return f"Keyed seals: {unchecked}; {seals[Seal.UNSEALED]} unsealed"
    counted = ", ".join(f"{seals[seal]} {seal.value}" for seal in (Seal.SEALED, Seal.UNSEALED, Seal.WRONG))
    absent = seals[Seal.UNSEALED] + seals[Seal.WRONG]
    return f"Keyed seals: {counted}" + (f"; {absent} of them count as absent" if absent else "")


def _total(artifacts: Iterable[Artifact]) -> int:
    return sum(artifact.size for artifact in artifacts)


def _kinds(artifacts: Sequence[Artifact]) -> str:
    kinds = sorted({artifact.kind for artifact in artifacts})
    parts = [
        f"{kind} {format_size(_total([artifact for artifact in artifacts if artifact.kind == kind]))}" for kind in kinds
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""
