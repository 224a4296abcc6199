"""`resurgence label`: a local page on which a person says what pictures show.

resurgence label reports/calibration --by "photo editor"
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.formatting import format_count

if TYPE_CHECKING:
    from resurgence_harness.labelling.session import Session

FOLDER = Path("reports/calibration")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("label")(label_command)


def label_command(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The pictures, as drawn for a calibration.")] = FOLDER,
    by: Annotated[str, typer.Option(metavar="ROLE", help="The labeller's role, no name: photo editor.")] = "labeller",
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 for any free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> None:
    """Label pictures on a local page: one key each, undo, every answer kept at once, resumable.

    Ends when every picture is labelled, or with Ctrl-C. A second labeller uses another --by.
    """
    from resurgence_harness.labelling import PictureSet, Session

    label(Session(PictureSet.read(folder), by), port=port, browser=browser)


def label(session: Session, *, port: int = 0, browser: bool = True) -> None:
    """Serve the page until every picture is labelled, or Ctrl-C; prints what is labelled."""
    import threading
    import time
    import webbrowser

    from filelock import FileLock, Timeout

    from resurgence_harness.errors import UserError, sentence
    from resurgence_harness.labelling.page import Server

    lock = FileLock(session.file.path.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            sentence(
                f"The pictures are being labelled by {session.file.by} in another process.",
                do="Use its page, in as many windows as you like, or another role: --by.",
            )
        ) from None
    with lock, Server(session, port) as server:
        total = len(session.order)
        print(f"{server.address}  ({len(session.file.labels)} of {total} labelled; Ctrl-C to stop)", flush=True)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        if browser:
            webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            while len(session.file.labels) < total:
                time.sleep(0.2)
            time.sleep(0.5)  # the page still gets its last answer
        server.shutdown()
    done = session.state()
    print("; ".join([f"{done['done']} of {format_count(total, 'picture')} labelled", *done["agreement"]]))
    for letter in re.findall(r"kappa (\S+)", " ".join(done["agreement"])):
        if letter != "undefined" and float(letter) < 0.6:
            print("A kappa under .6 is poor: agree on what counts as shown, and label again under new roles.")
            break
