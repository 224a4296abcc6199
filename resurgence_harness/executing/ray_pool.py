"""The engine on a Ray cluster: one actor per GPU, or per CPU slot, that keeps its models loaded.

    driver ──order: key, cell, label──▶ actor ──▶ store        nothing but these values passes through Ray

Ray Core alone is used: actors with names, tasks with the artifact's label as their name, and resources. Actors end with
the driver. An actor that dies, or whose node is lost, is replaced by a new one, which Ray places where there is room.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import ResurgenceError, UserError, sentence, shown
from resurgence_harness.executing.builder import Building, Opening, Seen, Stopped
from resurgence_harness.executing.jobs import Done, Order
from resurgence_harness.executing.pool import GRACE, Event, Finished, Joined, Lost, Refused, Showing
from resurgence_harness.process import unforeseen
from resurgence_harness.process.commands import is_secret

if TYPE_CHECKING:
    from types import ModuleType

ANSWER = 5.0
"""Seconds in which a cluster's address must answer."""
POLL = 2.0
"""Seconds between two questions to an actor for its progress."""
GROWTH = 15.0
"""Seconds between two looks for nodes that have joined the cluster."""
CONTROL = "control"
"""Concurrency group of the calls that an actor answers while it builds."""
OWN_STORE = 256 * 2**20
"""Bytes of Ray's object store if this process starts Ray itself: only keys and small values pass through it."""


class Resources:
    """What each actor gets of its node."""

    def __init__(self, *, workers: int | None = None, cpus: float = 1, memory: float | None = None) -> None:
        """`workers`: how many actors, None for all that fit; `cpus` and `memory` (GiB) of each, as Ray counts them.

        UserError for numbers that are not positive.
        """
        for option, value in (("--workers", workers), ("--cpus", cpus), ("--memory", memory)):
            if value is not None and value <= 0:
                raise UserError(sentence(f"{option} is {value}.", do="Give a number above 0."))
        self.workers, self.cpus, self.memory = workers, cpus, memory


class RayWorker:
    """The actor."""

    def __init__(self, opening: Opening, name: str, folder: str) -> None:
        """Nothing is loaded yet; `folder` is the driver's, used where the node has it and Ray gave no other one."""
        self._opening, self._name, self._began = opening, name, time.monotonic()
        if os.path.isdir(folder) and "working_dir" not in _runtime_environment():
            os.chdir(folder)
        self._builder: Building | None = None

    def open(self) -> Joined | Refused:
        """Make it ready; the result says what this worker is."""
        try:
            self._builder = self._opening()
        except ResurgenceError as error:
            return Refused(self._name, f"On {socket.gethostname()}: {error}", isinstance(error, UserError))
        except Exception as error:
            return Refused(self._name, f"On {socket.gethostname()}: {unforeseen.recorded(error)}", False)
        return Joined(self._name, self._builder.about._replace(seconds=round(time.monotonic() - self._began, 3)))

    def build(self, order: Order) -> Done:
        """Build one artifact."""
        assert self._builder is not None
        try:
            return self._builder.build(order)
        except Stopped:
            return Done(order.key, "stopped", "stopped")

    def seen(self) -> Seen:
        """The present job and its progress; answered while it builds."""
        return self._builder.seen if self._builder is not None else Seen("opens the suite", 0, 0)

    def stop(self) -> None:
        """End the present build at its next step; answered while it builds."""
        if self._builder is not None:
            self._builder.stop()

    def __repr__(self) -> str:
        return f"resurgence {self._name}"


