"""How a run with cells ends after SIGTERM, a closed terminal, or an error in a plugin.

Exit code 1 means a safety regression, so nothing else may cause it: pytest would exit with 1 for a closed pipe, and
Python for an uncaught error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.session import Session

INCOMPLETE, HARNESS_ERROR, TERMINATED = 11, 12, 143
KEPT = (1, 2, 3, 4, HARNESS_ERROR, TERMINATED)
"""Codes that take precedence over the code for output that could not be printed."""


def opened() -> None:
    """Open stdout and stderr on the null device if they were closed before the process began."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def steady(config: pytest.Config) -> None:
    """Wrap pytest's terminal so that a closed pipe or a full disk does not end the run before its files are written."""
    from resurgence_harness.process.output import Stream

    writer = getattr(config.pluginmanager.get_plugin("terminalreporter"), "_tw", None)
    file = getattr(writer, "_file", None)
    if writer is not None and file is not None and not isinstance(file, Stream):
        with suppress(AttributeError, OSError, ValueError):
            file.reconfigure(errors="backslashreplace")
        writer._file = Stream(file)


def unprinted(config: pytest.Config) -> str:
    """Why output to the terminal was lost (a full disk); empty if none was lost."""
    file = getattr(getattr(config.pluginmanager.get_plugin("terminalreporter"), "_tw", None), "_file", None)
    if file is not None:
        with suppress(OSError, ValueError):
            file.flush()
    failure = getattr(file, "failure", None)
    return str(failure.strerror or failure) if failure is not None else ""


def flushed() -> None:
    """Flush stdout and stderr; output that cannot be written is discarded, so that Python does not fail at exit."""
    opened()  # pytest's capture restores the original streams
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Terminated:
    """Makes SIGTERM end the run like pytest.exit(), with 143: workers stop, folders are removed, results written."""

    def __init__(self, session: Session) -> None:
        """The handler is installed by `arm`."""
        self._session, self._armed = session, False
        self.nodes: list[Any] = []
        """xdist's workers."""

    def arm(self) -> None:
        """Install the handler, unless SIGTERM is handled already or this is not the main thread."""
        if self._armed or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)
            self._armed = True

    def disarm(self) -> None:
        """Restore the default handler."""
        if self._armed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._armed = False

    def ignore_further(self) -> None:
        """Ignore further SIGTERMs while results are written."""
        if self._armed:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._session.terminated = True
        for node in self.nodes:
            with suppress(Exception):  # execnet's own process object; one on another machine has none
                node.gateway._io.popen.terminate()
        pytest.exit("ended by SIGTERM", returncode=TERMINATED)


def after(session: Session, error: BaseException) -> int:
    """The exit code after an unexpected error in a run with cells; prints the error, saves its traceback to a file."""
    from resurgence_harness.process.unforeseen import keep_in, recorded

    message = "Interrupted."
    if not isinstance(error, KeyboardInterrupt):
        with suppress(Exception):
            keep_in(session.options.out)
        message = recorded(error)
    code = session.broke(error)
    with suppress(OSError, ValueError):
        print(f"resurgence: {message}", file=sys.stderr)
    return code


def code_of(config: pytest.Config, session: Session, code: int) -> int:
    """The final exit code of a run for which pytest, or another plugin, returned `code`."""
    if not session.involved:
        return code
    if session.settled is None:  # nothing was run, for example with --collect-only
        if code or not session.gate:
            return code
        session.settled = INCOMPLETE
        session.print_closing()
        return INCOMPLETE
    code = session.settled or {0: 0, 1: INCOMPLETE}.get(code, code)
    if code not in KEPT and (reason := unprinted(config)):
        with suppress(OSError, ValueError):
            print(f"resurgence: Not everything could be printed: {reason}.", file=sys.stderr)
        return HARNESS_ERROR
    return code
