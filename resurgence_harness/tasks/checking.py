"""Checks the types of a task's values when the task is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import Concept, Prompt

LISTS: Mapping[str, tuple[type, str]] = {
    "erasable": (Concept, '(Concept(name="night"),)'),
    "preserve": (Concept, '(Concept(name="noon"),)'),
    "held_out": (Concept, '(Concept(name="dusk"),)'),
    "counts": (int, "(1,)"),
    "quick": (int, "(1,)"),
    "templates": (str, '("a photo of {}", "{}")'),
    "retained_templates": (str, '("a photo of {}", "{}")'),
    "judges": (str, '("darkness",)'),
    "neutral": (Prompt, '(Prompt(text="a chair", concept="a chair"),)'),
}
"""Fields that are tuples → type of their items, and an example."""
SEVERITIES = ("blocker", "critical", "normal", "minor", "trivial")
"""Allure's severities."""


def check_kinds(task: Any) -> None:
    """SpecError if a field of a `Task` has a value of the wrong type."""
    if not isinstance(task.name, str) or not task.name.strip():
        raise SpecError(sentence(f"The name of a task is {task.name!r}.", do='Write name="night": one word.'))
    for field, (kind, example) in LISTS.items():
        _check_tuple(task.name, field, getattr(task, field), kind, example)
    if isinstance(task.written, str | list | Mapping) or not (
        isinstance(task.written, tuple) or hasattr(task.written, "prompts")
    ):
        _wrong(task.name, "written", task.written, "prompts", '(Prompt(text="…", concept="night"),)')
    if isinstance(task.written, tuple):
        _check_tuple(task.name, "written", task.written, Prompt, '(Prompt(text="…", concept="night"),)')
    for field in ("templates", "retained_templates"):
        for template in getattr(task, field):
            _check_template(task.name, field, template)
    if not isinstance(task.anchor, str):
        _wrong(task.name, "anchor", task.anchor, "text", '"a sky"')
    if task.severity not in SEVERITIES:
        raise SpecError(
            sentence(
                f'The severity of task "{task.name}" is {task.severity!r}.', do=f"Write one of {', '.join(SEVERITIES)}."
            )
        )
    if not isinstance(task.erase_sets, Mapping):
        _wrong(task.name, "erase_sets", task.erase_sets, "concepts by count", '{1: (Concept(name="night"),)}')
    for count, concepts in task.erase_sets.items():
        _check_tuple(task.name, f"erase_sets[{count}]", concepts, Concept, '(Concept(name="night"),)')


def _check_tuple(task: str, field: str, value: Any, kind: type, example: str) -> None:
    """SpecError unless a value is a tuple whose items all have the type `kind`."""
    if not isinstance(value, tuple):
        _wrong(task, field, value, f"a tuple of {kind.__name__}", example)
    for place, one in enumerate(value):
        if not isinstance(one, kind) or isinstance(one, bool):
            _wrong(task, f"{field}[{place}]", one, kind.__name__, example)
    if kind is int and (any(one < 1 for one in value) or len(set(value)) < len(value)):
        _wrong(task, field, value, "different whole numbers of 1 or more", example)


def _check_template(task: str, field: str, template: str) -> None:
    """SpecError unless a template has exactly one place for a name, and no other braces."""
    try:
        fits = template.count("{}") == 1 and template.format("name") == template.replace("{}", "name")
    except (ValueError, KeyError, IndexError):
        fits = False
    if not fits:
        raise SpecError(
            sentence(
                f'Task "{task}" has a template that must hold "{{}}" once and no other braces.',
                **{field: repr(template)},
                do='"{}" is where the name of a concept goes: "a photo of {}".',
            )
        )


def _wrong(task: str, field: str, value: object, wanted: str, example: str) -> None:
    raise SpecError(
        sentence(
            f'{field} of task "{task}" is {_article(value)}.',
            got=repr(value)[:80],
            expected=wanted,
            do=f"Write it as: {field.partition('[')[0]}={example}; a tuple of one item needs a trailing comma.",
        )
    )


def _article(value: object) -> str:
    kind = type(value).__name__
    return f"an {kind}" if kind[:1].lower() in "aeiou" else f"a {kind}"
