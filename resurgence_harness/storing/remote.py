"""A store elsewhere (s3://, gs://, memory:// …): fsspec's one appearance. Files first, manifest last.

The layout there:

    url/ab/abcdef…/<digest>/<file>        the bytes; the digest in the path keeps two builders' files apart
    url/ab/abcdef…/manifest.json          written last: where it is, the artifact is whole
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resurgence_harness.errors import Unwritable, UserError, sentence

MANIFEST = "manifest.json"
"""The file that says an artifact is finished."""


class Remote:
    """The far side of a store: whole artifacts go up after they are made and come down before they are opened."""

    def __init__(self, url: str) -> None:
        """Reach for the address; UserError where no installed package serves it."""
        import fsspec

        self.url = url.rstrip("/")
        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(
                sentence(
                    f"The store {url} cannot be reached.",
                    reason=" ".join(str(error).split()),
                    do="Install the package that serves this kind of address, or give a local directory.",
                )
            ) from error
        self._filesystem: Any = filesystem
        self._root: str = root.rstrip("/")

    def manifest(self, key: str) -> bytes | None:
        """The far manifest's bytes, or None where the artifact is not there."""
        try:
            return bytes(self._filesystem.cat_file(f"{self._folder(key)}/{MANIFEST}"))
        except FileNotFoundError:
            return None

    def keys(self) -> list[str]:
        """The keys of all finished artifacts there."""
        found = (str(path).split("/") for path in self._filesystem.find(self._root))
        return sorted(parts[-2] for parts in found if parts[-1] == MANIFEST)

    def pull(self, key: str, digest: str, names: list[str], into: Path) -> None:
        """Bring an artifact's files into a local directory."""
        for name in names:
            self._filesystem.get_file(f"{self._folder(key)}/{digest}/{name}", str(into / name))

    def push(self, key: str, digest: str, names: list[str], manifest: bytes, source: Path) -> None:
        """Send an artifact there: its files, then its manifest."""
        folder = self._folder(key)
        try:
            self._filesystem.makedirs(f"{folder}/{digest}", exist_ok=True)
            for name in names:
                self._filesystem.put_file(str(source / name), f"{folder}/{digest}/{name}")
            self._filesystem.pipe_file(f"{folder}/{MANIFEST}", manifest)
        except OSError as error:
            raise Unwritable(
                sentence(
                    f"The store {self.url} cannot be written.",
                    reason=" ".join(str(error).split()),
                    do="Check the address and your permissions, or choose another store with --resurgence-store.",
                )
            ) from error

    def remove(self, key: str) -> None:
        """Take an artifact away, its manifest first, so that a removal that is cut short leaves nothing finished."""
        folder = self._folder(key)
        if self._filesystem.exists(f"{folder}/{MANIFEST}"):
            self._filesystem.rm_file(f"{folder}/{MANIFEST}")
        for path in self._filesystem.find(folder):
            self._filesystem.rm_file(path)

    def _folder(self, key: str) -> str:
        return f"{self._root}/{key[:2]}/{key}"
