"""Parametrizes tests with cells: a test that uses a public fixture runs once for every cell of its task.

A test names its task with `@pytest.mark.resurgence(task="celebrity")`, on itself, its class or its module. The marker
may also restrict methods, counts and finetunings; the command line then chooses among those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.pytest_plugin import gate_groups
from resurgence_harness.pytest_plugin.options import task_named
from resurgence_harness.pytest_plugin.sight import MARKER, check_marker
from resurgence_harness.pytest_plugin.state import options_of

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.options import Options
    from resurgence_harness.specs import Cell
    from resurgence_harness.tasks import Task

CLAIMED = "claim"
"""The fixture whose tests need a verdict."""
MISTAKES = pytest.StashKey[list[str]]()
"""Mistakes in markers and options, found while collecting; they end the run when collection is over."""
_NOT_CHOSEN = "not-chosen"
_OUR_MODULES = ("resurgence_harness.pytest_plugin.fixtures", "fixtures.evidence")
FOUND: pytest.StashKey[list[Any]] = pytest.StashKey()
"""The cells that collection found, before anything was deselected."""
DESELECTED: pytest.StashKey[list[Any]] = pytest.StashKey()
"""Cells that options or plugins deselected through pytest's hook."""


def marked(node: Any) -> dict[str, Any]:
    """Merged keywords of a test's markers, the closest marker first; UserError for unknown keywords."""
    keywords: dict[str, Any] = {}
    for mark in node.iter_markers(MARKER):
        check_marker(node.nodeid, len(mark.args), mark.kwargs)
        keywords = {**mark.kwargs, **keywords}
    return keywords


def task_of(node: Any) -> Task:
    """The task of a test: that of its marker; without one, the only known task."""
    options = options_of(node.config)
    tasks, name = options.tasks, marked(node).get("task") or options.task or None
    if name is not None:
        return task_named(str(name), tasks)
    if len(tasks) == 1:
        only: Task = next(iter(tasks.values()))
        return only
    raise UserError(
        sentence(
            f"{node.nodeid} names no task.",
            known=", ".join(tasks),
            do='Mark it with @pytest.mark.resurgence(task="…").',
        )
    )


def parametrize(metafunc: pytest.Metafunc) -> None:
    """One test per chosen cell, named by the cell's id; a placeholder, deselected later, if no cell is chosen."""
    if not _takes_our_cell(metafunc):
        return
    node = metafunc.definition
    ids: list[str] = []
    try:
        ids = [cell.id for cell in _chosen(node, task_of(node), options_of(metafunc.config))]
    except UserError as error:
        metafunc.config.stash.setdefault(MISTAKES, []).append(str(error))
    parameters = [CellWord(word) for word in ids or [_NOT_CHOSEN]]
    metafunc.parametrize("cell", parameters, indirect=True, ids=[str(word) for word in parameters])


class CellWord(str):
    """A cell's id as a test's parameter; its own type, to distinguish it from parameters of other tests."""


def _takes_our_cell(metafunc: pytest.Metafunc) -> bool:
    """Whether the test's `cell` is our fixture: other suites may have their own fixture "cell"."""
    if "cell" not in metafunc.fixturenames:
        return False
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        if "cell" in (names.replace(",", " ").split() if isinstance(names, str) else names):
            return False
    if any("cell" in getattr(call, "params", ()) for call in getattr(metafunc, "_calls", ())):
        return False  # parametrized by another plugin or a conftest.py
    found: Any = getattr(metafunc, "_arg2fixturedefs", {}).get("cell")
    return bool(found) and found[-1].func.__module__ in _OUR_MODULES


