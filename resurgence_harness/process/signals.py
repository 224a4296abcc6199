"""SIGTERM and SIGHUP as exceptions, so that a stopped process cleans up; SIGINT is Python's own KeyboardInterrupt.

By default both end a process immediately: temporary folders and incomplete artifacts stay. Here they unwind the stack
of the main thread like Ctrl-C. A signal that is already ignored (nohup) stays ignored.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from resurgence_harness.process.exit_codes import ExitCode

_CODES = {"SIGTERM": ExitCode.TERMINATED, "SIGHUP": ExitCode.HUNG_UP}
_received: list[ExitCode] = []


class Stopped(KeyboardInterrupt):
    """A signal requests the end of the process; libraries handle it like Ctrl-C."""


def stopped() -> ExitCode | None:
    """The exit code for the first such signal; None if there was none."""
    return _received[0] if _received else None


@contextmanager
def raised() -> Iterator[None]:
    """Context in which signals raise `Stopped`; it has no effect outside of the main thread."""
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name, code in _CODES.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is None or signal.getsignal(number) is not signal.SIG_DFL:
            continue
        before[number] = signal.signal(number, _handler(code))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def for_worker() -> None:
    """In a worker process: Ctrl-C is handled by its parent, and SIGTERM ends it immediately."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _CODES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def end_children() -> None:
    """End the worker processes of a stopped command: its exit would wait for their work."""
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing is not None else ():
        with suppress(OSError, ValueError):
            child.terminate()


def _handler(code: ExitCode) -> Callable[[int, FrameType | None], None]:
    def stop(number: int, frame: FrameType | None) -> None:
        _received.append(code)
        raise Stopped(signal.Signals(number).name)

    return stop
