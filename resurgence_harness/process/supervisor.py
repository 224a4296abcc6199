"""A program that runs one command and ends it, with its whole process group, when it must not run any longer.

    python -I -S supervisor.py LIFELINE STATUS SECONDS BYTES COMMAND…

LIFELINE and STATUS are file descriptors. The command is ended when the other end of LIFELINE is closed, which the
system does when the process that started all this ends for whatever reason, kill -9 included; after SECONDS; and when
its output, a file, has more than BYTES. One line on STATUS says how it ended: "ended CODE" (negative: by that signal),
"limit", "output", "stopped", or "not started: REASON". Uses the standard library alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""
PAUSE = 0.05
"""Seconds between two checks."""


def main() -> None:
    """Run it."""
    lifeline, status = int(sys.argv[1]), int(sys.argv[2])
    seconds, most, command = float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        child = subprocess.Popen(command, start_new_session=True)
    except (OSError, ValueError) as problem:
        os.write(status, f"not started: {getattr(problem, 'strerror', None) or problem}".encode())
        return
    end, outcome = time.monotonic() + seconds, ""
    while child.poll() is None and not outcome:
        with suppress(InterruptedError):
            if select.select([lifeline], [], [], PAUSE)[0]:
                outcome = "stopped"
        if stopped:
            outcome = "stopped"
        elif time.monotonic() > end:
            outcome = "limit"
        elif os.fstat(1).st_size > most:
            outcome = "output"
    if outcome:
        _signal(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    _signal(child.pid, signal.SIGKILL)  # whatever the command has left running
    code = child.wait()
    with suppress(OSError):  # nobody may read it any more
        os.write(status, (outcome or f"ended {code}").encode())


def _signal(group: int, number: int) -> None:
    with suppress(OSError):  # the group is empty
        os.killpg(group, number)


if __name__ == "__main__":
    main()
