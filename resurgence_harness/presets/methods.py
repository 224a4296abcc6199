"""Names of unlearning methods, as in node ids, and the step of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from resurgence_harness.diffusion.parameters import CrossAttention, Everything, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import UserError, sentence
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
)


class Method(NamedTuple):
    """The step that a method's name stands for, and the fields that it fixes."""

    step: type[Any]
    """A class of unlearning/."""
    fixed: Mapping[str, Any]
    """Fields that define this variant; no preset, task or user can change them."""
    minutes: float
    """Rough share of a cell's build time; only decides what xdist starts first."""


METHODS: dict[str, Method] = {
    "uce": Method(UCE, {"tokens": SubjectAndAfter()}, 1),
    "uce-last": Method(UCE, {"tokens": LastSubjectToken()}, 1),
    "esd": Method(ESD, {"subset": CrossAttention()}, 8),
    "esd-strict": Method(ESD, {"subset": StrictKeyValue()}, 7),
    "esd-u": Method(ESD, {"subset": NonCrossAttention()}, 10),
    "esd-all": Method(ESD, {"subset": Everything()}, 10),
    "sdd": Method(SDD, {}, 10),
    "mace": Method(MACE, {}, 8),
    "salun": Method(SalUn, {}, 9),
    "shs": Method(SHS, {}, 9),
    # The paper's form, with the margin and the ridge of the authors' function, which their script never calls.
    "shs-gem": Method(SHS, {"projection": GradientMemory(margin=0.5, ridge=1e-3)}, 9),
    "erasediff": Method(EraseDiff, {}, 9),
}
"""Every unlearning method by its name in node ids. A new method is a line here and a file in unlearning/."""

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
