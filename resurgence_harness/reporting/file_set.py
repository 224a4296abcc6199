"""Writes a set of files, all or none; the last file in place means that the set is complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from resurgence_harness.errors import HarnessError, sentence, shown


def write_set(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    """Write files into a folder, which is created if it is missing; returns their paths in the same order.

    All files are written under temporary names first, then renamed in the given order. HarnessError if one cannot be
    written; then none of them is left, and older files of the same names are gone, too.
    """
    drafts: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            drafts.append((folder / f".{name}.{os.getpid()}", folder / name))
            drafts[-1][0].write_bytes(encoded(content))
        for draft, place in drafts:
            draft.replace(place)
    except BaseException as error:
        for path in (path for pair in drafts for path in pair):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise HarnessError(
                sentence(
                    f"The reports cannot be written into {shown(str(folder))}.",
                    reason=error.strerror or error,
                    file=drafts[-1][1].name if drafts else "none",
                    do="Free space there or choose another folder, and run it again: what was drawn is in the store.",
                )
            ) from error
        raise
    return [place for _, place in drafts]


def encoded(content: str | bytes) -> bytes:
    """UTF-8; a lone surrogate, as in a file name that could not be decoded, is written as its escape."""
    return content if isinstance(content, bytes) else content.encode("utf-8", errors="backslashreplace")