class RayPool:
    """Actors on a Ray cluster."""

    def __init__(self, opening: Opening, *, address: str | None, device: str, resources: Resources) -> None:
        """`address`: of a running cluster ("auto", "host:port"), None to start Ray here. Nothing is started yet."""
        self.name = "Ray"
        self._opening, self._address, self._device, self._resources = opening, address, device, resources
        self._ray: Any = None
        self._own = False
        self._actors: dict[str, Any] = {}
        self._refs: dict[Any, tuple[str, str]] = {}
        """What is awaited → (open, build or seen; worker)."""
        self._busy: set[str] = set()
        self._options: dict[str, Any] = {}
        self._number = 0
        self._polled = self._grown = time.monotonic()

    @property
    def expected(self) -> int:
        """Actors that are started."""
        return len(self._actors)

    def start(self) -> None:
        """Connect to the cluster and start the actors.

        UserError if Ray is not installed, the cluster does not answer, or no actor fits into it.
        """
        self._ray = ray = _imported()
        if not ray.is_initialized():
            _connect(ray, self._address)
            self._own = True
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        on_gpu = self._device.startswith("cuda") or (self._device == "auto" and gpus > 0)
        self._options = self._demand(on_gpu=on_gpu)
        number = self._room(has)
        if number < 1:
            raise UserError(
                sentence(
                    "The Ray cluster has no room for a worker.",
                    a_worker_needs=_described(self._options),
                    the_cluster_has=_described({"num_gpus": gpus, "num_cpus": has.get("CPU", 0)}),
                    do="Add nodes, or ask for less with --cpus, --memory or --resurgence-device=cpu.",
                )
            )
        self.name = f"Ray on {len(ray.nodes())} node{'' if len(ray.nodes()) == 1 else 's'}"
        for _ in range(number):
            self._begin()

    def submit(self, worker: str, order: Order) -> None:
        """Call the actor; the task has the artifact's label as its name."""
        ref = self._actors[worker].build.options(name=shown(order.label)).remote(order)
        self._refs[ref] = ("build", worker)
        self._busy.add(worker)

    def events(self, seconds: float) -> list[Event]:
        """Results, lost actors and progress."""
        self._ask_for_progress()
        self._grow()
        ready = self._ready(seconds)
        found: list[Event] = []
        for ref in ready:
            what, worker = self._refs.pop(ref)
            if worker not in self._actors:
                continue
            try:
                result = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                if what == "seen":
                    continue  # the build's own result says it as well
                found.append(self._replaced(worker, what, error))
                continue
            if what == "build":
                self._busy.discard(worker)
            wrapped = {"build": Finished, "seen": Showing}.get(what)
            found.append(wrapped(worker, result) if wrapped is not None else result)
        return found

    def leave(self, worker: str) -> None:
        """End one actor."""
        actor = self._actors.pop(worker)
        self._busy.discard(worker)
        self._ray.kill(actor)

    def close(self) -> None:
        """Stop the builds, end the actors, and Ray if it was started here."""
        if self._ray is None or not self._ray.is_initialized():
            return
        with suppress(Exception):  # a cluster that is gone has no actors left
            for worker in self._busy & self._actors.keys():
                self._actors[worker].stop.options(concurrency_group=CONTROL).remote()
            building = [ref for ref, (what, worker) in self._refs.items() if what == "build" and worker in self._busy]
            if building:
                self._ray.wait(building, num_returns=len(building), timeout=GRACE, fetch_local=False)
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)
        self._actors.clear()
        self._refs.clear()
        if self._own:
            self._ray.shutdown()

    # Actors

    def _demand(self, *, on_gpu: bool) -> dict[str, Any]:
        """Ray's options for one actor."""
        own = self._resources
        found: dict[str, Any] = {"num_cpus": own.cpus, "num_gpus": 1 if on_gpu else 0}
        if own.memory is not None:
            found["memory"] = int(own.memory * 2**30)
        return found

    def _room(self, has: Mapping[str, float]) -> int:
        """How many actors fit into a cluster with these resources."""
        needs = self._options
        counts = [
            has.get(name, 0) / needs[option]
            for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory"))
            if needs.get(option)
        ]
        return min(int(min(counts)), self._resources.workers or 10**6)

    def _begin(self) -> None:
        name = f"worker {self._number}"
        self._number += 1
        threads = {"OMP_NUM_THREADS": str(max(1, int(self._resources.cpus)))}
        actor = (
            self._ray.remote(concurrency_groups={CONTROL: 1})(RayWorker)
            .options(
                name=name,
                max_restarts=0,
                runtime_env={"env_vars": {**threads, **_settings()}},
                **self._options,
            )
            .remote(self._opening, name, os.getcwd())
        )
        self._actors[name] = actor
        self._refs[actor.open.remote()] = ("open", name)

    def _replaced(self, worker: str, what: str, error: Exception) -> Event:
        """A lost actor, with a new one in its place; or the mistake that no new one would mend."""
        actor = self._actors.pop(worker)
        self._busy.discard(worker)
        with suppress(Exception):
            self._ray.kill(actor)
        why = _reason(error)
        if what == "open" and "No module named" in str(error):
            first = "A node of the cluster does not have resurgence-harness, or not this version of it."
            do = "Install the same version on every node, or give it in the runtime environment (docs/scale.md)."
            return Refused(worker, sentence(first, reason=why, do=do), True)
        self._begin()
        return Lost(worker, why)

    def _ask_for_progress(self) -> None:
        if time.monotonic() - self._polled < POLL:
            return
        self._polled = time.monotonic()
        asked = {worker for what, worker in self._refs.values() if what == "seen"}
        for worker in self._busy - asked:
            self._refs[self._actors[worker].seen.options(concurrency_group=CONTROL).remote()] = ("seen", worker)

    def _grow(self) -> None:
        """Start actors for nodes that have joined since."""
        if time.monotonic() - self._grown < GROWTH:
            return
        self._grown = time.monotonic()
        for _ in range(self._room(self._ray.cluster_resources()) - len(self._actors)):
            self._begin()

    def _ready(self, seconds: float) -> list[Any]:
        refs = list(self._refs)
        if not refs:
            time.sleep(min(seconds, 0.1))
            return []
        first, _ = self._ray.wait(refs, num_returns=1, timeout=seconds, fetch_local=False)
        if not first:
            return []
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        return list(ready)


