"""Many manifests in few objects, so that a plan over a large store needs few requests.

    url/packs/<number>                gzip; a line for each artifact: key, space, manifest as one line of JSON
    url/changes/<key>.<random>        empty; written after a manifest was written or removed

A manifest is the one in the pack with the highest number that has its key, unless a change names the key: then it is
read itself. A pack is never rewritten, so machines keep copies. Whoever writes a pack reads the changes first and
removes only those afterwards, so a change made meanwhile stays. Packs are a copy: building and reading artifacts never
uses them. Versions of the package that do not know them write no changes; `resurgence store gc` finds what they wrote.
"""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from resurgence_harness.errors import ResurgenceError
from resurgence_harness.storing.disk import write_last
from resurgence_harness.storing.remote.files import Files

ENOUGH = 512
"""Changes after which a new pack is worth its while."""
MANY = 64
"""Packs after which they are written again as one."""


class Packs:
    """The packs of one remote store, with copies in a local directory."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._folder, self._changes = f"{files.root}/packs", f"{files.root}/changes"

    def begin(self) -> None:
        """Write the first pack of a new store, an empty one: from now on packs and changes name every artifact."""
        self.write(1, {})

    def note(self, key: str) -> None:
        """Record that a manifest was written or removed."""
        self._files.write(f"{self._changes}/{key}.{uuid.uuid4().hex[:12]}", b"")

    def read(self, copies: Path | None) -> tuple[dict[str, bytes], set[str]] | None:
        """(key → manifest, keys with changes); None if the store has no packs.

        `copies` is a directory for the packs of this store, which is created if its parent is there.
        """
        for _ in range(3):
            changed = {name.partition(".")[0] for name in self._files.names(self._changes)}
            numbers = self._numbers()
            contents = self._contents(numbers, copies)
            if None not in contents:
                break  # else another machine has merged them since they were listed
        else:
            return None
        found: dict[str, bytes] = {}
        for content in contents:
            found.update(_lines(content or b""))
        return (found, changed) if numbers else None

    def renew(self, copies: Path | None, *, manifests: Mapping[str, object] | None = None) -> None:
        """Write the changes as a new pack. `manifests` are the keys of all artifacts, if they are known.

        Nothing happens where the store refuses writing, or if another machine writes the same pack.
        """
        with suppress(ResurgenceError):
            names, numbers = self._files.names(self._changes), self._numbers()
            found = self.read(copies)
            known = found[0] if found is not None else {}
            keys = {name.partition(".")[0] for name in names}
            if manifests is not None:
                keys |= set(manifests) ^ {key for key, manifest in known.items() if manifest}
            elif found is None:
                return
            new = {key: (content or b"").replace(b"\n", b"") for key, content in self._manifests(keys).items()}
            merged = len(numbers) >= MANY or manifests is not None
            lines = {key: line for key, line in {**known, **new}.items() if line} if merged else new
            if self.write(max(numbers, default=0) + 1, lines):
                self._files.remove(f"{self._changes}/{name}" for name in names)
                if merged:
                    self._files.remove(f"{self._folder}/{old}" for old in numbers)

    def write(self, number: int, lines: Mapping[str, bytes]) -> bool:
        """Write a pack of these manifests, each one line; False if another machine has written one of this number."""
        text = b"".join(b"%s %s\n" % (key.encode(), line) for key, line in lines.items())
        content = gzip.compress(uuid.uuid4().hex.encode() + b" \n" + text, compresslevel=6, mtime=0)
        return self._files.create(f"{self._folder}/{number}", content)

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in self._files.names(self._folder) if name.isdecimal())

    def _manifests(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        paths = {f"{self._files.root}/{key[:2]}/{key}/manifest.json": key for key in keys}
        return {paths[path]: content for path, content in self._files.read_many(paths).items()}

    def _contents(self, numbers: list[int], copies: Path | None) -> list[bytes | None]:
        """The packs, those without a local copy from the store."""
        contents: dict[int, bytes | None] = {}
        for number in numbers if copies is not None else ():
            with suppress(OSError):
                contents[number] = Path(copies, str(number)).read_bytes()  # type: ignore[arg-type]
        absent = {f"{self._folder}/{number}": number for number in numbers if number not in contents}
        for path, content in self._files.read_many(absent).items():
            contents[absent[path]] = content
            if content is not None and copies is not None:
                with suppress(OSError):
                    copies.mkdir(exist_ok=True)
                    write_last(copies / str(absent[path]), content)
        return [contents[number] for number in numbers]


def _lines(content: bytes) -> dict[str, bytes]:
    """Key → manifest of a pack; empty for a removed artifact. An unreadable pack, or line, has none."""
    found: dict[str, bytes] = {}
    with suppress(OSError, EOFError):
        for line in gzip.decompress(content).split(b"\n"):
            if line[64:65] == b" ":
                found[line[:64].decode("ascii", "replace")] = line[65:]
    return found
