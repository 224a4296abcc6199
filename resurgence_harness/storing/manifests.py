"""Manifests: the description of an artifact and the sha256 of its files; written last, checked at every read.

Each contains a checksum of itself ("seal"), which detects damage, and with RESURGENCE_STORE_KEY a keyed seal, which
detects deliberate changes (see sealing.py). The checksum covers the keyed seal, and not the other way round.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import resurgence_harness
from resurgence_harness.errors import BuildError, Corrupt, UserError, sentence
from resurgence_harness.storing.artifacts import Artifact, StoredFile
from resurgence_harness.storing.remote import MANIFEST
from resurgence_harness.storing.sealing import seal_of, sealed

FORMAT = 1
"""Version of the manifest's layout; increased when an older package could misread a newer one."""
PURPOSE = "store entry"
"""The `purpose` of a manifest's keyed seal."""


def described(folder: Path, *, label: str) -> dict[str, StoredFile]:
    """Sync and hash the files that a build wrote; BuildError if there are none, or one that cannot be stored."""
    files: dict[str, StoredFile] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(MANIFEST):
            raise BuildError(sentence(f"The build of {label} wrote {path.name}, which cannot be stored."))
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
            files[path.name] = StoredFile(
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(), size=path.stat().st_size
            )
    if not files:
        raise BuildError(sentence(f"The build of {label} wrote no file."))
    return files


def _digest(files: Mapping[str, StoredFile]) -> str:
    listing = [[name, files[name].sha256] for name in sorted(files)]
    return hashlib.sha256(json.dumps(listing, separators=(",", ":")).encode()).hexdigest()


def manifest_bytes(
    *,
    key: str,
    kind: str,
    label: str,
    inputs: Mapping[str, str],
    facts: Mapping[str, Any],
    files: Mapping[str, StoredFile],
    seconds: float,
    run: str = "",
) -> bytes:
    """The bytes of an artifact's manifest; BuildError for facts that are not JSON."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "kind": kind,
        "words": label,
        "digest": _digest(files),
        "files": {name: {"sha256": file.sha256, "size": file.size} for name, file in files.items()},
        "inputs": dict(inputs),
        "facts": dict(facts),
        "seconds": round(seconds, 3),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": resurgence_harness.__version__,
    }
    if run:
        content["run"] = run
    try:
        content = json.loads(json.dumps(content, allow_nan=False))  # seal the values exactly as they are read back
        return _written(sealed(content, purpose=PURPOSE))
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise BuildError(sentence(f"The facts about {label} cannot be written as JSON.", reason=error)) from error


def sealed_again(text: bytes) -> bytes:
    """A manifest, resealed with the environment's key and otherwise unchanged. `text` must be valid (`parsed`)."""
    content: dict[str, Any] = json.loads(text)
    del content["seal"]
    return _written(sealed(content, purpose=PURPOSE))


def _written(content: Mapping[str, Any]) -> bytes:
    complete = {**content, "seal": _checksum(content)}
    return (json.dumps(complete, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _checksum(content: Mapping[str, Any]) -> str:
    """sha256 of the manifest's content: it protects the facts used by verdicts like the files."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def parsed(text: bytes, *, key: str, folder: Path, used: float) -> Artifact:
    """Parse a manifest; ValueError, KeyError, TypeError, AttributeError or RecursionError if it is not valid."""
    content: dict[str, Any] = json.loads(text)
    checksum = content.pop("seal")
    if type(content["format"]) is int and content["format"] > FORMAT and checksum == _checksum(content):
        raise UserError(  # not Corrupt: it would be built again, and replaced, by every older version in turn
            sentence(
                "The store has an artifact that a newer version of resurgence-harness wrote.",
                key=key,
                format=f"{content['format']}; this version reads {FORMAT}",
                do="Upgrade resurgence-harness on this machine, or choose another store.",
            )
        )
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, and this version reads {FORMAT}")
    if checksum != _checksum(content):
        raise ValueError("its content does not match its seal")
    if content["key"] != key:
        raise ValueError(f"it belongs to {content['key']}")
    files = {_plain(name): _file(**file) for name, file in content["files"].items()}
    if not files or content["digest"] != _digest(files):
        raise ValueError("its digest is not that of its files")
    made = datetime.fromisoformat(content["made"])
    if made.tzinfo is None:
        raise ValueError('its time "made" has no time zone')
    return Artifact(
        key=key,
        kind=str(content["kind"]),
        label=str(content["words"]),
        digest=content["digest"],
        path=folder,
        files=files,
        inputs=content["inputs"],
        facts=content["facts"],
        seconds=_finite(content["seconds"]),
        made=made,
        used=_moment(used),
        seal=seal_of(content, purpose=PURPOSE),
        run=str(content.get("run", "")),
    )


def _plain(name: str) -> str:
    """A file's name; ValueError for a path, since a remote manifest decides which local files are written."""
    if name != Path(name).name or name in ("", ".", "..") or "\\" in name or name.startswith(MANIFEST):
        raise ValueError(f"it names the file {name!r}")
    return name


def _file(*, sha256: str, size: int) -> StoredFile:
    if type(size) is not int or type(sha256) is not str:
        raise TypeError("the size or the sha256 of a file is of another type")
    return StoredFile(sha256=sha256, size=size)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"it took {value} seconds")
    return float(value)


def _moment(seconds: float) -> datetime:
    """A file's time; the current time if it is out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.now(UTC)


def verify_size(artifact: Artifact, name: str, expected: StoredFile) -> None:
    """Corrupt if a file is missing or its size differs from the manifest's."""
    path = artifact.path / name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _corrupt(artifact, name, f"the file cannot be read: {error.strerror}") from error
    if size != expected.size:
        raise _corrupt(artifact, name, f"{size} bytes instead of {expected.size}")


def verify(artifact: Artifact, name: str, expected: StoredFile) -> None:
    """Corrupt if a file's sha256 differs from the manifest's."""
    verify_size(artifact, name, expected)
    try:
        with (artifact.path / name).open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _corrupt(artifact, name, f"the file cannot be read: {error.strerror}") from error
    if sha256 != expected.sha256:
        raise _corrupt(artifact, name, f"sha256 {sha256[:12]}… instead of {expected.sha256[:12]}…")


def content_of(artifact: Artifact, name: str) -> bytes:
    """A file's bytes, verified after reading, so that replacing the file after a check has no effect.

    Corrupt if they differ from the bytes that were written.
    """
    expected = artifact.files.get(name)
    if expected is None:
        raise _corrupt(artifact, name, "the manifest does not name it")
    try:
        content = (artifact.path / name).read_bytes()
    except OSError as error:
        raise _corrupt(artifact, name, f"the file cannot be read: {error.strerror}") from error
    if (sha256 := hashlib.sha256(content).hexdigest()) != expected.sha256:
        raise _corrupt(artifact, name, f"sha256 {sha256[:12]}… instead of {expected.sha256[:12]}…")
    return content


def _corrupt(artifact: Artifact, name: str, reason: str) -> Corrupt:
    return Corrupt(
        sentence(
            f"{name} of {artifact.kind} {artifact.key[:12]} ({artifact.label}) is not the file that was written.",
            file=artifact.path / name,
            reason=reason,
            key=artifact.key,
            do="The next build that needs it builds it again.",
        )
    )
