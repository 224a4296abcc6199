"""stdout and stderr that never raise: failed output changes no verdict.

    a character missing in the encoding      is printed as its escape: "\\u2192"
    a closed reader (| head, a closed        the rest is discarded, the command continues, its code is unchanged
      terminal, a stream closed by >&-)
    a full disk                              the same, and the code is 12 unless it is 1

A stream that was closed before the process began leaves its descriptor free, and the next opened file would receive
the output; such a descriptor is opened on the null device first.
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
"""Errors if the reader has closed the stream; a closed terminal gives EIO."""


class Stream:
    """A text stream whose failures are recorded and never raised; everything else is forwarded to the stream."""

    def __init__(self, stream: Any) -> None:
        """`stream` is a text stream as sys.stdout is."""
        self._stream = stream
        self._device = _is_device(stream)
        self.failure: OSError | None = None
        """Why output was lost that a reader may need: a full or broken disk."""
        self._lost = False

    def write(self, text: str) -> int:
        """Write; returns the number of characters, lost or not."""
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
        """Discard all further output, and what is still buffered."""
        self._lost = True
        left = isinstance(error, ValueError) or error.errno in _LEFT or (error.errno == errno.EIO and self._device)
        self.failure = None if left or not isinstance(error, OSError) else error
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        with suppress(OSError, ValueError):
            self._stream.flush()  # otherwise the interpreter tries it at exit, and exits with 120

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


class Streams:
    """stdout and stderr of a process."""

    def __init__(self) -> None:
        """Replace sys.stdout and sys.stderr."""
        self._before = (sys.stdout, sys.stderr)
        self.out, self.err = _taken(sys.stdout), _taken(sys.stderr)
        sys.stdout, sys.stderr = self.out, self.err

    def finished(self, code: ExitCode) -> ExitCode:
        """Flush both; returns the code, which is 12 if stdout could not be written."""
        self.out.flush()
        if self.out.failure is not None and code not in (ExitCode.USER_ERROR, ExitCode.INTERRUPTED):
            reason = self.out.failure.strerror or self.out.failure
            print(f"resurgence: Not everything could be printed: {reason}.", file=self.err)
            code = combined([code, ExitCode.HARNESS_ERROR]) if code < ExitCode.HUNG_UP else code
        self.err.flush()
        return code

    def give_back(self) -> None:
        """Restore the previous streams."""
        sys.stdout, sys.stderr = self._before


@contextmanager
def robust() -> Iterator[Streams]:
    """Context in which printing never raises."""
    _fill_closed()
    _remove_invalid_sizes()
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


def _remove_invalid_sizes() -> None:
    """Remove invalid terminal sizes from the environment: libraries read them without a check."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        value = os.environ.get(name)
        if value is not None and not (value.isascii() and value.isdecimal() and 0 < int(value[:6]) < 100_000):
            del os.environ[name]


def _is_device(stream: Any) -> bool:
    """Whether this is a character device, as a terminal is; isatty() is false for a closed terminal."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False
