"""The commands that a settings file declares as fine-tunings and unlearnings (docs/trainers.md).

finetunings:
  mine:
    command: [accelerate, launch, train.py, --model, "{model}", --data, "{data}", --out, "{out}"]
    files: [train.py]                   # their sha256 is in the key; copied into the folder in which the command runs
    timeout: 7200                       # seconds
    environment: [WANDB_MODE]           # further variables that it gets
unlearnings:
  ours:
    command: ["{python}", erase.py, "{model}", "{concepts}", "{out}"]
    files: [erase.py]
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from resurgence_harness.diffusion.commands import CONCEPTS, DATA, MODEL, OUT, PYTHON, SEED, Command, places_in
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.finetuning.command import finetuning_of
from resurgence_harness.presets.methods import Method
from resurgence_harness.process.commands import holds_secret, is_secret
from resurgence_harness.registry import Origin, registered_by_settings
from resurgence_harness.unlearning.command import unlearning_of

SECTIONS: Mapping[str, tuple[str, str]] = {"finetunings": ("finetuning", DATA), "unlearnings": ("unlearning", CONCEPTS)}
"""Section of the file → (kind in the registry, what its commands are given besides the model)."""
MINUTES = 30
"""`Method.minutes` of a command: started before the built-in methods."""
LONGEST = 30 * 24 * 3600
"""Largest time limit, in seconds."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_ENTRIES = ("command", "files", "timeout", "environment")
_SKIPPED = ("__pycache__", ".git")


class Declared(NamedTuple):
    """One declared command."""

    kind: str
    """finetuning or unlearning."""
    name: str
    command: Command


def read_commands(section: str, content: object, folder: Path) -> Iterator[Declared]:
    """The commands of a section; UserError for the first that is not usable. Paths are relative to `folder`."""
    kind, needed = SECTIONS[section]
    if not isinstance(content, dict) or not content:
        raise _wrong(section, content, "names, each with a command below it")
    for name, entry in content.items():
        place = f"{section}.{name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _wrong(section, name, "a name of lower-case letters, digits, hyphens and underscores, a letter first")
        if not isinstance(entry, dict) or "command" not in entry:
            raise _wrong(place, entry, "command: [program, argument, …]")
        for other in entry:
            if other not in _ENTRIES:
                raise _wrong(f"{place}.{other}", entry[other], f"one of {', '.join(_ENTRIES)}")
        words = _texts(f"{place}.command", entry["command"])
        _check_words(f"{place}.command", words, {MODEL, OUT, needed})
        yield Declared(
            kind,
            name,
            Command(
                words=words,
                files=tuple(_files(f"{place}.files", _texts(f"{place}.files", entry.get("files", [])), folder)),
                folder=str(folder),
                timeout=_timeout(f"{place}.timeout", entry.get("timeout", 3600)),
                variables=_variables(f"{place}.environment", entry.get("environment", [])),
            ),
        )


def register_commands(declared: tuple[Declared, ...], file: str, digest: str) -> None:
    """Register the commands of a settings file, in place of those of an earlier call; UserError for a taken name."""
    origin = Origin(kind="settings", name=file)
    registered_by_settings([(one.kind, _object(one)) for one in declared], origin=origin, source=digest)


def _object(one: Declared) -> Any:
    if one.kind == "finetuning":
        return finetuning_of(one.name, one.command)
    return Method(unlearning_of(one.name, one.command), {}, MINUTES)


def _texts(place: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
        raise _wrong(place, value, "a list in square brackets")
    return tuple(str(one) for one in value)


def _check_words(place: str, words: tuple[str, ...], needed: set[str]) -> None:
    if not words or not words[0].strip():
        raise _wrong(place, list(words), "a program and its arguments")
    if any("\0" in word for word in words):
        raise _wrong(place, list(words), "words without a null character")
    found, known = places_in(words), {*needed, PYTHON, SEED}
    if unknown := sorted(found - known):
        raise _wrong(place, f"{{{unknown[0]}}}", f"one of {', '.join(f'{{{word}}}' for word in sorted(known))}")
    if missing := sorted(needed - found):
        raise _wrong(place, " ".join(words), f"a command that is given {', '.join(f'{{{word}}}' for word in missing)}")
    if any(holds_secret(word) for word in words):
        raise UserError(
            sentence(
                f"{place} holds what looks like a secret.",
                do="Let the program read it from a file of its own: a command is recorded with the results.",
            )
        )


def _files(place: str, names: tuple[str, ...], folder: Path) -> Iterator[tuple[str, str]]:
    """(path, sha256) of every declared file, and of every file in a declared folder."""
    for name in names:
        inner = PurePosixPath(name)
        if not name or inner.is_absolute() or ".." in inner.parts or "\\" in name:
            raise _wrong(place, name, "a path inside the folder of the settings file")
        path = folder / inner
        inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        inside = [one for one in inside if not set(_SKIPPED) & set(one.relative_to(folder).parts)]
        if not inside:
            raise _wrong(place, name, "a folder with files")
        for one in inside:
            try:
                if folder.resolve() not in one.resolve().parents:
                    raise _wrong(place, name, "a file inside the folder of the settings file, links followed")
                yield one.relative_to(folder).as_posix(), hashlib.sha256(one.read_bytes()).hexdigest()
            except OSError as problem:
                raise UserError(
                    sentence(
                        f"{place} names a file that cannot be read.",
                        file=shown(name),
                        reason=problem.strerror,
                        do="Write its path relative to the settings file.",
                    )
                ) from None


def _timeout(place: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise _wrong(place, value, f"seconds, above 0 and at most {LONGEST:,}")
    return float(value)


def _variables(place: str, value: object) -> tuple[str, ...]:
    names = _texts(place, value)
    for name in names:
        if is_secret(name):
            raise _wrong(place, name, "a name that is not a secret's: commands get no tokens, keys or passwords")
    return names


def _wrong(place: str, value: object, wanted: str) -> UserError:
    return UserError(sentence(f"{place} is {shown(repr(value))}.", wanted=wanted, do="See docs/trainers.md."))
