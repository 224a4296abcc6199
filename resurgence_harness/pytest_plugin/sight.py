"""Finds tests with our marker and fixtures in the files on the command line, by parsing them without an import.

Under xdist the controller collects nothing, yet mistakes in options, base or store should end the run before any worker
starts, and results of an earlier run must be removed before anything can fail. A test that uses our fixtures only
through a fixture in another file is found later, at collection.

This runs in every pytest run of the environment, so no other file may make it fail: unreadable files are skipped, no
directory is entered twice, and only files that contain the marker's name are parsed.
"""

from __future__ import annotations

import ast
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import UserError, sentence

if TYPE_CHECKING:
    from resurgence_harness.tasks import Task

MARKER = "resurgence"
"""Name of the marker."""
_NAMED = re.compile(rb"(?<![\w-])resurgence(?![\w-])")
"""The marker's name as a separate word: not in resurgence_harness or --resurgence-base, which need no parsing."""
CELL_FIXTURES = frozenset({"cell", "unlearned_model", "fine_tuned_model", "evidence", "claim"})
"""Fixtures that make a test run once per cell."""
PUBLIC_FIXTURES = CELL_FIXTURES | {"base_model", "benign_images", "judge"}
"""Every fixture of the plugin."""
CLAIMING = frozenset({"claim", "evidence"})
"""Fixtures whose tests need a verdict."""
GATE = "resurgence_harness.gate"
"""The package from which `--pyargs` collects the release gate."""
_PASSED_BY = {"node_modules", "build", "dist", "venv", "__pycache__"}
_FILES_READ, _LARGEST, _FOLDERS = 2_000, 4_000_000, 20_000


class Suite(NamedTuple):
    """One file that uses our fixtures."""

    path: Path
    tasks: tuple[str, ...]
    """Tasks that its markers name."""
    claims: bool
    """Whether a test of it makes a claim."""
    markers: tuple[tuple[int, int, tuple[str, ...]], ...]
    """Line, number of positional arguments, and keywords of every marker."""


class Sight(NamedTuple):
    """Result of parsing the test files on the command line."""

    suites: tuple[Suite, ...] = ()
    gate: bool = False
    """Whether a release gate is requested, by a policy on the command line or by the name of its suite."""

    @property
    def claims(self) -> bool:
        """Whether some test makes a claim."""
        return self.gate or any(suite.claims for suite in self.suites)

    @property
    def uses(self) -> bool:
        """Whether any of our fixtures is used."""
        return bool(self.suites)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the files that use our fixtures."""
        return tuple(dict.fromkeys(suite.path.parent for suite in self.suites))

    def tasks(self, known: Mapping[str, Task], *, otherwise: str = "") -> tuple[str, ...]:
        """The tasks that the markers name, else `otherwise`, in the order of `known`; UserError for an unknown one."""
        from resurgence_harness.pytest_plugin.options import task_named

        named: set[str] = set()
        for suite in self.suites:
            for line, positional, keywords in suite.markers:
                check_marker(f"{suite.path}:{line}", positional, keywords)
            names = suite.tasks or ((otherwise,) if otherwise else ())
            found = {task_named(name, known).name for name in names}
            named |= found or (set(known) if len(known) == 1 else set())
        return tuple(name for name in known if name in named)


def check_marker(where: str, positional: int, keywords: Iterable[str]) -> None:
    """UserError for arguments that the marker does not have."""
    unknown = sorted(set(keywords) - {"task", "methods", "counts", "finetunings", "recipes"})
    if unknown or positional:
        raise UserError(
            sentence(
                f"The resurgence marker has no argument {', '.join(unknown)}."
                if unknown
                else "The resurgence marker takes no positional arguments.",
                where=where,
                do='Write @pytest.mark.resurgence(task="…", methods=[…], counts=[…], finetunings=[…], recipes={…}).',
            )
        )


def look(arguments: Sequence[str], here: Path, *, policy: bool) -> Sight:
    """Read the test files that the arguments name; `policy`: whether a gate's policy is given."""
    gate = policy or any(_is_gate(argument.split("::", 1)[0]) for argument in arguments)
    suites = (_suite(path) for path in _test_files(arguments, here))
    return Sight(tuple(suite for suite in suites if suite is not None), gate)


def _is_gate(argument: str) -> bool:
    if argument in (GATE, f"{GATE}.test_gate"):
        return True
    parts = Path(argument).parts
    return parts[-2:] == ("resurgence_harness", "gate") or parts[-3:] == ("resurgence_harness", "gate", "test_gate.py")


def _suite(path: Path) -> Suite | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) or os.path.getsize(path) > _LARGEST:
            return None
        content = path.read_bytes()
    except (OSError, ValueError):
        return None
    if _NAMED.search(content) is None:
        return None
    tree = _parsed(content)
    markers = list(_markers(tree))
    used = _fixtures_used(tree) if _has_marker(tree) else set()
    if not used:
        return None
    tasks, written = [], []
    for line, positional, keywords in markers:
        written.append((line, positional, tuple(keywords)))
        task = keywords.get("task")
        if isinstance(task, ast.Constant):
            tasks.append(str(task.value))
    return Suite(path, tuple(tasks), bool(used & CLAIMING), tuple(written))


def _test_files(arguments: Sequence[str], here: Path) -> Iterator[Path]:
    """Python files that the arguments name, and conftest.py and test files below the folders that they name."""
    count, entered = 0, set[tuple[int, int]]()
    for argument in arguments:
        try:
            path = Path(here, argument.split("::", 1)[0])
            files = _below(path, entered) if path.is_dir() else iter([path] if path.suffix == ".py" else [])
        except (OSError, ValueError):
            continue
        for file in files:
            yield file
            count += 1
            if count >= _FILES_READ:
                return


def _below(top: Path, entered: set[tuple[int, int]]) -> Iterator[Path]:
    waiting = [str(top)]
    while waiting and len(entered) < _FOLDERS:
        folder = waiting.pop()
        try:
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in entered:
                continue  # a symbolic link to a folder above
            entered.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
            folders = {entry.name for entry in inside if entry.is_dir()}
        except OSError:
            continue
        waiting += [
            entry.path
            for entry in inside
            if entry.name in folders and not entry.name.startswith(".") and entry.name not in _PASSED_BY
        ]
        for entry in reversed(inside):
            name = entry.name
            ours = name.startswith("test_") or name.endswith(("_test.py", "conftest.py"))
            if name.endswith(".py") and ours and name not in folders:
                yield Path(entry.path)


def _parsed(content: bytes) -> ast.Module:
    """The syntax tree; an empty one if the source is invalid, which pytest reports when it collects."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pytest reports them when it imports the file
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def _has_marker(tree: ast.Module) -> bool:
    """Whether the source uses our marker; the names of our fixtures alone are too common."""
    return any(isinstance(node, ast.Attribute) and node.attr == MARKER for node in ast.walk(tree))


def _markers(tree: ast.Module) -> Iterator[tuple[int, int, dict[str, ast.expr]]]:
    """Line, number of positional arguments, and keywords of every use of our marker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARKER:
            keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
            yield node.lineno, len(node.args), keywords


def _fixtures_used(tree: ast.Module) -> set[str]:
    """Those of our fixtures that a test or a fixture in this source takes as an argument."""
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.name.startswith("test") or any("fixture" in ast.unparse(deco) for deco in node.decorator_list))
        for name in PUBLIC_FIXTURES & set(_arguments(node.args))
    }


def _arguments(arguments: ast.arguments) -> Iterable[str]:
    return (argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])
