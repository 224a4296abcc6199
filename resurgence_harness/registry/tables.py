"""The tables of the registry: name → object, with the origin of each entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.registry import origins
from resurgence_harness.registry.origins import DIGITS, Origin

T = TypeVar("T")


class Kind(NamedTuple):
    """One kind of registered objects."""

    one: str
    many: str
    group: str
    """The group of its entry points."""
    hook: str
    """The hook of a conftest.py that returns such objects."""


KINDS: Mapping[str, Kind] = {
    "unlearning": Kind("unlearning method", "unlearning methods", origins.GROUPS[0], "pytest_resurgence_unlearnings"),
    "finetuning": Kind("fine-tuning", "fine-tunings", origins.GROUPS[1], "pytest_resurgence_finetunings"),
    "judge": Kind("judge", "judges", origins.GROUPS[2], "pytest_resurgence_judges"),
    "task": Kind("task", "tasks", origins.GROUPS[3], "pytest_resurgence_tasks"),
}
PUBLISHED_TASK = "published task"
"""The built-in tasks for bases larger than the microworld; other tasks are registered for every base."""


class Given(NamedTuple):
    """A registered object, read: its name, its value, and the class whose source defines what it does."""

    name: str
    value: Any
    defined_by: type | None = None
    """None for pure data."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered object."""

    kind: str
    name: str
    value: Any
    origin: Origin
    source: str = ""
    """sha256 of the source that defines it; empty for built-in ones."""
    replaced: Entry | None = None
    """The entry of the same name that this one, of a suite, replaces."""
    by_hook: bool = False
    """Whether a hook returned it; then the next call of `registered_by_suite` removes it."""

    @property
    def note(self) -> str:
        """'Judge "darkness" is from acme-judges 1.0, source 0123456789ab.'"""
        text = f'{KINDS[self.kind].one.capitalize()} "{self.name}" is from {shown(str(self.origin))}'
        text += f", source {self.source[:DIGITS]}" if self.source else ""
        if self.replaced is None:
            return f"{text}."
        old = self.replaced.origin
        return f"{text}; it replaces the {'built-in one' if old.kind == 'built-in' else f'one of {shown(str(old))}'}."

    @property
    def named(self) -> bool:
        """Whether reports have a note on it: it is a package's, a plugin's or a settings file's, or it replaces one."""
        return self.origin.kind in ("package", "plugin", "settings") or self.replaced is not None

    def as_dict(self) -> dict[str, Any]:
        """The entry in verdict.json."""
        return {
            "kind": self.kind,
            "name": self.name,
            "origin": self.origin.kind,
            "package": self.origin.name,
            "version": self.origin.version,
            "source": self.source,
            "replaces": "" if self.replaced is None else str(self.replaced.origin),
        }


class Table(Mapping[str, T], Generic[T]):
    """The objects of one kind by name, in the order in which they were registered; the package's own first."""

    def __init__(self, kind: str, read: Callable[[object], Given]) -> None:
        """`read` checks an object and returns its name and value; UserError for an object of another kind."""
        self._kind, self.read = kind, read
        self.entries: dict[str, Entry] = {}
        _TABLES[kind] = self

    def __getitem__(self, name: str) -> T:
        self._load()
        value: T = self.entries[name].value
        return value

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self.entries))

    def __len__(self) -> int:
        self._load()
        return len(self.entries)

    def __repr__(self) -> str:
        """The names that are registered by now."""
        return f"<{self._kind}: {', '.join(self.entries)}>"

    def _load(self) -> None:
        _load("task" if self._kind == PUBLISHED_TASK else self._kind)


_TABLES: dict[str, Table[Any]] = {}
_LOADED: set[str] = set()
"""Kinds whose entry points were registered."""


def register(
    kind: str, given: object, origin: Origin, *, source: str = "", name: str = "", by_hook: bool = False
) -> Entry:
    """Register an object under its own name.

    `source`: digest of the source that defines it (`origins`); `name`: the name that it must have, that of its entry
    point; `by_hook`: whether a hook returned it. UserError for an object that is not of this kind, and for a name that
    is taken, unless a suite replaces a built-in object or a package's.
    """
    if origin.kind != "built-in":
        _load(kind)
    table = _TABLES[kind]
    found = table.read(given)
    one = KINDS["task" if kind == PUBLISHED_TASK else kind].one
    if name and found.name != name:
        raise UserError(
            sentence(
                f'The {one} of the entry point "{shown(name)}" is called "{shown(found.name)}".',
                package=shown(str(origin)),
                do="Give both the same name.",
            )
        )
    wide = kind == "task" and origin.kind != "built-in"
    tables = [table, *([_TABLES[PUBLISHED_TASK]] if wide else [])]
    made: Entry | None = None
    for each in tables:
        new = Entry(kind=kind, name=found.name, value=found.value, origin=origin, source=source, by_hook=by_hook)
        old = each.entries.get(found.name)
        if old is not None and origin.of_suite and old.value == new.value:
            made = made or old  # several conftest.py files may return one object
            continue
        if old is not None:
            if not origin.of_suite or old.origin.of_suite:
                raise _taken(one, old, new)
            new = Entry(**{**vars(new), "replaced": old})
        each.entries[found.name] = new
        made = made or new
    if found.defined_by is not None and origin.kind != "built-in":
        origins.note_class(found.defined_by, origin, source)
    assert made is not None
    return made


