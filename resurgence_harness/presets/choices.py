"""Parses values of a step's fields from the command line or a settings file, and writes them back.

    esd.iterations=500
    shs.projection=gradient-memory
    shs.projection={kind: gradient-memory, margin: 0.1}
    uce.templates=["{}", "a photo of {}"]
    mace.general=captions.txt

A choice among kinds is written by its name, with its own values if these are not the defaults; concepts by their
names; general captions as a list or by the path of a file. The kinds are read from the field's type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from inspect import isabstract
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from resurgence_harness.errors import SpecError, UserError, sentence
from resurgence_harness.finetuning import FINETUNINGS
from resurgence_harness.presets.methods import METHODS
from resurgence_harness.presets.stepping import check_steps
from resurgence_harness.specs import Concept, Sampler
from resurgence_harness.unlearning import CaptionFile, CaptionSample, GivenMasks, SegmentedMasks

NOT_CHOSEN = ("concepts", "forget", "data", "save_at", "sampler")
"""Fields that the cell fills in; they cannot be set."""

AT_PLACES: Mapping[type[Any], tuple[str, ...]] = {
    SegmentedMasks: ("detector", "segmenter"),
    GivenMasks: ("path",),
}
"""Kinds that are read from files or folders → the names under which the paths of these are written."""


class Wrong(ValueError):
    """A value that does not fit its field: its exact place, the value, and what would fit."""

    def __init__(self, place: str, value: object, wanted: str) -> None:
        super().__init__(place)
        self.place, self.value, self.wanted = place, value, wanted


def owners() -> Mapping[str, type[Any]]:
    """Group of settings → the class whose fields it has; SpecError for an invalid step."""
    check_steps()
    return {**{method.step.name: method.step for method in METHODS.values()}, **FINETUNINGS, "sampler": Sampler}


def chosen_fields(group: str) -> Mapping[str, Any]:
    """Fields of a group that can be set → their types; empty for an unknown group."""
    if group in ("benign", "pictures"):
        return dict.fromkeys(("names", "seeds") if group == "benign" else ("forget", "retain"), int)
    owner = owners().get(group)
    return {} if owner is None else _chosen(owner)  # type: ignore[arg-type]


@cache
def _chosen(owner: type[Any]) -> Mapping[str, Any]:
    """Fields of a class that can be set → their types; SpecError for a type that cannot be resolved."""
    try:
        hints = get_type_hints(owner)
    except (NameError, TypeError) as problem:
        raise SpecError(
            sentence(
                f"The types of the fields of {owner.__name__} cannot be read.",
                problem=problem,
                do="Import them where the class is defined, not for type checkers alone.",
            )
        ) from None
    # Retain images are a probe, which cannot be written as a value; sets of names can.
    left_out = {*NOT_CHOSEN, "retain"}
    allowed = getattr(owner, "settable", None)
    return {
        one.name: hints[one.name]
        for one in fields(owner)
        if one.name not in left_out and (allowed is None or one.name in allowed)
    }


def read(key: str, value: object, *, folder: Path | None = None) -> Any:
    """The value of "group.field", parsed; UserError with the place of the mistake and what would fit.

    Paths in it are relative to `folder`.
    """
    try:
        return _read(_hint(key), value, key, folder or Path())
    except Wrong as wrong:
        raise UserError(
            sentence(f"{wrong.place} is {_shown(wrong.value)}.", wanted=wrong.wanted, do="See docs/settings.md.")
        ) from None


def _hint(key: str) -> Any:
    """The type of the field that a key names; UserError for an unknown key."""
    group, _, name = key.partition(".")
    allowed = chosen_fields(group)
    if name not in allowed:
        known = ", ".join(f"{group}.{one}" for one in allowed) or ", ".join(sorted({*owners(), "benign", "pictures"}))
        raise UserError(
            sentence(
                f'There is no setting "{key}".',
                settings=known,
                do="Write --resurgence-set GROUP.NAME=VALUE, for example esd.iterations=500.",
            )
        )
    return allowed[name]


def checked(key: str, value: object) -> Any:
    """The value of a change, parsed if it is not yet; UserError for an unknown setting."""
    if isinstance(value, int | float | str | list | dict):
        return read(key, value)
    _hint(key)
    return value


def kinds_of(group: str, name: str) -> list[str]:
    """Names of this package's kinds that a field can take; empty for a field that is a number, text or a list."""
    hint = chosen_fields(group)[name]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if CaptionSample in options or not all(_is_kind(option) for option in options):
        return []
    kinds = [kind for option in options for kind in _kinds(option)]
    return sorted(_name(kind) for kind in kinds if kind.__module__.startswith("resurgence_harness."))


def plain(value: object) -> Any:
    """The value as it is written, in JSON's types: numbers, text, lists and mappings."""
    if isinstance(value, Concept):
        return value.name
    if isinstance(value, CaptionFile):
        return {"file": value.location, "sha256": value.digest}
    if isinstance(value, CaptionSample):
        return {
            **({"captions": list(c)} if isinstance(c := value.captions, tuple) else plain(c)),
            "stand_for": value.stand_for,
        }
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        at = AT_PLACES.get(type(value), ())
        places = {name: getattr(value, "location" if name == "path" else f"{name}_location") for name in at}
        own = {
            one.name: plain(getattr(value, one.name))
            for one in fields(value)
            if one.metadata.get("key", True) and getattr(value, one.name) != _default(one)
        } | places
        own = {name: one for name, one in own.items() if not (at and name == "digest")}
        return {"kind": _name(type(value)), **own} if own else _name(type(value))
    return value


