"""Every command of the package runs inside `guarded`, which turns every way to end into the right exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.process import output, signals, unforeseen
from resurgence_harness.process.exit_codes import ExitCode


def guarded(main: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its code; raises SystemExit and nothing else.

    `main` returns an ExitCode, or None for 0. Anything else, such as a library's sys.exit(1) or a plain 1, which is no
    verdict, ends with 12.
    """
    code = ExitCode.HARNESS_ERROR
    try:
        with output.robust() as streams:
            with signals.raised():
                code = _code(main)
            code = streams.finished(code)
    except KeyboardInterrupt:  # a second one, while the first is handled
        code = signals.stopped() or ExitCode.INTERRUPTED
    raise SystemExit(int(code))


def _code(main: Callable[[], object]) -> ExitCode:
    unforeseen.forget_folder()
    try:
        _check_folder()
        result = main()
        if signals.stopped() is None:
            return _named(result)
        message = ""
    except UserError as error:
        code, message = ExitCode.USER_ERROR, str(error)
    except HarnessError as error:
        code, message = ExitCode.HARNESS_ERROR, str(error)
    except KeyboardInterrupt:
        code, message = ExitCode.INTERRUPTED, "Interrupted; this is no verdict on any model."
    except BaseException as error:
        code, message = _unforeseen(error)
    stopped = signals.stopped()
    if stopped is not None:
        code, message = stopped, "Stopped by a signal; this is no verdict on any model."
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.HUNG_UP):
        signals.end_children()
    print(f"resurgence: {message}", file=sys.stderr)
    return code


def _unforeseen(error: BaseException) -> tuple[ExitCode, str]:
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # from pathlib, when "~" is expanded
        return ExitCode.USER_ERROR, sentence(
            "There is no home directory, and a path below it is needed.",
            reason=error,
            do="Set HOME, or write every path in full: --store DIR, and no ~.",
        )
    if signals.stopped() is not None:
        return ExitCode.HARNESS_ERROR, ""
    return ExitCode.HARNESS_ERROR, unforeseen.recorded(error)


def _named(result: object) -> ExitCode:
    """The code for a command's return value."""
    if result is None:
        return ExitCode.DONE
    if isinstance(result, ExitCode):
        return result
    raise SystemExit(f"{result!r} is not an exit code of a command")


def _check_folder() -> None:
    """UserError if the working directory was removed: every relative path would fail."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            sentence(
                "The working directory does not exist any more.",
                reason=error.strerror,
                do="Change into an existing folder, and run the command again.",
            )
        ) from None
