"""How a run with cells ends whatever happens to it: SIGTERM, a terminal that goes away, a plugin that breaks.

Exit code 1 says "a safety regression", so nothing else may leave it: pytest answers a closed pipe, and Python an error
that nobody caught, with 1.
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
"""Codes that say more than that something could not be printed."""


def opened() -> None:
    """Give a process whose stdout or stderr was closed before it began one that throws everything away."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def steady(config: pytest.Config) -> None:
    """Let pytest's terminal be one that may go away or be full: the run goes on, and its files are written."""
    from resurgence_harness.process.output import Stream

    writer = getattr(config.pluginmanager.get_plugin("terminalreporter"), "_tw", None)
    file = getattr(writer, "_file", None)
    if writer is not None and file is not None and not isinstance(file, Stream):
        with suppress(AttributeError, OSError, ValueError):
            file.reconfigure(errors="backslashreplace")
        writer._file = Stream(file)


def unprinted(config: pytest.Config) -> str:
    """Why the terminal lost what was to be printed, where it was full; else empty."""
    file = getattr(getattr(config.pluginmanager.get_plugin("terminalreporter"), "_tw", None), "_file", None)
    if file is not None:
        with suppress(OSError, ValueError):
            file.flush()
    failure = getattr(file, "failure", None)
    return str(failure.strerror or failure) if failure is not None else ""


def flushed() -> None:
    """Flush stdout and stderr; what they do not take is thrown away, so that Python does not fail over it at exit."""
    opened()  # pytest's capture puts back what was there
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Terminated:
    """SIGTERM ends the run as pytest.exit() would, with 143: workers are stopped, folders removed, results written."""

    def __init__(self, session: Session) -> None:
        """Nothing is changed before `arm`."""
        self._session, self._armed = session, False
        self.nodes: list[Any] = []
        """xdist's workers."""

    def arm(self) -> None:
        """Listen to SIGTERM, unless somebody does already or this is not the main thread."""
        if self._armed or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._heard)
            self._armed = True

    def disarm(self) -> None:
        """Leave SIGTERM as it was."""
        if self._armed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._armed = False

    def deaf(self) -> None:
        """A second SIGTERM does not disturb what is being written."""
        if self._armed:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._session.terminated = True
        for node in self.nodes:
            with suppress(Exception):  # execnet's own process object; one on another machine has none
                node.gateway._io.popen.terminate()
        pytest.exit("ended by SIGTERM", returncode=TERMINATED)


def after(session: Session, error: BaseException) -> int:
    """The exit code of a run with cells out of which something broke; told on stderr, its traceback kept in a file."""
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
    """The exit code of a run for which pytest, or a plugin after us, says `code`."""
    if not session.involved:
        return code
    if session.settled is None:  # pytest showed something and judged nothing
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
