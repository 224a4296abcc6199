"""Which tests are cells: tests that use a public fixture run once for every cell of their task.

A test names its task with `@pytest.mark.resurgence(task="celebrity")`, on itself, its class or its module. The marker
may also say which methods, counts and finetunings the test is about; the command line then chooses among those.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.pytest_plugin import gating
from resurgence_harness.pytest_plugin.options import Options, task_named
from resurgence_harness.pytest_plugin.state import OPTIONS
from resurgence_harness.selection import cells, narrowed
from resurgence_harness.specs import Cell
from resurgence_harness.tasks import Task

MARKER = "resurgence"
"""The marker's word."""
CELL_FIXTURES = frozenset({"cell", "unlearned_model", "fine_tuned_model", "evidence", "claim"})
"""Fixtures that make a test run once per cell."""
PUBLIC_FIXTURES = CELL_FIXTURES | {"base_model", "benign_images", "judge"}
"""Every fixture of the plugin."""
CLAIMED = "claim"
"""The fixture whose tests owe a verdict."""
MISTAKES = pytest.StashKey[list[str]]()
"""What is wrong with markers and options, found while collecting; it ends the run when collection is over."""
_NOT_CHOSEN = "not-chosen"
_OUR_MODULES = ("resurgence_harness.pytest_plugin.fixtures", "fixtures.evidence")
_PASSED_BY = {"node_modules", "build", "dist", "venv", "__pycache__"}
_FILES_READ = 2_000


def marked(node: Any) -> dict[str, Any]:
    """What the markers of a test say, the closest first; UserError for words they do not have."""
    said: dict[str, Any] = {}
    for mark in node.iter_markers(MARKER):
        _check_marker(node.nodeid, len(mark.args), mark.kwargs)
        said = {**mark.kwargs, **said}
    return said


def _check_marker(where: str, positional: int, words: Iterable[str]) -> None:
    unknown = sorted(set(words) - {"task", "methods", "counts", "finetunings"})
    if unknown or positional:
        raise UserError(
            sentence(
                f"The resurgence marker does not know {', '.join(unknown) or 'words without a name'}.",
                where=where,
                do='Write @pytest.mark.resurgence(task="…", methods=[…], counts=[…], finetunings=[…]).',
            )
        )


def task_of(node: Any) -> Task:
    """The task that a test is about: its marker's; without one, the only task there is."""
    tasks = node.config.stash[OPTIONS].tasks
    name = marked(node).get("task")
    if name is not None:
        return task_named(str(name), tasks)
    if len(tasks) == 1:
        only: Task = next(iter(tasks.values()))
        return only
    raise UserError(
        sentence(
            f"{node.nodeid} does not say which task it is about.",
            known=", ".join(tasks),
            do='Mark it with @pytest.mark.resurgence(task="…").',
        )
    )


def parametrize(metafunc: pytest.Metafunc, options: Options) -> None:
    """One test per chosen cell, named by the cell's id; one that will be deselected where none is chosen."""
    if not _takes_our_cell(metafunc):
        return
    node = metafunc.definition
    ids: list[str] = []
    try:
        ids = [cell.id for cell in _chosen(node, task_of(node), options)]
    except UserError as error:
        metafunc.config.stash.setdefault(MISTAKES, []).append(str(error))
    words = [CellWord(word) for word in ids or [_NOT_CHOSEN]]
    metafunc.parametrize("cell", words, indirect=True, ids=[str(word) for word in words])


class CellWord(str):
    """A cell's id as a test's parameter: text, and told from the parameters of other people's tests."""


def _takes_our_cell(metafunc: pytest.Metafunc) -> bool:
    """Whether the test's `cell` is our fixture: "cell" is a common word, and other suites have their own."""
    if "cell" not in metafunc.fixturenames:
        return False
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        if "cell" in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return False
    found: Any = getattr(metafunc, "_arg2fixturedefs", {}).get("cell")
    return bool(found) and found[-1].func.__module__ in _OUR_MODULES


