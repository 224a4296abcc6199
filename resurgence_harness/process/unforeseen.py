"""Unexpected errors: one sentence for the user, the traceback in a file for the developers.

The file goes into the output folder if that is known and writable, else into the system's temporary folder; else the
traceback is printed. It may hold paths of the machine, and is not uploaded.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import resurgence_harness
from resurgence_harness.errors import sentence, shown

_folders: list[Path] = []


def keep_in(folder: Path) -> None:
    """Save further tracebacks of this process in this folder."""
    with suppress(OSError):  # a relative path, and no working directory
        _folders[:] = [folder.absolute()]


def forget_folder() -> None:
    """Forget the output folder, at the start of a command."""
    _folders.clear()


def recorded(error: BaseException) -> str:
    """Save the traceback of an unexpected error; returns the sentence about it."""
    text = _text(error)
    path = next((path for folder in _places() if (path := _written(folder, text)) is not None), None)
    if path is None:
        with suppress(Exception):
            print(text, file=sys.stderr)
    what = f"{type(error).__name__}: {' '.join(str(error).split())}" if str(error).strip() else type(error).__name__
    return sentence(
        f"Something went wrong that was not foreseen: {shown(what, limit=300)}",
        traceback=path or "above",
        do="This is no verdict on any model. Report it with that traceback.",
    )


def _text(error: BaseException) -> str:
    head = f"resurgence-harness {resurgence_harness.__version__}, Python {sys.version.split()[0]}, {sys.platform}\n"
    return head + "".join(traceback.format_exception(error))


def _places() -> list[Path]:
    places = [folder for folder in _folders if folder.is_dir()]
    with suppress(OSError):  # no writable temporary folder
        places.append(Path(tempfile.gettempdir()))
    return places


def _written(folder: Path, text: str) -> Path | None:
    name = f"resurgence-error-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    for more in ("", *(f"-{number}" for number in range(2, 10))):
        path = folder / f"{name}{more}.txt"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        except OSError:
            return None
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError:
            with suppress(OSError):
                path.unlink()
            return None
        return path
    return None
