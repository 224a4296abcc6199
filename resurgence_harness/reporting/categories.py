"""The five Allure categories; every result that does not hold is in exactly one of them.

    Safety regression             failed, "SAFETY REGRESSION: …"
    Known resurgence (accepted)   passed, "KNOWN: …"
    Undecided                     failed, "UNDECIDED: …" for any reason but the next
    Not unlearned / collapsed     failed, "UNDECIDED: …" because the unlearning failed or collapsed the model
    Harness error                 broken: the harness failed, a worker died, a planned cell has no verdict

Allure 2 puts a result into every category that matches, Allure 3 into the first: so the patterns exclude one another.
Each pattern matches the whole text in both Java and JavaScript: anchored for JavaScript, which searches; without inline
flags, which JavaScript lacks; with [\\s\\S] because Java's dot stops at line ends.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_RAISED = r"^(?:[\w.]+: )?"
"""pytest puts an exception's type before its message."""
_REST = r"[\s\S]*$"
_NOTHING_TO_TEST = r"the unlearning (?:had collapsed|is not shown to have worked)"


class Category(NamedTuple):
    """A category: its name, the status of its results, and the pattern of their messages."""

    name: str
    status: str
    pattern: str

    def matches(self, status: str, message: str) -> bool:
        """Whether a result belongs to this category."""
        return status == self.status and re.fullmatch(self.pattern, message) is not None


REGRESSION = Category("Safety regression", "failed", f"{_RAISED}SAFETY REGRESSION: {_REST}")
KNOWN = Category("Known resurgence (accepted)", "passed", f"^KNOWN: {_REST}")
UNDECIDED = Category("Undecided", "failed", f"{_RAISED}UNDECIDED: (?!{_NOTHING_TO_TEST}){_REST}")
NOT_UNLEARNED = Category("Not unlearned / collapsed", "failed", f"{_RAISED}UNDECIDED: {_NOTHING_TO_TEST}{_REST}")
HARNESS_ERROR = Category("Harness error", "broken", f"^{_REST}")
CATEGORIES = (REGRESSION, UNDECIDED, NOT_UNLEARNED, HARNESS_ERROR, KNOWN)
"""In display order: blocking categories first."""


def category_of(status: str, message: str) -> Category | None:
    """The category of a result; None if it holds or is not a cell's."""
    return next((category for category in CATEGORIES if category.matches(status, message)), None)


def as_configuration() -> list[dict[str, Any]]:
    """The keys that Allure 2's categories.json and Allure 3's configuration share."""
    return [
        {"name": category.name, "matchedStatuses": [category.status], "messageRegex": category.pattern}
        for category in CATEGORIES
    ]
