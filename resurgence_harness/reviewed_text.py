"""Readers of text files that people review, such as policies and lists of names: the text read is what a reviewer saw.

Links, devices, pipes, files of more than `LARGEST` bytes, encodings other than UTF-8 and characters that hide text
(marks of direction, control characters, line breaks that editors do not show) are rejected, each with its own message.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.errors import UserError, sentence, shown

LARGEST = 1 << 20
"""Maximum size of a reviewed file in bytes."""
ENCODINGS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""Byte order marks of other encodings; the longer ones first."""
_DECEPTIVE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]|[\ufdd0-\ufdef\ufffe\uffff]|\r(?!\n)"
)
"""Control characters, marks of direction, tags, line ends that most editors do not show, and Unicode noncharacters."""


class Reviewed(NamedTuple):
    """The content of a reviewed file."""

    text: str
    """Without the byte order mark of UTF-8."""
    sha256: str
    """Of the file's bytes."""


def read_reviewed(path: Path, what: str, do: str) -> Reviewed:
    """Read a reviewed file; UserError if it is not plain UTF-8. The message names `what` it is and ends with `do`."""
    try:
        data = _read(path)
        return Reviewed(decoded(data), hashlib.sha256(data).hexdigest())
    except (OSError, ValueError) as problem:
        because = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        raise UserError(
            sentence(f"The {what} {shown(str(path))} cannot be read.", because=shown(because, limit=200), do=do)
        ) from None


def decoded(data: bytes) -> str:
    """Decode UTF-8 without hidden characters; ValueError naming the first problem."""
    for mark, name in ENCODINGS.items():
        if data.startswith(mark):
            raise ValueError(f"it is written in {name}, not in UTF-8")
    if b"\0" in data:
        raise ValueError(f"byte {data.index(0):,} is a null character, as in UTF-16 or in a binary file")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        raise ValueError(f"byte {problem.start:,} is 0x{data[problem.start]:02x}, which is not UTF-8") from None
    found = _DECEPTIVE.search(text)
    if found is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"line {line:,} holds U+{ord(found[0]):04X}, an invisible character")
    return text


def check_inside(path: Path, folder: Path) -> bool:
    """Whether the path lies in the folder after its links are resolved."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _read(path: Path) -> bytes:
    """The bytes of a regular file, opened without blocking on a pipe and without following a link."""
    about = os.lstat(path)
    if stat.S_ISLNK(about.st_mode):
        raise ValueError("it is a link, and its target is not reviewed with it")
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("it is a folder" if stat.S_ISDIR(about.st_mode) else "it is not a regular file")
    if not path.is_absolute() and ".." not in path.parts and not check_inside(path, Path.cwd()):
        raise ValueError("it leads out of this folder through a link")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(LARGEST + 1) if about.st_size <= LARGEST else b""
    if about.st_size > LARGEST or len(data) > LARGEST:
        raise ValueError(f"it is {max(about.st_size, len(data)):,} bytes long, and at most {LARGEST:,} are read")
    return data
