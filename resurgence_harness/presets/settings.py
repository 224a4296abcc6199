"""Combines a cell's values: those of the preset, the task, the variant, and the user's changes.

    settings_for("micro", [("esd.iterations", 500)])["esd"]["iterations"]      500

`settings_for` combines them for a preset, `settings_of` for a base, with the base's own image size.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.presets import choices, micro, sd, sdxl
from resurgence_harness.presets.bases import check_size, image_of, preset_of
from resurgence_harness.presets.methods import METHODS
from resurgence_harness.presets.values import ByCount
from resurgence_harness.specs import Base
from resurgence_harness.strict_yaml import NotStrict, parse

Settings = Mapping[str, Mapping[str, Any]]

PRESETS: dict[str, Settings] = {"micro": micro.PRESET, "sd": sd.PRESET, "sdxl": sdxl.PRESET}
"""Values by size of model, then by step (fields of its class), `sampler` (of Sampler), `benign` (names × seeds) or
`pictures` (approximate numbers of forget and retain images for the unlearnings that train on images)."""
OF_TASK: dict[str, dict[str, Settings]] = {
    "micro": dict(micro.OF_TASK),
    "sd": dict(sd.OF_TASK),
    "sdxl": dict(sdxl.OF_TASK),
}
"""By size of model and name of task: a task's own values of unlearnings, which override the preset's field by field.
For "sd" they are complete published recipes (recipes.py), for "sdxl" those with SDXL's values (sdxl.py)."""
OF_VARIANT: dict[str, Settings] = {"micro": micro.OF_VARIANT, "sd": sd.OF_VARIANT, "sdxl": sdxl.OF_VARIANT}
"""By size of model and name of method: values of a variant, which trains other parameters than its method does."""


def settings_for(
    preset: str, changed: Iterable[tuple[str, Any]] = (), *, task: str = "", method: str = "", count: int = 0
) -> dict[str, dict[str, Any]]:
    """A preset's values, overridden by the task's own, then by the variant's, then by `changed`.

    With `count`, values that depend on the number of erased concepts are resolved for it. UserError for an unknown
    setting, and for one that contradicts the variant.
    """
    own = OF_TASK[preset].get(task, {})
    # A step without a preset runs with the defaults of its class.
    groups: Settings = {**{group: {} for group in choices.owners()}, **PRESETS[preset]}
    settings = {group: {**values, **own.get(group, {})} for group, values in groups.items()}
    variant = METHODS.get(method)
    if variant is not None:
        settings[variant.step.name] |= {**OF_VARIANT[preset].get(method, {}), **variant.fixed}
    for key, value in changed:
        group, _, name = key.partition(".")
        read = choices.checked(key, value)
        if variant is not None and group == variant.step.name and name in variant.fixed:
            _check_fixed(key, read, method)
        settings[group][name] = read
    if count:
        for values in settings.values():
            values.update({name: one.at(count) for name, one in values.items() if isinstance(one, ByCount)})
    return settings


def settings_of(
    base: Base, changed: Iterable[tuple[str, Any]] = (), *, task: str = "", method: str = "", count: int = 0
) -> dict[str, dict[str, Any]]:
    """The same for a base: its images have its own size unless `changed` sets another."""
    changed = tuple(changed)
    settings = settings_for(preset_of(base), changed, task=task, method=method, count=count)
    image, chosen = image_of(base), dict(changed)
    for side in ("height", "width"):
        if f"sampler.{side}" not in chosen:
            settings["sampler"][side] = image.side
    check_size(image, settings["sampler"]["height"], settings["sampler"]["width"])
    return settings


def parse_change(text: str) -> tuple[str, Any]:
    """ "esd.iterations=500" → ("esd.iterations", 500); UserError for what cannot be parsed."""
    key, equals, value = (part.strip() for part in text.partition("="))
    group, _, name = key.partition(".")
    hint = choices.chosen_fields(group).get(name)
    if hint is None or hint in (int, float):
        return key, _number(text, key if equals else "", value)
    if not equals or (not value and hint is not str):
        raise UserError(
            sentence(f'"{text}" sets nothing.', do="Write --resurgence-set GROUP.NAME=VALUE, as in docs/settings.md.")
        )
    return key, choices.read(key, value if hint is str else _flow(value, key))


def _flow(text: str, key: str) -> Any:
    """A value written on one line: a word, a number, [a list] or {a: mapping}."""
    try:
        return parse(text).content
    except NotStrict as problem:
        raise UserError(
            sentence(
                f"{key} cannot be read: it {problem}.",
                value=shown(text),
                do="Write a word, a number, [a list] or {kind: word, name: value}.",
            )
        ) from None


def _number(text: str, key: str, value: str) -> int | float:
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    if not key or not isinstance(parsed, int | float) or isinstance(parsed, bool):
        raise UserError(
            sentence(
                f'"{text}" does not set a number.',
                do="Write --resurgence-set GROUP.NAME=VALUE, for example esd.iterations=500.",
            )
        )
    return parsed


def _check_fixed(key: str, value: Any, method: str) -> None:
    """UserError if a value differs from the one that defines the method's variant."""
    name = key.partition(".")[2]
    fixed = METHODS[method].fixed[name]
    if value != fixed:
        others = [
            word for word, one in METHODS.items() if one.step is METHODS[method].step and one.fixed.get(name) == value
        ]
        raise UserError(
            sentence(
                f'{key} cannot be changed for the method "{method}", which fixes it.',
                method=f"{method}: {choices.written(fixed)}",
                requested=choices.written(value),
                do=f"Choose --resurgence-methods={others[0]}." if others else "Choose another variant of the method.",
            )
        )
