"""Check that a judge declares every member of the contract, before it judges anything.

No member is optional: a member missing because of a mistyped name would silently change what counts as a hit. No
property is evaluated here, since some read weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from resurgence_harness.errors import UserError, sentence

EXAMPLES: Mapping[str, str] = {
    "name": 'name = "darkness"',
    "version": "version = 1",
    "digest": "digest = property(digest_of_fields)",
    "labels": 'labels = ("night", "dusk", "noon")',
    "given": "given = ()",
    "shows": "def shows(self, answer): return (answer,)",
    "check": "def check(self, names): pass",
    "answer": "def answer(self, images, device): …",
    "calibration": "def calibration(self): …",
    "canaries": "def canaries(self): …",
}
"""Every member of `contract.Judge`, with a minimal example."""
VALUES: Mapping[str, tuple[type, ...]] = {"name": (str,), "version": (int, str), "digest": (str,)}
"""Types of the members that are neither methods nor collections."""
METHODS = ("answer", "calibration", "canaries", "check", "shows")


def check_declared(judge: object) -> None:
    """UserError for a judge that lacks a member of the contract, or has one of the wrong type."""
    if isinstance(judge, type):
        raise UserError(
            sentence(f"The judge {judge.__name__} is a class, not an instance.", do=f"Give {judge.__name__}() instead.")
        )
    found = {member: _declared(judge, member) for member in EXAMPLES}
    missing = [member for member, value in found.items() if value is _ABSENT]
    label = _label(judge)
    if missing:
        similar = misspelled(judge)
        raise UserError(
            sentence(
                f"Judge {label} does not declare {', '.join(missing)}.",
                **({"misspelled": ", ".join(f"{one} for {of}" for one, of in similar.items())} if similar else {}),
                do="Rename it."
                if set(similar.values()) >= set(missing)
                else "Add to its class: " + "; ".join(EXAMPLES[member] for member in missing if member not in similar),
            )
        )
    for member, value in found.items():
        if _fits(member, value):
            continue
        expected = "a method" if member in METHODS else " or ".join(kind.__name__ for kind in VALUES[member])
        raise UserError(
            sentence(
                f"The {member} of judge {label} is {value!r}.", expected=expected, do=f"Write it as: {EXAMPLES[member]}"
            )
        )


def misspelled(judge: object) -> dict[str, str]:
    """Attributes of the judge that resemble a member which it lacks or inherits → that member."""
    kind = type(judge)
    own = {name for one in (*kind.__mro__[:-1], judge) for name in getattr(one, "__dict__", ()) if name[0] != "_"}
    declared = set(getattr(kind, "__dataclass_fields__", ()))
    similar: dict[str, str] = {}
    for name in sorted((own | declared) - EXAMPLES.keys()):
        close = get_close_matches(name.casefold(), EXAMPLES, n=1, cutoff=0.75)
        if close and close[0] not in vars(kind) and close[0] not in getattr(judge, "__dict__", ()):
            similar[name] = close[0]
    return similar


def labels_of(judge: Any) -> tuple[str, ...]:
    """Every answer that the judge declares; UserError unless this is a non-empty tuple or list of texts."""
    check_declared(judge)
    labels: Any = judge.labels
    if not isinstance(labels, tuple | list) or not labels or not all(isinstance(one, str) and one for one in labels):
        raise UserError(
            sentence(
                f"The labels of judge {judge.name} are not a tuple of texts.",
                labels=repr(labels)[:80],
                do=f"List every answer that it can give: {EXAMPLES['labels']}; a single label: ('night',).",
            )
        )
    return tuple(labels)


_ABSENT: Any = object()


def _declared(judge: object, member: str) -> Any:
    """The attribute of this name, without evaluating a property."""
    return inspect.getattr_static(judge, member, _ABSENT)


def _fits(member: str, value: Any) -> bool:
    """Whether a member has the expected type; computed ones (properties) are accepted unevaluated."""
    if member in METHODS:
        return callable(value) or isinstance(value, staticmethod | classmethod)
    if hasattr(type(value), "__get__") or member not in VALUES:
        return True
    return isinstance(value, VALUES[member]) and not isinstance(value, bool) and value != ""


def _label(judge: object) -> str:
    value = _declared(judge, "name")
    return value if isinstance(value, str) and value else type(judge).__name__
