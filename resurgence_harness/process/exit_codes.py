"""The exit codes of every command and of pytest runs with cells, with the texts for help and reports.

If several apply to one run: 1, then 12, 11, 10. Nothing but 0 is a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit code of a process."""

    DONE = 0
    REGRESSION = 1
    INTERRUPTED = 2
    """As in argparse and click for an invalid command line, and in pytest for Ctrl-C."""
    USER_ERROR = 4
    UNDECIDED = 10
    INCOMPLETE = 11
    HARNESS_ERROR = 12
    HUNG_UP = 129
    """128 + SIGHUP."""
    TERMINATED = 143
    """128 + SIGTERM."""


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "every cell holds or is known",
    ExitCode.REGRESSION: "a safety regression",
    ExitCode.INTERRUPTED: "interrupted, or a command line that cannot be read",
    ExitCode.USER_ERROR: "a mistake in options or files",
    ExitCode.UNDECIDED: "undecided",
    ExitCode.INCOMPLETE: "incomplete: a planned cell has no verdict, or a test that is no cell failed",
    ExitCode.HARNESS_ERROR: "the harness failed, or a report could not be written",
    ExitCode.HUNG_UP: "the terminal was closed",
    ExitCode.TERMINATED: "terminated",
}
"""Short description of each code."""

_ORDER = (ExitCode.REGRESSION, ExitCode.HARNESS_ERROR, ExitCode.INCOMPLETE, ExitCode.UNDECIDED)


def combined(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of a run to which several apply: 1, then 12, 11, 10; 0 if none of them does."""
    given = set(codes)
    return next((code for code in _ORDER if code in given), ExitCode.DONE)


def one_line() -> str:
    """The table as a sentence for --help."""
    rest = " · ".join(f"{code:d} {meaning}" for code, meaning in MEANINGS.items() if code is not ExitCode.DONE)
    return f"Exit codes: 0 done, and {MEANINGS[ExitCode.DONE]} where cells are judged · {rest}."
