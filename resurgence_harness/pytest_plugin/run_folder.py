"""The folder in which workers tell the controller of one run what they collected and what they do.

Its name is known before anything is in it, and whoever writes first makes it: a run without cells leaves no folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path

from resurgence_harness.pytest_plugin.collecting import NOTHING, Collected


def new_folder() -> Path:
    """A name that nobody else has; one that cannot be made where the system has no place for temporary files."""
    try:
        place = tempfile.gettempdir()
    except OSError:
        place = os.devnull
    return Path(place, f"resurgence-run-{uuid.uuid4().hex}")


def make(folder: Path) -> None:
    """Make the folder, for this user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)


def write_collected(folder: Path, worker: str, collected: Collected) -> None:
    """A worker tells which cells it has collected."""
    make(folder)
    draft = folder / f"planned-{worker}.draft"
    draft.write_text(json.dumps(collected._asdict()), encoding="utf-8")
    draft.replace(folder / f"planned-{worker}.json")


def read_collected(folder: Path, worker: str) -> Collected:
    """What a worker has collected."""
    try:
        return Collected(**json.loads((folder / f"planned-{worker}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING


def write_mistake(folder: Path, mistake: str) -> None:
    """A worker tells what is wrong with markers or options."""
    make(folder)
    draft = folder / f"mistake-{os.getpid()}.draft"
    draft.write_text(mistake, encoding="utf-8")
    draft.replace(folder / "mistake.txt")


def read_mistake(folder: Path) -> str | None:
    """What a worker found wrong."""
    path = folder / "mistake.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None