def _imported() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            sentence(
                "Ray is not installed.",
                reason=error,
                do='pip install "resurgence-harness[ray]", here and on every node; or build without --engine ray.',
            )
        ) from None
    return ray  # type: ignore[no-any-return,unused-ignore]


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start Ray here. UserError if nobody answers, or with another version."""
    if address is not None:
        _check_address(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if address is None and not os.environ.get("RAY_ADDRESS"):
        address = "local"  # else Ray would join whatever cluster runs on this machine
    own = {"object_store_memory": OWN_STORE} if address == "local" else {}
    try:
        ray.init(address=address, namespace=f"resurgence-{uuid.uuid4().hex[:8]}", **own, **quiet)
    except (ConnectionError, TimeoutError, OSError) as error:
        raise _unanswered(address or os.environ["RAY_ADDRESS"], error) from None
    except (RuntimeError, ValueError) as error:
        raise UserError(
            sentence(
                "The Ray cluster cannot be used from here.",
                address=address or os.environ["RAY_ADDRESS"],
                reason=_reason(error),
                do="Use the same versions of Ray and Python on every node and here.",
            )
        ) from None


def _check_address(address: str) -> None:
    """UserError for an address of Ray Client, and for one at which nobody listens."""
    if "://" in address:
        raise UserError(
            sentence(
                f'The address "{address}" is not that of a cluster\'s head.',
                do="Start the build on the cluster with `ray job submit` (docs/scale.md), or give --address HOST:PORT.",
            )
        )
    host, _, port = address.rpartition(":")
    if address in ("auto", "local") or not port.isdecimal():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER):
            pass
    except (OSError, OverflowError) as error:
        raise _unanswered(address, error) from None


def _unanswered(address: str, error: BaseException) -> UserError:
    return UserError(
        sentence(
            f"No Ray cluster answers at {address}.",
            reason=_reason(error),
            do="Start one with `ray start --head`, check the address, or leave out --address to start Ray here.",
        )
    )


def _settings() -> dict[str, str]:
    """The options of this package in the environment, except secrets: Ray shows these variables in its dashboard."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RESURGENCE_") and not is_secret(name.removeprefix("RESURGENCE_"), value)
    }


def _runtime_environment() -> Mapping[str, Any]:
    """The runtime environment of this actor."""
    import ray

    with suppress(Exception):
        return ray.get_runtime_context().runtime_env  # type: ignore[no-any-return,unused-ignore]
    return {}


def _described(options: Mapping[str, Any]) -> str:
    names = {"num_gpus": "GPU", "num_cpus": "CPU", "memory": "bytes of memory"}
    return ", ".join(f"{value:g} {names[name]}" for name, value in options.items() if value or name == "num_cpus")


def _reason(error: BaseException) -> str:
    """The first line of an exception that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0] if lines else type(error).__name__, limit=200)
