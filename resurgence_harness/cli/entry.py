"""The entry point of the `resurgence` command. Modules whose import can fail are imported when it runs."""

from __future__ import annotations

import sys
from typing import NoReturn

from resurgence_harness.process import guarded


def main() -> NoReturn:
    """Run the `resurgence` command: a user's mistake gives one message without a traceback; exit code 1 only means a
    regression."""
    guarded(_command)


def _command() -> object:
    from resurgence_harness.cli.commands import run

    return run(sys.argv[1:])
