"""The answers of one labeller: one line each, appended and synced at once, never rewritten.

    {"set": …, "by": "photo editor", "at": …, "chain": sha256}       first line: which pictures, whose answers
    {"picture": sha256, "label": "Ada Quill", "at": …, "chain": …}
    {"undo": sha256, "at": …, "chain": …}

    chainₖ = sha256(chainₖ₋₁ + line k without its chain, as canonical JSON)

so a changed, removed or inserted line contradicts every later one. Lines cut off at the end leave a valid file; a
calibration records the last chain, which they contradict. The last line may be incomplete after a crash: it was no
answer yet, and is removed before the next one is appended.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.labelling.picture_set import PictureSet
from resurgence_harness.storing.keys import canonical_json

NONE = "none of these"
"""The label of a picture that shows none of the choices."""
CANNOT_TELL = "cannot tell"
"""The label of a picture whose content the labeller cannot tell; counts against the judge."""
ROLE = re.compile(r"[a-z0-9][a-z0-9 -]{0,39}")


@dataclass
class LabelFile:
    """The answers of a labeller to the pictures of a set."""

    path: Path
    pictures: PictureSet
    by: str
    """The labeller's role, never a person's name."""
    labels: dict[str, str] = field(default_factory=dict)
    """sha256 of a picture → its label, in the order of the answers that were not undone."""
    chain: str = ""
    """sha256 over everything so far; empty for a file that is not begun."""
    _whole: int = 0

    @classmethod
    def open(cls, pictures: PictureSet, by: str) -> LabelFile:
        """The labeller's file in the set's folder, read and checked; nothing is written before the first answer.

        UserError for a role that cannot be a file's name, a file that was edited, or one of other pictures.
        """
        if not ROLE.fullmatch(by):
            raise UserError(
                sentence(
                    f'"{shown(by)}" cannot be the role of a labeller.',
                    do="Give a role, not a name: lower-case letters, digits, spaces, at most 40: photo editor.",
                )
            )
        found = cls(path=pictures.folder / f"labels-{by.replace(' ', '-')}.jsonl", pictures=pictures, by=by)
        found._read()
        return found

    def add(self, picture: str, label: str) -> None:
        """Append an answer. UserError for another label than a choice, `NONE` or `CANNOT_TELL`."""
        if label not in (*self.pictures.choices, NONE, CANNOT_TELL):
            raise UserError(sentence(f'"{shown(label)}" is no label of these pictures.', do="Reload the page."))
        self._append({"picture": picture, "label": label})
        self.labels[picture] = label

    def undo(self) -> str | None:
        """Take the last answer back; returns its picture, None if there is no answer."""
        if not self.labels:
            return None
        picture = next(reversed(self.labels))
        self._append({"undo": picture})
        del self.labels[picture]
        return picture

    def _append(self, line: dict[str, Any]) -> None:
        before = self.chain
        try:
            with self.path.open("r+b" if self.path.exists() else "xb") as stream:
                stream.seek(self._whole)
                stream.truncate()  # an incomplete line of a crash
                if not self.chain:
                    self._write(stream, {"set": self.pictures.digest, "by": self.by})
                self._write(stream, line)
                stream.flush()
                os.fsync(stream.fileno())
                self._whole = stream.tell()
        except OSError as problem:
            self.chain = before
            raise UserError(
                sentence(
                    f"The answer cannot be written to {self.path}.",
                    problem=problem.strerror,
                    do="Make room, or make the file writable; the last answer is not kept.",
                )
            ) from None

    def _write(self, stream: Any, line: dict[str, Any]) -> None:
        line = {**line, "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self.chain = _next(self.chain, line)
        stream.write((json.dumps({**line, "chain": self.chain}, ensure_ascii=False) + "\n").encode())

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as problem:
            raise UserError(sentence(f"{self.path} cannot be read.", problem=problem.strerror)) from None
        self._whole = content.rfind(b"\n") + 1
        known = {picture.sha256 for picture in self.pictures.pictures}
        allowed = (*self.pictures.choices, NONE, CANNOT_TELL)
        for number, raw in enumerate(content[: self._whole].splitlines(), 1):
            try:
                line = json.loads(raw)
                chain = line.pop("chain")
                sound = chain == _next(self.chain, line)
                if number == 1:
                    if sound and line["set"] != self.pictures.digest:
                        raise _of_another_set(self.path, self.pictures)
                    sound = sound and line["by"] == self.by
                elif "undo" in line:
                    sound = sound and self.labels.pop(line["undo"], None) is not None
                else:
                    sound = sound and line["picture"] in known and line["label"] in allowed
                    self.labels[line["picture"]] = line["label"]
            except UserError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError):
                sound = False
            if not sound:
                raise UserError(
                    sentence(
                        f"The labels in {self.path} were edited: a line contradicts its digest.",
                        line=number,
                        do="Restore the file as it was written, or label again under another role.",
                    )
                )
            self.chain = chain


def labellers(pictures: PictureSet) -> tuple[LabelFile, ...]:
    """The files of all labellers in the set's folder, those with the most labels first. UserError for an edited one."""
    found = []
    for path in sorted(pictures.folder.glob("labels-*.jsonl")):
        try:
            by = json.loads(path.read_bytes().split(b"\n", 1)[0])["by"]
        except (OSError, ValueError, KeyError, TypeError):
            by = path.stem.removeprefix("labels-").replace("-", " ")
        file = LabelFile.open(pictures, str(by))
        if file.labels:
            found.append(file)
    return tuple(sorted(found, key=lambda file: -len(file.labels)))


def _next(chain: str, line: dict[str, Any]) -> str:
    return hashlib.sha256(f"{chain}{canonical_json(line)}".encode()).hexdigest()


def _of_another_set(path: Path, pictures: PictureSet) -> UserError:
    return UserError(
        sentence(
            f"The labels in {path} belong to other pictures than those in {pictures.folder}.",
            do="Label these, or put the file back beside the pictures that it was made for.",
        )
    )
