"""Names of unlearning methods, as in node ids, and the step of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from resurgence_harness.diffusion.parameters import CrossAttention, Everything, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.registry import BUILT_IN, Given, Table, register
from resurgence_harness.unlearning import (
    ESD,
    MACE,
    SDD,
    SHS,
    UCE,
    EraseDiff,
    GradientMemory,
    LastSubjectToken,
    SalUn,
    SubjectAndAfter,
    Unlearning,
)


class Method(NamedTuple):
    """The step that a method's name stands for, and the fields that it fixes."""

    step: type[Any]
    """A class of unlearning/."""
    fixed: Mapping[str, Any]
    """Fields that define this variant; no preset, task or user can change them."""
    minutes: float
    """Rough share of a cell's build time; only decides what xdist starts first."""
    name: str = ""
    """Its name in node ids, for a variant; empty: the step's own."""


def _read(given: object) -> Given:
    """A method, or a class of which it is the only variant. What the class lacks is found by `stepping.check_steps`."""
    method = given
    if isinstance(given, type) and issubclass(given, Unlearning):
        method = Method(given, {}, MINUTES)
    name = (method.name or getattr(method.step, "name", "")) if isinstance(method, Method) else ""
    if not isinstance(method, Method) or not isinstance(name, str) or not name:
        raise UserError(
            sentence(
                f"An unlearning method is expected, not {given!r:.80}.",
                got=type(given).__name__,
                do="Give a class derived from Unlearning, with name: ClassVar[str]; or Method(YourStep, {}, 5, name).",
            )
        )
    return Given(name, method, method.step if isinstance(method.step, type) else None)


MINUTES = 8
"""`Method.minutes` of a class that is registered without them."""
METHODS: Table[Method] = Table("unlearning", _read)
"""Every unlearning method by its name in node ids."""
for _method in (
    Method(UCE, {"tokens": SubjectAndAfter()}, 1),
    Method(UCE, {"tokens": LastSubjectToken()}, 1, "uce-last"),
    Method(ESD, {"subset": CrossAttention()}, 8),
    Method(ESD, {"subset": StrictKeyValue()}, 7, "esd-strict"),
    Method(ESD, {"subset": NonCrossAttention()}, 10, "esd-u"),
    Method(ESD, {"subset": Everything()}, 10, "esd-all"),
    Method(SDD, {}, 10),
    Method(MACE, {}, 8),
    Method(SalUn, {}, 9),
    Method(SHS, {}, 9),
    # The paper's form, with the margin and the ridge of the authors' function, which their script never calls.
    Method(SHS, {"projection": GradientMemory(margin=0.5, ridge=1e-3)}, 9, "shs-gem"),
    Method(EraseDiff, {}, 9),
):
    register("unlearning", _method, BUILT_IN)

SEVEN = ("uce", "esd", "sdd", "mace", "salun", "shs", "erasediff")
"""One variant of each published method."""


def check_names(what: str, values: Iterable[str], known: Iterable[str], flag: str) -> None:
    """UserError for a value that is not among the known ones. `what`: their kind; `flag`: the option that sets them."""
    known = tuple(known)
    for value in values:
        if value not in known:
            raise UserError(
                sentence(
                    f'There is no {what} "{value}".',
                    known=", ".join(known),
                    do=f"Choose with {flag} among the known ones.",
                )
            )
