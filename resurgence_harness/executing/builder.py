"""What runs in a worker: it collects the suite, keeps base and U-Net loaded, and builds the artifact of each order."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import resurgence_harness
from resurgence_harness.bench.provenance import DRAWING
from resurgence_harness.errors import HarnessError, Unreachable, Unwritable, UserError, sentence
from resurgence_harness.examining import wanted
from resurgence_harness.executing.jobs import Done, Order, Suite
from resurgence_harness.inquiry import Inquiry, Question
from resurgence_harness.planning import Action, NothingStored, Pace, canaries_key, plan
from resurgence_harness.process import unforeseen
from resurgence_harness.storing.sealing import store_key

if TYPE_CHECKING:
    from resurgence_harness.selection import CellPlan


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


class Builder:
    """Builds artifacts in one process, on its device."""

    def __init__(self, opened: Opened) -> None:
        """Check the suite's judges; loads no model."""
        self._suite, self._cells = opened
        for cell, _ in self._cells.values():
            self._suite.check_judges(cell)
        self._seen, self._stopping = Seen("", 0, 0), False
        self._indices: dict[str, _Index] = {}
        self.on_progress: Callable[[Seen], None] = lambda seen: None
        self._suite.bench.set_progress(self._progress)
        self.about = about(self._suite, self._cells)

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

    def release(self) -> None:
        """Free the loaded models."""
        self._suite.release()

    def _make(self, order: Order) -> int | None:
        if order.cell not in self._cells:
            raise _unknown(order)
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
                    raise _unknown(order)
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
            self._indices[order.cell] = _Index(self._cells[order.cell][0], self._suite)
        found = self._indices[order.cell].find(order.key)
        if found is None:
            raise _unknown(order)
        return found

    def _progress(self, label: str, done: int, total: int, loss: float | None) -> None:
        self._seen = Seen(label if loss is None else f"{label}, loss {loss:.4f}", done, total)
        self.on_progress(self._seen)
        if self._stopping:
            raise Stopped


class _Index:
    """The artifacts of one cell by key, found block after block; independent of what the store has."""

    def __init__(self, cell: CellPlan, suite: Suite) -> None:
        self._cell, self._judges = cell, [suite.judge(name) for name in cell.judges]
        self._actions: dict[str, Action] = {}
        self._questions = self._ordered()

    def find(self, key: str) -> Action | None:
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
    device = suite.bench.device
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
        plan=plan_digest(suite, cells),
        sealed=hashlib.sha256(b"fingerprint of a store's key\0" + sealing).hexdigest()[:12] if sealing else "",
    )


def plan_digest(suite: Suite, cells: Mapping[str, tuple[CellPlan, Path]]) -> str:
    """Digest of the keys of every cell's first images and judgments: of its models, prompts, sampler and judges."""
    keys = []
    for name, (cell, _) in sorted(cells.items()):
        judges = [suite.judge(one) for one in cell.judges]
        questions = [Question(arm, 0) for arm in cell.arms]
        evidence = wanted(cell, Inquiry(cell), questions, judges)
        found = plan(NothingStored(), evidence, pace=Pace(NothingStored())).actions
        keys += [name, *(action.key for action in found)]
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def share_cores(workers: int) -> None:
    """Divide this process's cores among workers of one machine, before torch is imported; an own setting stays."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(max(1, cores // max(1, workers))))


def _unknown(order: Order) -> UserError:
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
