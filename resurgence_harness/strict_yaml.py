"""YAML that people write, read in one place: a document of a file, or a value on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence

# PyYAML is imported where something is read: the plugin is loaded by every pytest run of its environment.


def read_file(content: bytes, path: Path) -> Any:
    """The document of a file, as plain values; UserError with the place of a mistake."""
    import yaml

    try:
        return yaml.safe_load(content.decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UserError(
            sentence(f"{path} is not YAML.", problem=" ".join(str(problem).split()), do="Correct it there.")
        ) from None


def read_flow(text: str, *, what: str) -> Any:
    """A value written on one line: a word, a number, [a list] or {a: mapping}."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise UserError(
            sentence(
                f"{what} cannot be read.",
                value=text,
                problem=" ".join(str(problem).split()),
                do="Write a word, a number, [a list] or {kind: word, name: value}.",
            )
        ) from None
