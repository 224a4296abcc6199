"""`resurgence store`: list, verify, seal and clean up the store."""

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

store_app = typer.Typer(help=f"Manage the store of built artifacts.\n\n{one_line()}", no_args_is_help=True)


@store_app.command("ls")
def ls_command(
    store: StoreOption = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: checkpoint, images, judgments …")] = None,
) -> None:
    """List the artifacts, oldest first."""
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
        show("key", "kind", "artifact", "size", "built", "used", "took", rows=rows, right=[3, 4, 5, 6])
    sizes = f"{format_size(_total(artifacts))} in {found.here.name}{_kinds(artifacts)}"
    print(f"{format_count(len(artifacts), 'artifact')}, {sizes}")
    if hidden := len(found.entries()) - len(found.ls()):
        print(f"not sealed with {VARIABLE}, so counted as absent: {hidden} more")


@store_app.command("verify")
def verify_command(store: StoreOption = None) -> None:
    """Verify the checksum of every file and list damaged artifacts; the next build repairs them.

    Also reports the seals. With RESURGENCE_STORE_KEY, an entry sealed with another key counts as damaged.
    """
    found = open_store(store)
    _print_checked(found, keeping.verify(found))


@store_app.command("seal")
def seal_command(store: StoreOption = None) -> None:
    """Seal the entries without a keyed seal with RESURGENCE_STORE_KEY, so that runs with that key use them.

    Checksums are verified first. They detect damage but no forgery, so sealing trusts the present content.
    """
    found = open_store(store)
    print(
        "Sealing trusts the present content: anybody who could write to this store until now may have changed it. "
        "If that matters, start with an empty store, or run the gate with --fresh."
    )
    _print_checked(found, keeping.seal(found))


@store_app.command("gc")
def gc_command(
    store: StoreOption = None,
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", help="Remove artifacts last used longer ago than this.")
    ] = 30.0,
    keep: Annotated[list[str] | None, typer.Option(metavar="KIND", help="A kind to keep; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove artifacts that were not used recently, and leftovers of killed builds. All can be built again."""
    found = open_store(store)
    removed = keeping.gc(found, older_than_days=older_than, keep_kinds=keep or [], dry_run=dry_run)
    for one in removed:
        print(f"{format_size(one.size):>9}  {one.label}  ({one.reason})")
    verb = "would be removed from" if dry_run else "removed from"
    size = format_size(sum(one.size for one in removed))
    print(f"{format_count(len(removed), 'item')}, {size}, {verb} {found.here.name}")


@store_app.command("path")
def path_command(store: StoreOption = None) -> None:
    """Print the location of the store."""
    found = Store(store or default_root())
    print(found.name if found.remote is not None else found.root)


def _print_checked(found: Store, every: Iterable[Checked]) -> None:
    """Print the damaged artifacts and a summary of the seals; exit code 12 for damage."""
    intact = damaged = 0
    seals: Counter[Seal] = Counter()
    for checked in every:
        wrong = checked.seal is Seal.WRONG
        problem = checked.problem or (f"is sealed with another key than {VARIABLE}, or was changed" if wrong else "")
        if checked.seal is not None:
            seals[checked.seal] += 1
        if problem:
            print(f"{checked.key}  {problem}")
        damaged += bool(checked.problem)
        intact += not checked.problem
    print(f"{format_count(intact, 'artifact')} intact, {damaged} damaged in {found.here.name}")
    print(_seals(seals))
    if damaged or seals[Seal.WRONG]:
        raise typer.Exit(ExitCode.HARNESS_ERROR)


def _seals(seals: Counter[Seal]) -> str:
    """One line: how many entries are sealed, unsealed or wrongly sealed, and how many count as absent."""
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
