"""Surroundings in which a command must still say what is wrong and leave with the right code.

Each row is an environment for a policy that cannot be read: exit code 4 whatever else is odd. `started`: it matters
when Python starts, so a process of its own is needed; the others are forks of one that has imported everything.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Row:
    """One environment."""

    name: str
    env: Mapping[str, str | None] = field(default_factory=dict)
    """Variables over the usual ones; None takes one away."""
    prepare: Callable[[], object] = lambda: None
    """Called in the process before the command."""
    started: bool = False


def corpus() -> list[Row]:
    """Every row."""
    rows = [Row(name=f"{name}={value!a:.30}", env={name: value}) for name, value in _VARIABLES]
    rows += [
        Row(name=f"at the start: {name}={value}", env={name: value}, started=True) for name, value in _AT_THE_START
    ]
    rows += [Row(name=name, prepare=prepare) for name, prepare in _STATES.items()]
    assert len({row.name for row in rows}) == len(rows)
    return rows


_VARIABLES: tuple[tuple[str, str | None], ...] = (
    ("HOME", None),
    ("HOME", "/nowhere"),
    ("HOME", "/dev/null"),
    ("HOME", ""),
    ("XDG_CACHE_HOME", "/dev/null"),
    ("TMPDIR", "/nowhere"),
    ("TZ", "Nowhere/Land"),
    ("TZ", "UTC-25"),
    ("TERM", None),
    ("TERM", "dumb"),
    ("COLUMNS", "0"),
    ("COLUMNS", "-5"),
    ("COLUMNS", "many"),
    ("NO_COLOR", "1"),
    ("CI", "true"),
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_STEP_SUMMARY", "/nowhere/summary.md"),
    ("GITHUB_STEP_SUMMARY", "/dev/full"),
    ("RESURGENCE_STORE", ""),
    ("RESURGENCE_STORE", "/dev/null"),
    ("RESURGENCE_STORE", "/proc/nowhere"),
    ("HF_HOME", "/dev/null"),
    ("HF_HUB_OFFLINE", "perhaps"),
    ("PATH", ""),
    ("OMP_NUM_THREADS", "0"),
)
_AT_THE_START: tuple[tuple[str, str], ...] = (
    ("PYTHONIOENCODING", "ascii"),
    ("PYTHONIOENCODING", "cp1252"),
    ("LC_ALL", "C"),
    ("LC_ALL", "xx_XX.nothing"),
    ("PYTHONHASHSEED", "1"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
)


def _close(*descriptors: int) -> Callable[[], object]:
    return lambda: [os.close(one) for one in descriptors]


def _full(descriptor: int) -> Callable[[], object]:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)


def _broken_pipe(descriptor: int) -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, descriptor)


def _gone() -> None:
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


_STATES: dict[str, Callable[[], object]] = {
    "no input": _close(0),
    "no output": _close(1),
    "a full disk for output": _full(1),
    "a full disk for errors": _full(2),
    "a closed pipe for output": lambda: _broken_pipe(1),
    "a closed pipe for errors": lambda: _broken_pipe(2),
    "a folder that is gone": _gone,
    "no new files": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    "few descriptors": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)),
    "a mask of everything": lambda: os.umask(0o777),
    "a closed pipe that kills": lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    "no core": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
}
