"""Delivers a verdict to files, the terminal, CI and trackers; a failure here changes no verdict.

Each part runs independently, the files first. A part that fails prints one sentence to stderr, and the process ends
with 12: a verdict that was not delivered is not a pass. Only a regression keeps its code, 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from resurgence_harness.errors import ResurgenceError, sentence
from resurgence_harness.process import ExitCode, combined
from resurgence_harness.process.unforeseen import recorded

Result = TypeVar("Result")


class Delivery:
    """The exit code of a verdict while it is reported."""

    def __init__(self, code: ExitCode) -> None:
        """`code`: the code of the verdict."""
        self.code = code

    def part(self, report: Callable[[], Result]) -> Result | None:
        """The result of `report`; None if it failed, which is printed and changes the code."""
        try:
            return report()
        except (Exception, SystemExit) as error:  # a tracker's library may call sys.exit()
            print(f"resurgence: {_describe(error)}", file=sys.stderr)
            self.code = combined([self.code, ExitCode.HARNESS_ERROR])
            return None


def _describe(error: BaseException) -> str:
    if isinstance(error, ResurgenceError):
        return str(error)
    if isinstance(error, OSError):
        facts = {"file": error.filename} if error.filename else {}
        first = "A report could not be written; the verdict is not changed by that."
        return sentence(first, reason=error.strerror or error, **facts)
    return recorded(error)
