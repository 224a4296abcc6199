"""Where a registered object comes from, and the digest of the source that defines it.

A step or judge of another package can change without a new `version`, so its package, version and source digest are in
the keys of what is built with it (`in_key`). Classes of this package have none of these in their keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import resurgence_harness
from resurgence_harness.errors import UserError, sentence

GROUPS = ("resurgence.unlearnings", "resurgence.finetunings", "resurgence.judges", "resurgence.tasks")
"""The groups of entry points."""
OWN = "resurgence_harness"
DIGITS = 12
"""Hexadecimal digits of a source digest in messages."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a registered object comes from."""

    kind: Literal["built-in", "package", "conftest", "plugin", "settings"]
    """`plugin`: a module of the user that pytest loads by `-p`, and that belongs to no installed package; `settings`: a
    command of a settings file."""
    name: str
    """The package's name, the path of the conftest.py, the plugin's name, or the settings file's."""
    version: str = ""
    """The package's version; empty for a conftest.py."""

    @classmethod
    def of_package(cls, name: str, version: str) -> Origin:
        """An installed package."""
        return cls(kind="package", name=name, version=version)

    @classmethod
    def of_conftest(cls, path: str) -> Origin:
        """A suite's conftest.py."""
        return cls(kind="conftest", name=path)

    @property
    def of_suite(self) -> bool:
        """Whether the user's own files registered it, so that it may replace another object of its name."""
        return self.kind in ("conftest", "plugin")

    def __str__(self) -> str:
        """ "built in", "acme-erasure 1.2", "suites/night/conftest.py"."""
        return "built in" if self.kind == "built-in" else f"{self.name} {self.version}".strip()


BUILT_IN = Origin(kind="built-in", name="resurgence-harness", version=resurgence_harness.__version__)


def in_key(kind: type) -> dict[str, str] | None:
    """What keys contain about the origin of a class: package, version and source digest; None for this package's.

    A class of a conftest.py has an empty package and version, since its path differs between machines. None as well for
    a class that nobody registered and whose package registers nothing.
    """
    top = kind.__module__.partition(".")[0]
    if top == OWN:
        return None
    if kind in CLASSES:
        return CLASSES[kind]
    package = _packages().get(top)
    return None if package is None else _fields(package, source_of_modules((kind.__module__,)))


CLASSES: dict[type, dict[str, str]] = {}
"""Classes that were registered → what keys contain about their origin."""


def note_class(kind: type, origin: Origin, source: str) -> None:
    """Remember where a class comes from; a package's class keeps its package if a conftest.py registers it again."""
    if kind.__module__.partition(".")[0] != OWN:
        CLASSES.setdefault(kind, _fields(origin, source))


def _fields(origin: Origin, source: str) -> dict[str, str]:
    package = origin.name if origin.kind == "package" else ""
    return {"package": package, "version": origin.version, "source": source}


def entry_points_of(group: str) -> list[EntryPoint]:
    """The entry points of a group, sorted by name and package, each once."""
    found = {(one.name, package_of(one).name, one.value): one for one in _found(group)}
    return [found[place] for place in sorted(found)]


def package_of(point: EntryPoint) -> Origin:
    """The package that declares an entry point."""
    if point.dist is None:
        return Origin.of_package("unknown package", "")
    return Origin.of_package(point.dist.name, point.dist.version)


@cache
def _found(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


@cache
def _packages() -> dict[str, Origin]:
    """Top-level modules that entry points name → their package. Nothing is imported."""
    return {point.module.partition(".")[0]: package_of(point) for group in GROUPS for point in entry_points_of(group)}


@cache
def source_of_modules(modules: tuple[str, ...]) -> str:
    """sha256 over every file of the packages that these modules belong to, compiled Python files left out.

    UserError if the files cannot be read, as in a zip archive.
    """
    roots = sorted({root for module in modules if (root := _root(module)) is not None})
    if not roots:
        raise UserError(
            sentence(
                f"The source files of {modules[0]} are not found, so its results can have no key.",
                do="Install the package into a folder, not as an archive.",
            )
        )
    return _digest((f"{root.name}/{file.relative_to(root)}", file) for root in roots for file in _files(root))


def source_of_class(kind: type | None, otherwise: Path) -> str:
    """sha256 over the files that define a class and those of its base classes that are not this package's.

    `otherwise`: the file to take for objects whose class is this package's, such as a task.
    """
    bases = kind.__mro__ if kind is not None else ()
    outside = [one for one in bases if one.__module__.partition(".")[0] not in (OWN, "builtins", "abc", "typing")]
    files = {file for one in outside for file in _defining(one)}
    return _digest((file.name, file) for file in sorted(files or {otherwise}))


def _defining(kind: type) -> Iterator[Path]:
    """Files in which functions of the class are written; a module's `__file__` is not used, since the name of a
    conftest.py's module can belong to another one."""
    members: Iterable[Any] = vars(kind).values()
    for member in members:
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        code = getattr(function, "__code__", None)
        if code is not None and (file := Path(code.co_filename)).is_file():
            yield file


def _digest(named: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, file in named:
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as problem:
            raise UserError(
                sentence(f"The source file {file} cannot be read.", reason=problem.strerror, do="Make it readable.")
            ) from None
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return sorted(
        file
        for file in root.rglob("*")
        if file.is_file() and file.suffix not in (".pyc", ".pyo") and "__pycache__" not in file.parts
    )


def _root(module: str) -> Path | None:
    """The folder of the outermost regular package of a module, or the module's file; None if there is none."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        found = _spec(".".join(parts[:count]))
        if found is None or found.origin is None:
            continue  # a namespace package: its parts may belong to other distributions
        file = Path(found.origin)
        if not file.is_file():
            return None
        return file.parent if found.submodule_search_locations else file
    return None


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except (ImportError, ValueError):
        return None
