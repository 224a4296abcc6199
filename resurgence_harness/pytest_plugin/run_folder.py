"""The temporary folder in which workers write collected cells and progress for the controller of one run.

Its name is chosen in advance and the first writer creates it, so a run without cells leaves no folder.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path

from resurgence_harness.pytest_plugin.collecting import NOTHING, Collected


def new_folder() -> Path:
    """A unique name; a path that cannot be created if the system has no folder for temporary files."""
    try:
        place = tempfile.gettempdir()
    except OSError:
        place = os.devnull
    return Path(place, f"resurgence-run-{uuid.uuid4().hex}")


def make(folder: Path) -> None:
    """Create the folder, accessible to this user only."""
    folder.mkdir(mode=0o700, exist_ok=True)


def write_collected(folder: Path, worker: str, collected: Collected) -> None:
    """Write the cells that a worker has collected."""
    make(folder)
    draft = folder / f"planned-{worker}.draft"
    draft.write_text(json.dumps(collected._asdict()), encoding="utf-8")
    draft.replace(folder / f"planned-{worker}.json")


def read_collected(folder: Path, worker: str) -> Collected:
    """The cells that a worker has collected."""
    try:
        return Collected(**json.loads((folder / f"planned-{worker}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING


def write_mistake(folder: Path, mistake: str) -> None:
    """Write a mistake in markers or options that a worker found."""
    make(folder)
    draft = folder / f"mistake-{os.getpid()}.draft"
    draft.write_text(mistake, encoding="utf-8")
    draft.replace(folder / "mistake.txt")


def read_mistake(folder: Path) -> str | None:
    """The mistake that a worker found; None if there is none."""
    path = folder / "mistake.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else None
