"""What runs in a worker: it keeps models loaded, and builds the artifact of each order.

A suite's worker has collected the suite; a gate's (`gate.workers`) has the plans of its groups.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import resurgence_harness
from resurgence_harness.bench.provenance import DRAWING
from resurgence_harness.errors import HarnessError, Unreachable, Unwritable, UserError, sentence
from resurgence_harness.examining import wanted
from resurgence_harness.executing.capacity import cores
from resurgence_harness.executing.jobs import Done, Order, Suite
from resurgence_harness.inquiry import Asking, Inquiry, Question
from resurgence_harness.planning import Action, JudgeSpec, NothingStored, Pace, canaries_key, plan
from resurgence_harness.process import unforeseen
from resurgence_harness.storing.sealing import store_key

if TYPE_CHECKING:
    from resurgence_harness.selection import CellPlan


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""The environment variables that set the number of torch's threads, read when it is imported."""


class Stopped(BaseException):
    """The driver stops this worker; not an Exception, so that a build is unwound like by Ctrl-C."""


class About(NamedTuple):
    """What a worker is: the driver uses those that compute alike and build the same plan."""

    host: str
    hardware: str
    """The GPU's name, or the processor's."""
    versions: str
    """Of the libraries on which pixels depend."""
    package: str
    """Version of resurgence-harness."""
    plan: str
    """Digest of the models, prompts and judges of all cells."""
    sealed: str
    """Fingerprint of the store's key; empty without one."""
    seconds: float = 0.0
    """Time in which the worker was made ready."""

    @property
    def kind(self) -> str:
        """Images of workers of one kind can be compared."""
        return f"{self.hardware}, {self.versions}"


class Seen(NamedTuple):
    """What a worker does now."""

    label: str
    done: int
    total: int


class Opened(NamedTuple):
    """A suite as a process has collected it."""

    suite: Suite
    cells: Mapping[str, tuple[CellPlan, Path]]
    """By name."""


class Building(Protocol):
    """What a worker is asked to do, whatever it builds."""

    about: About
    on_progress: Callable[[Seen], None]
    """Called at every step of a build."""

    @property
    def seen(self) -> Seen:
        """The present job and its progress."""

    def build(self, order: Order) -> Done:
        """Build one artifact, or find it in the store. Raises nothing but `Stopped`."""

    def stop(self) -> None:
        """End the present build at its next step, and build nothing more; may be called from another thread."""


Opening = Callable[[], Building]
"""Makes a worker ready; it is sent to workers by name, so that they run their own code."""


class OrderBuilder(ABC):
    """Builds the artifact of one order after the other: progress, stopping, and what a failure is to the driver."""

    about: About

    def __init__(self) -> None:
        """Nothing is built yet."""
        self._seen, self._stopping = Seen("", 0, 0), False
        self.on_progress: Callable[[Seen], None] = lambda seen: None

    @property
    def seen(self) -> Seen:
        """The present job and its progress."""
        return self._seen

    def stop(self) -> None:
        """End the present build at its next step, and build nothing more; may be called from another thread."""
        self._stopping = True

    def build(self, order: Order) -> Done:
        """Build one artifact, or find it in the store. Raises nothing but `Stopped`."""
        start = time.monotonic()
        self._progress(order.label, 0, 0, None)
        try:
            canaries = self._make(order)
        except UserError as error:
            return Done(order.key, str(error), "mistake")
        except (Unwritable, Unreachable) as error:
            return Done(order.key, str(error), "store")
        except HarnessError as error:
            return Done(order.key, str(error), "failed")
        except Exception as error:
            return Done(order.key, unforeseen.recorded(error), "failed")
        finally:
            self._seen = Seen("", 0, 0)
        return Done(order.key, canaries=canaries, seconds=round(time.monotonic() - start, 3))

    @abstractmethod
    def _make(self, order: Order) -> int | None:
        """Build the artifact; of canaries, their number."""

    def _progress(self, label: str, done: int, total: int, loss: float | None) -> None:
        self._seen = Seen(label if loss is None else f"{label}, loss {loss:.4f}", done, total)
        self.on_progress(self._seen)
        if self._stopping:
            raise Stopped


