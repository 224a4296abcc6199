"""Arguments of the library's functions, as the options that the command line has."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.statistics import Policy

Names = str | Path | Iterable[str] | None
"""A file with one concept per line, or the names themselves."""


@contextmanager
def as_files(**given: Names) -> Iterator[dict[str, Path | None]]:
    """Each argument as a file with one name per line; lists are written into a temporary folder.

    UserError for a list that is empty, or a name that is not one line of text.
    """
    with tempfile.TemporaryDirectory(prefix="resurgence-") as folder:
        yield {name: _file(name, value, Path(folder)) for name, value in given.items()}


def _file(name: str, given: Names, folder: Path) -> Path | None:
    if given is None or isinstance(given, str | Path):
        return None if given is None else Path(given)
    names = list(given)
    wrong = [one for one in names if not isinstance(one, str) or not one.strip() or len(one.splitlines()) != 1]
    if not names or wrong:
        first = f"{name} has no names." if not names else f"{name} contains {shown(repr(wrong[0]))}, which is no name."
        raise UserError(sentence(first, do="Give names, or the path of a file with one name per line."))
    file = folder / f"{name}.txt"
    file.write_text("\n".join(names) + "\n", encoding="utf-8")
    return file


@contextmanager
def as_limits(limits: str | Path | Policy | None) -> Iterator[Path | None]:
    """A limits file; a `Policy` is written into a temporary one, for all cells."""
    if not isinstance(limits, Policy):
        yield None if limits is None else Path(limits)
        return
    values = {one.name: value for one in fields(limits) if (value := getattr(limits, one.name)) is not None}
    with tempfile.TemporaryDirectory(prefix="resurgence-") as folder:
        file = Path(folder) / "limits.yaml"
        file.write_text(json.dumps({"policy": values}), encoding="utf-8")  # JSON is YAML
        yield file


def models_listed(given: str | Path | Sequence[str | Path]) -> list[str]:
    """One model or several, as text."""
    return [str(given)] if isinstance(given, str | Path) else [str(one) for one in given]


def joined(given: object) -> str | None:
    """Comma-separated: "uce,esd" of ("uce", "esd"); a single value as text; None for None."""
    if given is None:
        return None
    return ",".join(map(str, given)) if isinstance(given, Iterable) and not isinstance(given, str) else str(given)


def options(**values: Any) -> list[str]:
    """--resurgence-NAME=VALUE for every value that is given; a flag for True, one option per item of a mapping."""
    found: list[str] = []
    for name, value in values.items():
        option = f"--resurgence-{name.rstrip('_').replace('_', '-')}"
        if isinstance(value, Mapping):
            found += [f"{option}={key}={item}" for key, item in value.items()]
        elif value is True:
            found.append(option)
        elif value is not None and value is not False:
            found.append(f"{option}={joined(value)}")
    return found