def written(value: object) -> str:
    """The value as it is written after "=" on a command line."""
    text = plain(value)
    return text if isinstance(text, str) else repr(text) if isinstance(text, int | float) else json.dumps(text)


# Inside


def _read(hint: Any, value: Any, place: str, folder: Path) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in (int, float, str, bool):
        return _scalar(hint, value, place)
    if origin is Literal:
        if value not in inner:
            raise Wrong(place, value, f"one of {', '.join(inner)}")
        return value
    if origin in (Union, UnionType) or _is_kind(hint):
        options = inner if origin in (Union, UnionType) else (hint,)
        if CaptionSample in options:
            return _captions(value, place, folder)
        return _one_of(options, value, place, folder)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise Wrong(place, value, "a list in square brackets")
        if inner[0] is Concept:
            names = [_scalar(str, one, f"{place}[{number}]") for number, one in enumerate(value)]
            return tuple(Concept(name=name) for name in names)
        return tuple(_read(inner[0], one, f"{place}[{number}]", folder) for number, one in enumerate(value))
    raise Wrong(place, value, "nothing: this field cannot be set")


def _scalar(hint: type[Any], value: Any, place: str) -> Any:
    if hint is float and isinstance(value, str):  # YAML reads 1e-5 as text
        try:
            value = float(value)
        except ValueError:
            raise Wrong(place, value, "a number") from None
    wanted = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[hint]
    fits = (isinstance(value, int | float) if hint is float else isinstance(value, hint)) and (
        hint is bool or not isinstance(value, bool)
    )
    if not fits or (hint is float and not abs(value) < float("inf")):
        raise Wrong(place, value, wanted)
    return value


def _one_of(options: tuple[Any, ...], value: Any, place: str, folder: Path) -> Any:
    """One of several kinds, by its name."""
    kinds = {_name(kind): kind for option in options if option is not NoneType for kind in _kinds(option)}
    given = dict(value) if isinstance(value, Mapping) else {"kind": value}
    word = given.pop("kind", None)
    if not isinstance(word, str) or word not in kinds:
        raise Wrong(place, value if word is None else word, f"one of {', '.join(sorted(kinds))}")
    kind = kinds[word]
    hints = get_type_hints(kind)
    at = AT_PLACES.get(kind, ())
    own = {one.name: one for one in fields(kind) if one.metadata.get("key", True) and not (at and one.name == "digest")}
    for name in given:
        if name not in own and name not in at:
            raise Wrong(f"{place}.{name}", given[name], f"{word} has {', '.join(own) or 'no values of its own'}")
    needed = dict.fromkeys([*(name for name, one in own.items() if _default(one) is MISSING), *at])
    missing = [name for name in needed if name not in given]
    if missing:
        raise Wrong(place, value, f"{word} needs {', '.join(missing)}")
    values = {
        name: folder / Path(_scalar(str, one, f"{place}.{name}")).expanduser()
        if name in at
        else _read(hints[name], one, f"{place}.{name}", folder)
        for name, one in given.items()
    }
    try:
        return kind.of(**values) if at else kind(**values)
    except SpecError as problem:
        raise UserError(f"{place}: {problem}") from None


def _captions(value: Any, place: str, folder: Path) -> CaptionSample | tuple[str, ...]:
    """A list of captions, the path of a file, or either with the number of captions that it stands for."""
    given = dict(value) if isinstance(value, Mapping) else {"captions" if isinstance(value, list) else "file": value}
    if value == [] or value == ():
        return ()
    unknown = set(given) - {"captions", "file", "stand_for", "sha256"}
    if unknown or ("captions" in given) == ("file" in given):
        raise Wrong(place, value, "a list of captions, a file's path, or {file: …, stand_for: …}")
    captions: CaptionFile | tuple[str, ...]
    if "file" in given:
        captions = CaptionFile.of(folder / Path(_scalar(str, given["file"], f"{place}.file")).expanduser())
        captions.texts()  # raises for an empty file now, not when a model is built
        if given.get("sha256", captions.digest) != captions.digest:
            raise Wrong(f"{place}.sha256", captions.digest, f"the file with sha256 {given['sha256']}")
    else:
        captions = tuple(
            _scalar(str, one, f"{place}.captions[{number}]") for number, one in enumerate(given["captions"])
        )
    stand_for = {"stand_for": _scalar(int, given["stand_for"], f"{place}.stand_for")} if "stand_for" in given else {}
    return CaptionSample(captions=captions, **stand_for)


def _kinds(option: Any) -> list[type[Any]]:
    """The kinds that a type stands for: itself, or everything below an abstract one."""
    if not isabstract(option):
        return [option]
    return [kind for below in option.__subclasses__() for kind in _kinds(below)]


def _is_kind(hint: Any) -> bool:
    return isinstance(hint, type) and (is_dataclass(hint) or isabstract(hint))


def _name(kind: type[Any]) -> str:
    return str(getattr(kind, "name", kind.__name__))


def _default(one: Any) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