def drop_not_chosen(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose marker and the command line have no cell in common."""
    dropped = [item for item in items if _param(item) == _NOT_CHOSEN]
    if dropped:
        items[:] = [item for item in items if _param(item) != _NOT_CHOSEN]
        config.hook.pytest_deselected(items=dropped)


def cell_of(item: Any, options: Options) -> Cell | None:
    """The cell of a collected test, if it has one."""
    word = _param(item)
    if word is None or word == _NOT_CHOSEN:
        return None
    return next((cell for cell in _chosen(item, task_of(item), options) if cell.id == word), None)


def required_cell_of(item: Any) -> Cell:
    """The cell of a test that takes one."""
    found = cell_of(item, item.config.stash[OPTIONS])
    if found is None:
        raise HarnessError(sentence(f"{item.nodeid} has no cell.", do="Run it through pytest's own collection."))
    return found


def is_cell(item: Any) -> bool:
    """Whether this test owes a verdict: one that uses `claim`, itself or through another fixture."""
    if gating.word_of(item) is not None:
        return True
    return CLAIMED in getattr(item, "fixturenames", ()) and _param(item) not in (None, _NOT_CHOSEN)


def planned(items: Iterable[Any], options: Options) -> list[dict[str, Any]]:
    """The collected cells, as plain values that a worker can send."""
    found = []
    for item in items:
        if (group := gating.planned(item)) is not None:
            found.append(group)
        cell = cell_of(item, options) if is_cell(item) else None
        if cell is not None:
            words = {"nodeid": item.nodeid, "id": cell.id, "task": cell.task, "folder": str(item.path.parent)}
            found.append({**words, "method": cell.method, "concepts": cell.count})
    return found


class Sight(NamedTuple):
    """What the test files on the command line seem to hold."""

    tasks: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    """Folders of the files that use our fixtures."""
    claims: bool = False
    """Whether some test makes a claim."""

    @property
    def uses(self) -> bool:
        """Whether any of our fixtures is used."""
        return bool(self.folders)


def look(config: pytest.Config, tasks: Mapping[str, Task]) -> Sight:
    """Read the test files, without importing them.

    Under xdist the controller collects nothing, and yet mistakes in options, base or store should end the run before
    any worker starts. A test that hides behind a fixture elsewhere is found later, at collection.
    """
    named: set[str] = set()
    folders: dict[Path, None] = {}
    claims = False
    for path in _test_files(config):
        text = path.read_text(encoding="utf-8", errors="replace")
        if not any(word in text for word in PUBLIC_FIXTURES):
            continue
        tree = _parsed(text)
        used = _fixtures_used(tree) if _has_marker(tree) else set()
        if used:
            folders[path.parent] = None
            claims |= bool(used & {CLAIMED, "evidence"})
            named |= _tasks_named(tree, path, tasks) or (set(tasks) if len(tasks) == 1 else set())
    return Sight(tuple(name for name in tasks if name in named), tuple(folders), claims)


def _chosen(node: Any, task: Task, options: Options) -> tuple[Cell, ...]:
    """The cells that the options choose, within what the test's marker says."""
    said = marked(node)
    within = {name: tuple(said[name]) for name in ("methods", "counts", "finetunings") if said.get(name) is not None}
    selection = narrowed(options.selection, **within)
    return cells(task, selection) if selection is not None else ()


def _param(item: Any) -> CellWord | None:
    callspec = getattr(item, "callspec", None)
    word = callspec.params.get("cell") if callspec is not None else None
    return word if isinstance(word, CellWord) else None


def _test_files(config: pytest.Config) -> Iterator[Path]:
    """Python files that the arguments name, and conftest.py and test files below the folders that they name."""
    count = 0
    for argument in config.args:
        path = Path(config.invocation_params.dir, argument.split("::", 1)[0])
        for file in _below(path) if path.is_dir() else [path] if path.suffix == ".py" and path.is_file() else []:
            yield file
            count += 1
            if count >= _FILES_READ:
                return


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(".") and path.name not in _PASSED_BY:
            yield from _below(path)
        elif path.suffix == ".py" and (path.stem.startswith("test_") or path.stem.endswith(("_test", "conftest"))):
            yield path


def _parsed(text: str) -> ast.Module:
    """The source as a tree; an empty one where it cannot be read, for pytest will say so when it collects."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _has_marker(tree: ast.Module) -> bool:
    """Whether the source marks anything as ours; the names of our fixtures alone are common words."""
    return any(isinstance(node, ast.Attribute) and node.attr == MARKER for node in ast.walk(tree))


def _tasks_named(tree: ast.Module, path: Path, tasks: Mapping[str, Task]) -> set[str]:
    """Tasks that markers in this source name; UserError for one that there is not."""
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == MARKER:
            words = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
            _check_marker(f"{path}:{node.lineno}", len(node.args), words)
            task = words.get("task")
            if isinstance(task, ast.Constant):
                named.add(task_named(str(task.value), tasks).name)
    return named


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