def _taken(one: str, old: Entry, new: Entry) -> UserError:
    many = next(kind.many for kind in KINDS.values() if kind.one == one)
    return UserError(
        sentence(
            f'Two {many} are called "{new.name}".',
            first=shown(str(old.origin)),
            second=shown(str(new.origin)),
            do="Only one of them would be used: give each its own name, or uninstall one package."
            + ("" if new.origin.of_suite else " Only a conftest.py may replace another one."),
        )
    )


def _load(kind: str) -> None:
    """Register the entry points of a kind, once. UserError for one that is not usable, on every call."""
    if kind in _LOADED or kind not in KINDS:
        return
    _LOADED.add(kind)  # before the imports, which may read the table
    before = _saved()
    before[2].discard(kind)
    try:
        for point in origins.entry_points_of(KINDS[kind].group):
            _register_point(kind, point)
    except BaseException:
        _restore(before)
        raise


def _register_point(kind: str, point: EntryPoint) -> None:
    package = origins.package_of(point)
    facts = {"entry_point": f"{KINDS[kind].group}: {shown(point.name)} = {shown(point.value)}"}
    first = f'The entry point "{shown(point.name)}" of {shown(str(package))}'
    repair = "Repair the package, or uninstall it."
    try:
        given = point.load()
    except (Exception, SystemExit) as problem:
        why = shown(f"{type(problem).__name__}: {problem}".splitlines()[0], limit=200)
        raise UserError(sentence(f"{first} cannot be imported.", **facts, problem=why, do=repair)) from None
    try:
        found = _TABLES[kind].read(given)
    except UserError as problem:
        why, *_, do = [*str(problem).splitlines(), repair]
        raise UserError(
            sentence(f"{first} is not a usable {KINDS[kind].one}.", **facts, problem=why, do=do.strip())
        ) from None
    modules = [point.module]
    if found.defined_by is not None and found.defined_by.__module__.partition(".")[0] != origins.OWN:
        modules.append(found.defined_by.__module__)
    source = origins.source_of_modules(tuple(dict.fromkeys(modules)))
    register(kind, given, package, source=source, name=point.name)


class OfSuite(NamedTuple):
    """One object that a conftest.py or another pytest plugin returned from a hook."""

    kind: str
    given: object
    origin: Origin
    file: Path
    """The file of the conftest.py or plugin."""


def registered_by_suite(found: Iterable[OfSuite]) -> None:
    """Register what the hooks of a suite returned, in place of what an earlier call registered."""
    for table in _TABLES.values():
        for name, entry in list(table.entries.items()):
            if not entry.by_hook:
                continue
            if entry.replaced is not None:
                table.entries[name] = entry.replaced
            else:
                del table.entries[name]
    origins.CLASSES.clear()
    for entry in [entry for table in _TABLES.values() for entry in table.entries.values() if entry.source]:
        defined_by = _TABLES[entry.kind].read(entry.value).defined_by
        if defined_by is not None:
            origins.note_class(defined_by, entry.origin, entry.source)
    for one in found:
        read = _TABLES[one.kind].read(one.given)
        source = origins.source_of_class(read.defined_by, one.file)
        register(one.kind, one.given, one.origin, source=source, by_hook=True)


def registered_by_settings(found: Iterable[tuple[str, object]], *, origin: Origin, source: str) -> None:
    """Register the (kind, object) that a settings file declares, in place of what an earlier call registered."""
    for table in _TABLES.values():
        for name, entry in list(table.entries.items()):
            if entry.origin.kind == "settings":
                del table.entries[name]
    for kind, given in found:
        register(kind, given, origin, source=source)


def entries(kind: str) -> tuple[Entry, ...]:
    """Every entry of a kind, in the order of registration; the published tasks are left out, as they have the names of
    the microworld's."""
    _load(kind)
    return tuple(_TABLES[kind].entries.values())


def given_parts(used: Iterable[tuple[str, str]]) -> tuple[Entry, ...]:
    """Those of the (kind, name) that are registered and not built in, each once."""
    found: dict[tuple[str, str], Entry] = {}
    for kind, name in used:
        entry = _TABLES[kind].entries.get(name) if kind in _TABLES else None
        if entry is not None and entry.origin.kind != "built-in":
            found[kind, name] = entry
    return tuple(found.values())


@contextmanager
def temporary() -> Iterator[None]:
    """Undo at the end what is registered inside."""
    before = _saved()
    try:
        yield
    finally:
        _restore(before)


_Saved = tuple[dict[str, dict[str, Entry]], dict[type, dict[str, str]], set[str]]


def _saved() -> _Saved:
    return {kind: dict(table.entries) for kind, table in _TABLES.items()}, dict(origins.CLASSES), set(_LOADED)


def _restore(saved: _Saved) -> None:
    tables, classes, loaded = saved
    for kind, table in _TABLES.items():
        table.entries.clear()
        table.entries.update(tables.get(kind, {}))
    origins.CLASSES.clear()
    origins.CLASSES.update(classes)
    _LOADED.clear()
    _LOADED.update(loaded)
