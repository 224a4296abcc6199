"""`resurgence store`: list, verify, seal and clean up the store."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from resurgence_harness.cli.arguments import StoreOption, open_store
from resurgence_harness.cli.formatting import format_age, format_count, format_size, format_time
from resurgence_harness.cli.tables import show
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.storing import (
    Artifact,
    Seal,
    Store,
    check_usable,
    check_writable,
    copying,
    default_root,
    keeping,
)
from resurgence_harness.storing.copying import Copied, Outcome
from resurgence_harness.storing.garbage import GRACE
from resurgence_harness.storing.keeping import Checked
from resurgence_harness.storing.sealing import VARIABLE, store_key

RemoteOption = Annotated[str, typer.Option("--remote", metavar="URL", help="The remote store, such as s3://bucket/x.")]
VerifyOption = Annotated[
    str | None, typer.Option("--remote", metavar="URL", help="Verify this remote store instead, at its source.")
]
KindOption = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be repeated.")]

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
def verify_command(store: StoreOption = None, remote: VerifyOption = None) -> None:
    """Verify the checksum of every file and list damaged artifacts; the next build repairs them.

    Also reports the seals. With RESURGENCE_STORE_KEY, an entry sealed with another key counts as damaged.
    With --remote, every byte of that store is downloaded and nothing is kept; an interrupted verification goes on
    where it stopped.
    """
    if remote is None:
        found = open_store(store)
        _print_checked(found, keeping.verify(found))
        return
    found = open_store(copying.remote_of(remote))
    with _progress() as progress:
        checked = list(copying.verify_remote(remote, progress=progress))
    _print_checked(found, checked)


@store_app.command("push")
def push_command(remote: RemoteOption, store: StoreOption = None, kind: KindOption = None) -> None:
    """Upload the artifacts of a local store to a remote one; what is there already is not sent again."""
    found, there = open_store(store), open_store(copying.remote_of(remote))
    if found.remote is not None:
        raise UserError(
            sentence("The store to upload from is itself a remote one.", do="Give a local directory with --store.")
        )
    check_usable(remote)
    with _progress() as progress:
        copied = list(copying.push(found, remote, kinds=kind or [], progress=progress))
    _print_copied(copied, there)


@store_app.command("pull")
def pull_command(remote: RemoteOption, store: StoreOption = None, kind: KindOption = None) -> None:
    """Download the artifacts of a remote store to a local one and check every byte; what is there is not fetched."""
    found, _ = open_store(store), open_store(copying.remote_of(remote))
    if found.remote is not None:
        raise UserError(
            sentence("The store to download to is itself a remote one.", do="Give a local directory with --store.")
        )
    check_writable(found.name)
    with _progress() as progress:
        copied = list(copying.pull(found, remote, kinds=kind or [], progress=progress))
    _print_copied(copied, found)


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
    grace: Annotated[
        float,
        typer.Option(
            metavar="HOURS", help="Remote stores: keep what was written or used within this time, and its inputs."
        ),
    ] = GRACE.total_seconds() / 3600,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove artifacts that were not used recently, and leftovers of killed builds. All can be built again.

    In a remote store, the last use is the last upload or download by any machine.
    """
    found, time = open_store(store), timedelta(hours=grace)
    removed = keeping.gc(found, older_than_days=older_than, keep_kinds=keep or [], dry_run=dry_run, grace=time)
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


@contextmanager
def _progress() -> Iterator[copying.Progress]:
    """Show the progress of a copy on stderr: a bar on a terminal, else a line at most every `EVERY` seconds."""
    from rich.console import Console

    from resurgence_harness.watching import EVERY

    console, last = Console(stderr=True), time.monotonic()
    if not console.is_terminal:

        def line(label: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= EVERY:
                last = time.monotonic()
                print(f"[resurgence] {label} {done}/{total}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda label, done, total: bars.update(bar, description=escape(label), completed=done, total=total)


def _print_copied(copied: Sequence[Copied], destination: Store) -> None:
    """Print the damaged artifacts and a summary; exit code 12 for damage."""
    for one in copied:
        if one.outcome is Outcome.DAMAGED:
            print(f"{one.key}  {one.problem}")
    for outcome in Outcome:
        chosen = [one for one in copied if one.outcome is outcome]
        if chosen or outcome is Outcome.COPIED:
            size = format_size(sum(one.size for one in chosen))
            print(f"{format_count(len(chosen), 'artifact')} ({size}) {outcome.value}")
    print(f"in {destination.here.name}")
    if any(one.outcome is Outcome.DAMAGED for one in copied):
        raise typer.Exit(ExitCode.HARNESS_ERROR)


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
