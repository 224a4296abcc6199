"""`resurgence fetch`: download bases and judges' weights, or prepare files that the user has.

resurgence fetch sd14 --agree creativeml-openrail-m
resurgence fetch q16 --from q16-prompts=prompts.p --dry-run
resurgence fetch owner/name@<commit>
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.formatting import format_size
from resurgence_harness.cli.tables import show
from resurgence_harness.errors import UserError, sentence, shown

if TYPE_CHECKING:
    from resurgence_harness.fetching import Item, Step


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("fetch")(fetch_command)


def fetch_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="sd14, sd21, clip, q16, gcd …, owner/name@<commit>; none: list them."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="NAME=PATH", help="Prepare this from a file or folder; pickles are converted."),
    ] = None,
    agree: Annotated[
        list[str] | None, typer.Option(metavar="LICENCE", help="Agree to a licence by its name; asked for otherwise.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what, how large, from where, under which licence.")
    ] = False,
) -> None:
    """Download bases and judges' weights with pinned hashes, or prepare your own files.

    The only command that downloads models. It continues where it stopped; the token is the hub's own login.
    """
    from resurgence_harness.fetching import Agreements, Hub, fetch, items_named, plan, prepare

    if not names and not given:
        _list()
        return
    paths = paths_given(given or ())
    items = items_named([*(names or ()), *(name for name in paths if name not in (names or ()))])
    unused = sorted(set(paths) - {item.name for item in items})
    if unused:
        raise UserError(
            sentence(
                f"--from names {shown(unused[0])}, which is prepared from several files.",
                items=", ".join(item.name for item in items),
                do="Give a path for one of these.",
            )
        )
    hub = Hub()
    steps = plan([item for item in items if item.name not in paths], hub)
    if dry_run:
        show_plan(steps, prepared=[(item, paths[item.name]) for item in items if item.name in paths])
        return
    for item in items:
        if item.name in paths:
            print(prepare(item, paths[item.name]))
    fetch(steps, hub, agreements=Agreements.here(), agreed=agree or (), ask=asked if sys.stdin.isatty() else None)


def show_plan(steps: tuple[Step, ...], *, prepared: Sequence[tuple[Item, Path]] = ()) -> None:
    """Print what a fetch would do."""
    rows = [(shown(item.name), "prepare", "", f"{path}", item.licence.name, "") for item, path in prepared]
    for step in steps:
        state = "here" if step.ready else "first: see below" if step.obstacle else "download"
        size = format_size(step.size) if step.size else ""
        left = format_size(step.missing) if step.missing else ""
        rows.append((shown(step.item.name), state, size, step.source, step.item.licence.name, left))
    show("name", "state", "size", "from", "licence", "to download", rows=rows, right=[2, 5])
    for step in steps:
        if step.obstacle and not step.ready:
            print(f"\n{step.obstacle}")


def asked(step: Step) -> bool:
    """Show a licence on the terminal and ask for the agreement."""
    licence = step.item.licence
    print(f"\n{shown(step.item.name)}: {step.item.about}, {format_size(step.size)}, from {step.source}")
    print(f"  licence  {licence.name if step.tag == licence.tag else step.tag}")
    for name, value in (("text", licence.text), ("limits", licence.limits)):
        if value:
            print(f"  {name:<7}  {value}")
    return typer.confirm("Do you agree to it?", default=False)


def _list() -> None:
    from resurgence_harness.fetching.catalogue import TOGETHER, catalogue

    rows = [
        (
            item.name,
            item.about,
            ", ".join(mirror.repo for mirror in item.mirrors) or _without_mirror(item),
            item.licence.name,
        )
        for item in catalogue().values()
    ]
    show("name", "what", "from", "licence", rows=rows)
    print("; ".join(f"{name} is {' and '.join(parts)}" for name, parts in TOGETHER.items()))


def _without_mirror(item: Item) -> str:
    return item.search if item.weights is not None and item.weights.package else "your files"


def paths_given(given: Sequence[str]) -> dict[str, Path]:
    """Item → path; UserError for something else than NAME=PATH."""
    found = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name and equals and path):
            raise UserError(sentence(f"--from {shown(one)} is not NAME=PATH.", do="Write --from gcd=resources."))
        found[name] = Path(path)
    return found
