"""Light artifacts in a real store: files whose content follows from their inputs, built in milliseconds without torch.

They stand for images and weights where the engine is tested: what is scheduled, lost, started again and stored.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resurgence_harness.bench.making import Making
from resurgence_harness.errors import BuildError, UserError
from resurgence_harness.executing.builder import About, Seen, Stopped
from resurgence_harness.executing.jobs import Done, Job, Order
from resurgence_harness.storing import Condition, Store, content_of, key

ABOUT = About(host="here", hardware="x", versions="torch 2", package="1", plan="p", sealed="")


def chain(cell: int, *, length: int = 4, width: int = 3) -> list[Job]:
    """The jobs of one cell: a checkpoint after another, and images of each."""
    jobs: list[Job] = []
    before: tuple[str, ...] = ()
    for step in range(length):
        place = key("checkpoint", (cell, step))
        label = json.dumps({"cell": cell, "step": step, "needs": before})
        jobs.append(Job(order=Order(place, "checkpoint", f"cell {cell}", label), needs=before, seconds=2.0))
        for number in range(width):
            drawn = key("images", (cell, step, number))
            label = json.dumps({"cell": cell, "step": step, "number": number, "needs": [place]})
            jobs.append(Job(order=Order(drawn, "images", f"cell {cell}", label), needs=(place,), model=place))
        before = (place,)
    return jobs


class Chain:
    """A cell of light jobs: complete when the store has all of them."""

    def __init__(self, store: Store, cell: int, **size: int) -> None:
        self.name, self.seconds = f"cell {cell}", 1.0
        self._store, self._jobs = store, partial(chain, cell, **size)

    def look(self) -> list[Job]:
        """What the store lacks."""
        return [job for job in self._jobs() if self._store.condition(job.order.key) is not Condition.PRESENT]

    def done(self, result: Done) -> None:
        """Nothing follows from it."""


class LightBuilder:
    """Builds them."""

    def __init__(self, store: str, *, seconds: float, about: About, log: str = "") -> None:
        if log:
            os.environ["RESURGENCE_BUILD_LOG"] = log
        self.about, self.seen, self._seconds, self._stopping = about, Seen("", 0, 0), seconds, False
        self.on_progress: Callable[[Seen], None] = lambda seen: None
        self._store = Store(store)
        self._making = Making(self._store)

    def stop(self) -> None:
        """At the next step."""
        self._stopping = True

    def build(self, order: Order) -> Done:
        """A file with the digest of the inputs and the key."""
        spec = json.loads(order.label)
        needs = {need: self._store.open(need) for need in spec["needs"]}

        def build(folder: Path) -> Mapping[str, Any]:
            (folder / "half").write_text("not yet")
            for step in range(10):
                self.seen = Seen(order.label, step, 10)
                self.on_progress(self.seen)
                if self._stopping:
                    raise Stopped
                time.sleep(self._seconds / 10)
            text = "".join(content_of(one, "file").decode() for one in needs.values()) + order.key
            (folder / "half").unlink()
            (folder / "file").write_text(hashlib.sha256(text.encode()).hexdigest())
            return {}

        inputs = {need: one.digest for need, one in needs.items()}
        if self._store.current(order.key) is None:
            self._making.make(order.key, order.kind, order.label, inputs, build)
        return Done(order.key)


class Failing(LightBuilder):
    """One whose builds fail in a way that its first letter says: m(istake), f(ailed), s(tore), or d(ies)."""

    def __init__(self, how: str, store: str) -> None:
        super().__init__(store, seconds=0.0, about=ABOUT)
        self._how = how

    def build(self, order: Order) -> Done:
        """Fail."""
        if self._how == "dies":
            os._exit(9)
        return Done(order.key, f"it {self._how}", self._how)


def opened(store: str, seconds: float = 0.05, about: About = ABOUT, log: str = "") -> LightBuilder:
    """For workers."""
    return LightBuilder(store, seconds=seconds, about=about, log=log)


def failing(how: str, store: str) -> Failing:
    """For workers that fail."""
    return Failing(how, store)


def refusing(kind: str) -> LightBuilder:
    """For workers that cannot be made ready."""
    raise {"mistake": UserError, "broken": BuildError}[kind]("the base is not here")


def of_kinds(store: str, kinds: Sequence[About], counter: str) -> LightBuilder:
    """For workers of several kinds: the n-th that is opened is of the n-th kind."""
    descriptor = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"x")
    place = os.fstat(descriptor).st_size - 1
    os.close(descriptor)
    return LightBuilder(store, seconds=0.02, about=kinds[place % len(kinds)])


def log_of(path: Path) -> list[tuple[str, str, int]]:
    """What was begun and built, the key, and the process."""
    if not path.exists():
        return []
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line[0], line[1], int(line[2])) for line in lines]
