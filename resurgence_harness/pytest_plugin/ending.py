"""How a run with cells ends whatever happens to it: SIGTERM, a terminal that goes away, a plugin that breaks.

Exit code 1 says "a safety regression", so nothing else may leave it: pytest answers a closed pipe, and Python an error
that nobody caught, with 1.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from resurgence_harness.pytest_plugin.session import Session

HARNESS_ERROR, INCOMPLETE, TERMINATED = 12, 11, 143


class Steady:
    """A terminal's file that may go away or be full: what cannot be written is left out, and the run goes on."""

    def __init__(self, file: Any) -> None:
        """Write to this file as long as it takes anything."""
        self._file, self._gone = file, False

    def write(self, text: str) -> int:
        """Write, or leave it out."""
        if not self._gone:
            try:
                return int(self._file.write(text) or 0)
            except UnicodeEncodeError:
                raise  # pytest writes it again, escaped
            except (OSError, ValueError):
                self._gone = True
        return len(text)

    def flush(self) -> None:
        """Flush, or leave it."""
        if not self._gone:
            try:
                self._file.flush()
            except (OSError, ValueError):
                self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def steady(config: pytest.Config) -> None:
    """Let pytest's terminal be one that may go away."""
    writer = getattr(config.pluginmanager.get_plugin("terminalreporter"), "_tw", None)
    file = getattr(writer, "_file", None)
    if writer is not None and file is not None and not isinstance(file, Steady):
        writer._file = Steady(file)


def flushed() -> None:
    """Flush stdout and stderr; what they do not take is thrown away, so that Python does not fail over it at exit."""
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
    """The exit code of a run with cells out of which something broke; told on stderr, with its traceback."""
    code = session.broke(error)
    if not isinstance(error, KeyboardInterrupt):
        with suppress(OSError, ValueError):
            traceback.print_exception(error)
    session.tell()
    return code


def code_of(session: Session, code: int) -> int:
    """The exit code of a run for which pytest, or a plugin after us, says `code`."""
    if not session.involved:
        return code
    if session.settled is None:  # pytest showed something and judged nothing
        return INCOMPLETE if session.gate and code == 0 else code
    return session.settled or {0: 0, 1: INCOMPLETE}.get(code, code)