class Builder(OrderBuilder):
    """Builds a suite's artifacts in one process, on its device."""

    def __init__(self, opened: Opened) -> None:
        """Check the suite's judges; loads no model."""
        super().__init__()
        self._suite, self._cells = opened
        for cell, _ in self._cells.values():
            self._suite.check_judges(cell)
        self._indices: dict[str, Index] = {}
        self._suite.bench.set_progress(self._progress)
        self.about = about(self._suite, self._cells)

    def release(self) -> None:
        """Free the loaded models."""
        self._suite.release()

    def _make(self, order: Order) -> int | None:
        if order.cell not in self._cells:
            raise unknown(order)
        cell, folder = self._cells[order.cell]
        bench = self._suite.bench
        match order.kind:
            case "cell":
                self._suite.examine(cell, folder)
            case "data":
                self._suite.check_data(cell, folder)
            case "losses":
                bench.losses(cell.tuned)
            case "canaries":
                judges = [self._suite.judge(name) for name in cell.judges]
                counted = [bench.canaries(judge)[1] for judge in judges if canaries_key(judge) == order.key]
                if not counted:
                    raise unknown(order)
                return counted[0]
            case _:
                self._build(self._action(order))
        return None

    def _build(self, action: Action) -> None:
        bench = self._suite.bench
        assert action.recipe is not None
        if action.judge is not None and action.probe is not None:
            bench.evidence(action.recipe, action.probe, self._suite.judge(action.judge.name))
        elif action.probe is not None:
            bench.drawn(action.recipe, action.probe)
        else:
            bench.checkpoint(action.recipe)

    def _action(self, order: Order) -> Action:
        if order.cell not in self._indices:
            cell = self._cells[order.cell][0]
            self._indices[order.cell] = Index(cell, [self._suite.judge(name) for name in cell.judges])
        found = self._indices[order.cell].find(order.key)
        if found is None:
            raise unknown(order)
        return found


class Index:
    """The artifacts of one cell by key, found block after block; independent of what the store has."""

    def __init__(self, cell: Asking, judges: Sequence[JudgeSpec]) -> None:
        """`judges` in the order of the plan's."""
        self._cell, self._judges = cell, judges
        self._actions: dict[str, Action] = {}
        self._questions = self._ordered()

    def find(self, key: str) -> Action | None:
        """The action that builds a key; None for a key that is not of this cell."""
        while key not in self._actions:
            question = next(self._questions, None)
            if question is None:
                return None
            evidence = wanted(self._cell, Inquiry(self._cell), [question], self._judges)
            found = plan(NothingStored(), evidence, pace=Pace(NothingStored())).actions
            self._actions |= {action.key: action for action in found}
        return self._actions[key]

    def _ordered(self) -> Iterator[Question]:
        """Every block of every arm, the first ones first."""
        arms = self._cell.arms
        for number in range(max(arm.grid.blocks for arm in arms.values())):
            yield from (Question(name, number) for name, arm in arms.items() if number < arm.grid.blocks)


def about(suite: Suite, cells: Mapping[str, tuple[CellPlan, Path]]) -> About:
    """This process: its hardware, versions, and the plan that it has collected."""
    planned = {name: (cell, [suite.judge(one) for one in cell.judges]) for name, (cell, _) in cells.items()}
    return about_process(suite.bench.device, planned)


def about_process(device: str, planned: Mapping[str, tuple[Asking, Sequence[JudgeSpec]]]) -> About:
    """This process: its hardware, versions, and the plans of its cells by name, each with its judges."""
    hardware = platform.machine()
    if device.startswith("cuda"):
        import torch

        hardware = torch.cuda.get_device_name(device)
    libraries = (*DRAWING, *(("triton",) if device.startswith("cuda") else ()))
    sealing = store_key()
    return About(
        host=socket.gethostname(),
        hardware=hardware,
        versions=", ".join(f"{name} {found}" for name in libraries if (found := _version(name))),
        package=resurgence_harness.__version__,
        plan=plan_digest(planned),
        sealed=hashlib.sha256(b"fingerprint of a store's key\0" + sealing).hexdigest()[:12] if sealing else "",
    )


def plan_digest(planned: Mapping[str, tuple[Asking, Sequence[JudgeSpec]]]) -> str:
    """Digest of the keys of every cell's first images and judgments: of its models, prompts, sampler and judges."""
    keys = []
    for name, (cell, judges) in sorted(planned.items()):
        questions = [Question(arm, 0) for arm in cell.arms]
        evidence = wanted(cell, Inquiry(cell), questions, judges)
        found = plan(NothingStored(), evidence, pace=Pace(NothingStored())).actions
        keys += [name, *(action.key for action in found)]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def share_cores(workers: int) -> None:
    """Divide this process's cores among workers of one machine, before torch is imported; an own setting stays."""
    for name in THREADS:
        os.environ.setdefault(name, str(max(1, cores() // max(1, workers))))


def use_one_thread() -> None:
    """Let torch use one thread in this process, whether or not it is imported already."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def unknown(order: Order) -> UserError:
    """The error for a key that a worker's plans do not have."""
    return UserError(
        sentence(
            f"A node does not know the artifact: {order.label}.",
            key=order.key,
            node=socket.gethostname(),
            do="Install the same version of resurgence-harness and of the suite on every node.",
        )
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
