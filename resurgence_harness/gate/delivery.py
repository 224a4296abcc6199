"""What follows a verdict: files, the terminal, CI, trackers. What fails here changes no verdict.

Each part is tried by itself, the files first. A part that fails is one sentence on stderr, and the process ends with
12: a verdict that somebody did not see is no pass. Only a regression stays what it is, 1.
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
        """`code` is the verdict's own."""
        self.code = code

    def part(self, report: Callable[[], Result]) -> Result | None:
        """What `report` gives; None where it failed, which is printed and remembered."""
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
