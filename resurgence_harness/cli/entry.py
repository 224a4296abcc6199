"""The way into the `resurgence` command. What can fail while it is imported is imported when it runs."""

from __future__ import annotations

import sys
from typing import NoReturn

from resurgence_harness.process import guarded


def main() -> NoReturn:
    """The `resurgence` command: a person's mistake is one message without a traceback, and 1 is a regression."""
    guarded(_command)


def _command() -> object:
    from resurgence_harness.cli.commands import run

    return run(sys.argv[1:])