def drop_not_chosen(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests without a cell that both their marker and the command line choose."""
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
    """The cell of a test that uses the fixture `cell`."""
    found = cell_of(item, options_of(item.config))
    if found is None:
        raise HarnessError(sentence(f"{item.nodeid} has no cell.", do="Run it through pytest's own collection."))
    return found


def is_cell(item: Any) -> bool:
    """Whether this test needs a verdict: it uses `claim`, directly or through another fixture."""
    if gate_groups.word_of(item) is not None:
        return True
    return CLAIMED in getattr(item, "fixturenames", ()) and _param(item) not in (None, _NOT_CHOSEN)


def is_ours(item: Any) -> bool:
    """Whether this test is a cell or has our marker."""
    return is_cell(item) or item.get_closest_marker(MARKER) is not None


class Collected(NamedTuple):
    """The cells to run after collection, as plain values that a worker can send."""

    cells: list[dict[str, Any]]
    """One entry for every test that needs a verdict, and for every group of a gate."""
    of: int
    """Number of suites' cells before anything was deselected."""


NOTHING = Collected([], 0)


def found(item: Any) -> None:
    """Record a collected test, before anything is deselected."""
    if is_cell(item):
        item.config.stash.setdefault(FOUND, []).append(item)


def deselected(items: Sequence[Any]) -> None:
    """Record tests that were deselected through pytest's hook."""
    for item in items:
        if is_cell(item):
            item.config.stash.setdefault(DESELECTED, []).append(item)


def collected(config: pytest.Config, left: Iterable[Any]) -> Collected:
    """The cells that need a verdict after collection; `left` are the tests that will run.

    A suite's cell may be deselected; one that disappeared without being deselected counts as missing. A group of a gate
    counts as missing in both cases.
    """
    left = [item for item in left if is_cell(item)]
    here = {id(item) for item in left}
    dropped = {id(item) for item in config.stash.get(DESELECTED, [])}
    every = {id(item): item for item in [*config.stash.get(FOUND, []), *left]}
    options, cells = options_of(config) if every else None, []
    suites: set[str] = set()
    for place, item in every.items():
        entry = _entry(item, options) if options is not None else None
        if entry is None:
            continue
        gate = bool(entry.get("gate"))
        if not gate:
            suites.add(entry["key"])
        if place in here:
            cells.append(entry)
        elif gate and place in dropped:
            cells.append({**entry, "gone": "it was deselected, but a gate's groups are chosen by its policy alone"})
        elif place not in dropped:
            cells.append({**entry, "gone": "it was collected, but a plugin or a conftest.py removed it"})
    return Collected(cells, len(suites))


def _entry(item: Any, options: Options) -> dict[str, Any] | None:
    """A collected cell as plain values; all tests of one cell have the same `key`."""
    if (group := gate_groups.planned(item)) is not None:
        return group
    cell = cell_of(item, options)
    if cell is None:
        return None
    where = f"{item.parent.nodeid}::{getattr(item, 'originalname', None) or item.name}"
    entry = {"key": f"{where} {cell.task}/{cell.id}", "nodeid": item.nodeid, "id": cell.id, "task": cell.task}
    return {**entry, "folder": str(item.path.parent), "method": cell.method, "concepts": cell.count}


def _chosen(node: Any, task: Task, options: Options) -> tuple[Cell, ...]:
    """The cells that the options choose, within the limits of the test's marker."""
    from resurgence_harness.selection import cells, narrowed

    keywords = marked(node)
    if keywords.get("recipes") is not None and not options.selection.lives:
        return _own_lives(node, keywords["recipes"], task, options)
    within = {
        name: tuple(keywords[name]) for name in ("methods", "counts", "finetunings") if keywords.get(name) is not None
    }
    selection = narrowed(options.selection, **within)
    return cells(task, selection) if selection is not None else ()


def _own_lives(node: Any, recipes: Any, task: Task, options: Options) -> tuple[Cell, ...]:
    """The cells of a marker's recipes, name → text, whose methods, fine-tunings and counts the options choose."""
    from resurgence_harness.presets.lives import parse_life
    from resurgence_harness.selection import cells

    if not isinstance(recipes, Mapping) or not recipes:
        do = 'Write recipes={"name": "uce(2) > lora > uce > lora"}.'
        raise UserError(sentence(f"The recipes of {node.nodeid} are no mapping of names to stages.", do=do))
    chosen = options.selection
    lives = []
    for name, text in recipes.items():
        life = parse_life(f"{name}: {text}")
        of = [{stage.name for stage in life.stages if stage.unlearning is kind} for kind in (True, False)]
        within = zip(of, (chosen.methods, chosen.finetunings), strict=True)
        if all(values is None or names <= set(values) for names, values in within):
            lives.append(life)
    if not lives:
        return ()
    own = replace(chosen, lives=tuple(lives), methods=None, finetunings=None, counts=None, steps=None)
    return tuple(cell for cell in cells(task, own) if chosen.counts is None or cell.count in chosen.counts)


def _param(item: Any) -> CellWord | None:
    callspec = getattr(item, "callspec", None)
    word = callspec.params.get("cell") if callspec is not None else None
    return word if isinstance(word, CellWord) else None
