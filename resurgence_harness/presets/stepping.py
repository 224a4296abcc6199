"""Checks, before anything is planned, that every entry of METHODS and FINETUNINGS is a valid step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from inspect import isabstract
from typing import Any

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.finetuning import FINETUNINGS, FineTuning
from resurgence_harness.presets.methods import METHODS, Method
from resurgence_harness.unlearning import Unlearning

GROUPS = ("sampler", "benign", "pictures", "finetunings", "unlearnings")
"""Groups of settings, and sections of a settings file, that do not belong to a step."""


def check_steps() -> None:
    """SpecError for an invalid method or fine-tuning, or one whose name is taken."""
    taken: dict[str, object] = dict.fromkeys(GROUPS, "a group of settings")
    for word, finetuning in FINETUNINGS.items():
        _check_class(f'fine-tuning "{word}"', finetuning, FineTuning)
        _check_name(taken, finetuning, f'fine-tuning "{word}"')
    for word, method in METHODS.items():
        if not isinstance(word, str) or not word or not word.replace("-", "").replace("_", "").isalnum():
            _refuse(f"The method name {word!r} cannot be used in node ids.", "Use letters, digits and hyphens.")
        _check_class(f'method "{word}"', method.step, Unlearning)
        _check_name(taken, method.step, f'method "{word}"')
        _check_fixed(word, method)


def missing_values(step: type[Any], values: Mapping[str, Any]) -> list[str]:
    """Fields of a step that have neither a default nor a value in `values`."""
    return [
        one.name
        for one in fields(step)
        if one.init and one.default is MISSING and one.default_factory is MISSING and one.name not in values
    ]


def _check_class(what: str, step: Any, kind: type) -> None:
    if not isinstance(step, type) or not issubclass(step, kind):
        _refuse(f"The step of {what} is no {kind.__name__}.", f"Give a class: class Own({kind.__name__}).", got=step)
    if isabstract(step):
        undefined = ", ".join(sorted(step.__abstractmethods__))
        _refuse(f"The step of {what} does not define {undefined}.", f"Define it in {step.__name__}.")
    if not is_dataclass(step) or "__dataclass_fields__" not in vars(step):
        _refuse(
            f"The step of {what} is no dataclass.", f"Write @dataclass(frozen=True, kw_only=True) at {step.__name__}."
        )
    settings: Any = step.__dataclass_params__
    if not settings.frozen or not settings.eq:
        _refuse(
            f"The step of {what} can be changed after it was made, so it can have no key.",
            f"Write @dataclass(frozen=True, kw_only=True) at {step.__name__}.",
        )
    for member, wanted in (("name", str), ("version", int)):
        value = getattr(step, member, None)
        if not isinstance(value, wanted) or isinstance(value, bool) or value == "":
            _refuse(
                f"The step of {what} has no {member}.",
                f"Write {member}: ClassVar[{wanted.__name__}] = … in {step.__name__}.",
                got=repr(value),
            )
    if kind is Unlearning and "concepts" not in {one.name for one in fields(step)}:
        _refuse(f"The step of {what} has no field concepts.", "Write concepts: tuple[Concept, ...].")


def _check_name(taken: dict[str, object], step: Any, what: str) -> None:
    """SpecError for two classes of one name: their settings and stored artifacts would be confused."""
    other = taken.setdefault(step.name, step)
    if other is not step:
        _refuse(
            f'The step of {what} is called "{step.name}", as {getattr(other, "__name__", other)} is.',
            f"Give {step.__name__} another name; stored artifacts are found by it.",
        )


def _check_fixed(word: str, method: Method) -> None:
    known = [one.name for one in fields(method.step)]
    if not isinstance(method.fixed, Mapping):
        _refuse(f'The fixed fields of method "{word}" are no mapping.', "Write {} for none.", got=repr(method.fixed))
    if unknown := [name for name in method.fixed if name not in known]:
        _refuse(
            f'Method "{word}" fixes {unknown[0]}, which {method.step.__name__} does not have.',
            "Name a field of the step.",
            fields=", ".join(known),
        )
    if isinstance(method.minutes, bool) or not isinstance(method.minutes, int | float) or method.minutes <= 0:
        _refuse(f'The minutes of method "{word}" are {method.minutes!r}.', "Give about how long it takes: 5.")


def _refuse(first: str, do: str, **facts: object) -> None:
    raise SpecError(sentence(first, do=do, **facts))
