"""stdout and stderr that never raise: what cannot be printed changes no verdict.

    a character that the encoding lacks      is printed as its escape: "\\u2192"
    a reader that left (| head, a closed     the rest is thrown away, the command goes on, its code stays
      terminal, a stream closed by >&-)
    a disk that is full                      the same, and the code is 12 unless it is 1

A stream that was closed before the process began leaves its descriptor free, and the next file opened would receive
what is printed; such a descriptor is opened on the null device first.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from resurgence_harness.process.exit_codes import ExitCode, combined

_LEFT = {errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.EBADF, errno.ENXIO}
"""What the system says where nobody is reading any more; a terminal that went away says EIO."""


class Stream:
    """A text stream whose failures are kept and never raised; everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        """`stream` is a text stream as sys.stdout is."""
        self._stream = stream
        self._device = _is_device(stream)
        self.failure: OSError | None = None
        """Why text was lost that somebody may have wanted: a full or broken disk."""
        self._lost = False

    def write(self, text: str) -> int:
        """Write; gives the number of characters, lost or not."""
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write every line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what is buffered."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: OSError | ValueError) -> None:
        """From here on everything is thrown away, what is still buffered included."""
        self._lost = True
        left = isinstance(error, ValueError) or error.errno in _LEFT or (error.errno == errno.EIO and self._device)
        self.failure = None if left or not isinstance(error, OSError) else error
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        with suppress(OSError, ValueError):
            self._stream.flush()  # else the interpreter tries it at its end, and leaves with 120

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


class Streams:
    """Both streams of a process."""

    def __init__(self) -> None:
        """Take over sys.stdout and sys.stderr as they are."""
        self._before = (sys.stdout, sys.stderr)
        self.out, self.err = _taken(sys.stdout), _taken(sys.stderr)
        sys.stdout, sys.stderr = self.out, self.err

    def finished(self, code: ExitCode) -> ExitCode:
        """Flush both; gives the code, which is 12 where stdout could not be written."""
        self.out.flush()
        if self.out.failure is not None and code not in (ExitCode.USER_ERROR, ExitCode.INTERRUPTED):
            reason = self.out.failure.strerror or self.out.failure
            print(f"resurgence: Not everything could be printed: {reason}.", file=self.err)
            code = combined([code, ExitCode.HARNESS_ERROR]) if code < ExitCode.HUNG_UP else code
        self.err.flush()
        return code

    def give_back(self) -> None:
        """Put the streams back that were there before."""
        sys.stdout, sys.stderr = self._before


@contextmanager
def robust() -> Iterator[Streams]:
    """Inside, printing never raises."""
    _fill_closed()
    _forget_nonsense()
    streams = Streams()
    try:
        yield streams
    finally:
        streams.give_back()


def _taken(stream: Any) -> Stream:
    with suppress(AttributeError, OSError, ValueError):  # a test's own stream need not be a TextIOWrapper
        stream.reconfigure(errors="backslashreplace")
    return Stream(stream)


def _fill_closed() -> None:
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - lives as long as the process
            setattr(sys, name, stream)
            if getattr(sys, f"__{name}__") is None:
                setattr(sys, f"__{name}__", stream)


def _forget_nonsense() -> None:
    """Sizes of the terminal that are no numbers: libraries read them without asking."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        value = os.environ.get(name)
        if value is not None and not (value.isascii() and value.isdecimal() and 0 < int(value[:6]) < 100_000):
            del os.environ[name]


def _is_device(stream: Any) -> bool:
    """Whether this is a character device, as a terminal is; one that went away says that it is no terminal."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False
