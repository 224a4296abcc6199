"""Arguments shared by several commands, and the store that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.storing import Store, check_readable, default_root

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Arguments = Annotated[
    list[str], typer.Argument(metavar="SUITE_DIR [--resurgence-* …]", help="A suite, and options as for pytest.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "--resurgence-store", metavar="DIR|URL", help="Default: $RESURGENCE_STORE, else ~/.cache/resurgence."
    ),
]


def open_store(given: str | None) -> Store:
    """Open a store for reading. UserError for a path that is not a directory or a remote store that does not answer.

    A missing directory counts as an empty store.
    """
    store = Store(given or default_root())
    if store.remote is None and Path(store.root).exists() and not store.root.is_dir():
        raise UserError(sentence(f"The store at {store.name} is not a directory.", do="Give a directory with --store."))
    check_readable(store)
    return store
