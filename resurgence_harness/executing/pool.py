"""The interface of an engine, and the local one: processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from resurgence_harness.errors import ResurgenceError, UserError
from resurgence_harness.executing.builder import (
    THREADS,
    About,
    Building,
    Opening,
    Seen,
    Stopped,
    share_cores,
    use_one_thread,
)
from resurgence_harness.executing.jobs import Done, Order
from resurgence_harness.process import unforeseen

GRACE = 30.0
"""Seconds in which a stopped worker must have left its build."""
IMPORTED = (
    "torch",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.schedulers.scheduling_ddim",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
    "resurgence_harness.bench",
    "resurgence_harness.diffusion.model",
    "resurgence_harness.judging",
    "resurgence_harness.sampling",
)
"""What a process imports to sample images, several seconds of one core; workers that are forked share it."""


class Joined(NamedTuple):
    """A worker is ready."""

    worker: str
    about: About


class Refused(NamedTuple):
    """A worker could not be made ready, and neither could another one in its place."""

    worker: str
    why: str
    mistake: bool
    """Whether it is the user's."""


class Finished(NamedTuple):
    """A worker has done its job and is free."""

    worker: str
    done: Done


class Lost(NamedTuple):
    """A worker has died; another one may join in its place."""

    worker: str
    why: str


class Showing(NamedTuple):
    """What a worker does now."""

    worker: str
    seen: Seen


Event = Joined | Refused | Finished | Lost | Showing


class Pool(Protocol):
    """Workers that build, one job each at a time: processes, or actors of a cluster."""

    name: str
    """For messages: "2 processes", "Ray on 3 nodes"."""

    @property
    def expected(self) -> int:
        """How many workers there will be when all have joined."""

    def start(self) -> None:
        """Start the workers; they join later. UserError if there can be none."""

    def submit(self, worker: str, order: Order) -> None:
        """Give a free worker a job."""

    def events(self, seconds: float) -> list[Event]:
        """What happened, after at most this time."""

    def leave(self, worker: str) -> None:
        """Stop a worker that is not needed."""

    def close(self) -> None:
        """Stop every worker; one that builds leaves no incomplete artifact."""


class LocalPool:
    """Processes of this machine; with GPUs each sees one of them, in turn."""

    def __init__(self, opening: Opening, *, workers: int, gpus: tuple[str, ...] = (), one_thread: bool = False) -> None:
        """Nothing is started yet.

        `one_thread`: for workers without a GPU. Each uses one thread of torch, whatever the environment sets, and on
        Linux all are forks of one process that has imported torch and started no thread, so that the imports cost time
        and memory once.
        """
        self.name = f"{workers} process{'' if workers == 1 else 'es'}"
        self._opening, self._workers, self._gpus = opening, workers, gpus
        self._one_thread = one_thread
        self._forked = one_thread and sys.platform == "linux"
        self._context: Any = multiprocessing.get_context("forkserver" if self._forked else "spawn")
        self._processes: dict[str, Any] = {}
        self._connections: dict[str, Connection] = {}
        self._number = 0

    @property
    def expected(self) -> int:
        """As many as were asked for."""
        return self._workers

    def start(self) -> None:
        """Start the processes."""
        if self._forked:
            preload()
        for place in range(self._workers):
            self._begin(place)

    def _begin(self, place: int) -> None:
        gpu = self._gpus[place % len(self._gpus)] if self._gpus else None
        name = f"worker {self._number}" + (f" on GPU {gpu}" if gpu is not None else "")
        self._number += 1
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._opening, self._workers, gpu, self._one_thread, dict(os.environ)),
            name=name,
            daemon=True,
        )
        process.start()
        theirs.close()
        self._processes[name], self._connections[name] = process, ours

    def submit(self, worker: str, order: Order) -> None:
        """Send the order; a process that has just died is reported by `events`."""
        with suppress(OSError):
            self._connections[worker].send(order)

    def events(self, seconds: float) -> list[Event]:
        """Read what the processes sent."""
        of = {connection: name for name, connection in self._connections.items()}
        found: list[Event] = []
        for one in wait(list(of), timeout=seconds):
            assert isinstance(one, Connection)
            name = of[one]
            try:
                sent = one.recv()
            except (EOFError, OSError):
                found.append(Lost(name, self._ending(name)))
                self._begin(len(self._processes))
                continue
            found.append(sent._replace(worker=name))
        return found

    def _ending(self, name: str) -> str:
        process = self._processes.pop(name)
        self._connections.pop(name).close()
        process.join(GRACE)
        code = process.exitcode
        return f"the process ended with {signal.Signals(-code).name if code is not None and code < 0 else code}"

    def leave(self, worker: str) -> None:
        """End one process."""
        self._end([worker])

    def close(self) -> None:
        """Ask every process to stop, then kill those that do not."""
        self._end(list(self._processes))

    def _end(self, names: list[str]) -> None:
        ending = [self._processes.pop(name) for name in names if name in self._processes]
        for process in ending:
            with suppress(OSError, ValueError):
                process.terminate()
        until = time.monotonic() + GRACE
        for process in ending:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for name in names:
            if (connection := self._connections.pop(name, None)) is not None:
                connection.close()


def preload() -> None:
    """Start the process of which workers with one thread are forks, unless it runs; it imports torch meanwhile.

    It starts no threads, which would not survive a fork, and ends with this process. Linux only.
    """
    if sys.platform != "linux":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(list(IMPORTED))
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(
    connection: Connection, opening: Opening, workers: int, gpu: str | None, one_thread: bool, environ: dict[str, str]
) -> None:
    """A worker process: ready, then one job after the other until the driver is gone or ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to every process; the driver decides
    signal.signal(signal.SIGTERM, _unwind)
    os.environ.clear()
    os.environ.update(environ)  # a fork has the environment of the first gate of this driver
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if one_thread:
        use_one_thread()
    else:
        share_cores(workers)
    with suppress(Stopped, EOFError, OSError):
        builder = _opened(connection, opening)
        if builder is not None:
            _work(connection, builder)


def _opened(connection: Connection, opening: Opening) -> Building | None:
    start = time.monotonic()
    try:
        builder = opening()
    except ResurgenceError as error:
        connection.send(Refused("", str(error), isinstance(error, UserError)))
    except Exception as error:
        connection.send(Refused("", unforeseen.recorded(error), False))
    else:
        connection.send(Joined("", builder.about._replace(seconds=round(time.monotonic() - start, 3))))
        return builder
    return None


def _work(connection: Connection, builder: Building) -> None:
    send: Callable[[Any], None] = connection.send
    shown = 0.0

    def show(seen: Seen) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 1.0:
            shown = time.monotonic()
            send(Showing("", seen))

    builder.on_progress = show
    while True:
        send(Finished("", builder.build(connection.recv())))


def _unwind(number: int, frame: object) -> None:
    raise Stopped
