"""Building artifacts with separate timings for nested builds, and the part of the bench that builds need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from resurgence_harness.bench.model_cache import ModelCache
from resurgence_harness.planning import Work
from resurgence_harness.specs import Recipe, SampleRequest
from resurgence_harness.storing import Artifact, Store

Progress = Callable[[str, int, int, float | None], None]
"""progress(label, done, total, loss): loss is None for work without a loss."""


BUILD_LOG = "RESURGENCE_BUILD_LOG"
"""The environment variable with the file to which every build appends two lines: begun and built, key, process, time,
label. Without it nothing is logged."""


class Observer(Protocol):
    """What is called when builds begin and end, for the view of a run."""

    def begun(self, key: str) -> None:
        """The build of an artifact begins; builds may be nested."""

    def made(self, key: str, work: Work | None, seconds: float) -> None:
        """An artifact was built; `seconds` are without the nested builds."""


class Workshop(Protocol):
    """The part of the bench that building a checkpoint needs; a protocol, since bench and building need each other."""

    store: Store
    device: str
    making: Making
    model_cache: ModelCache

    def drawn(self, recipe: Recipe, probe: SampleRequest) -> Artifact:
        """The stored images of a probe; sampled first if they are missing."""


class Making:
    """`store.make` that excludes the time of nested builds from each artifact's own time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._elsewhere = [0.0]
        self._log = os.environ.get(BUILD_LOG, "")
        self.observer: Observer | None = None

    def make(
        self,
        place: str,
        kind: str,
        label: str,
        inputs: Mapping[str, str],
        build: Callable[[Path], dict[str, Any]],
        stale: Callable[[Artifact], bool] = lambda artifact: False,
    ) -> Artifact:
        """`store.make`; the fact "seconds elsewhere" is the time spent in nested builds of other artifacts."""

        built = False

        def timed(folder: Path) -> dict[str, Any]:
            nonlocal built
            self._write("begun", place, label)
            built = True
            self._elsewhere.append(0.0)
            begun = time.monotonic()
            if self.observer is not None:
                self.observer.begun(place)
            try:
                facts = build(folder)
            finally:
                elsewhere = self._elsewhere.pop()
            if self.observer is not None:
                self.observer.made(place, _work_of(facts), time.monotonic() - begun - elsewhere)
            return {**facts, "seconds elsewhere": round(elsewhere, 3)}

        start = time.monotonic()
        made = self._store.make(place, kind=kind, label=label, inputs=inputs, build=timed, stale=stale)
        self._elsewhere[-1] += time.monotonic() - start
        if built:
            self._write("built", place, label)
        return made

    def _write(self, what: str, place: str, label: str) -> None:
        """Append a line to the log of builds, if there is one; a line is written whole or not at all."""
        if self._log:
            line = "\t".join((what, place, str(os.getpid()), f"{time.time():.3f}", label)) + "\n"
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


def _work_of(facts: Mapping[str, Any]) -> Work | None:
    """The amount of work in an artifact's facts, as `provenance.provenance` writes it."""
    found = facts.get("work")
    return Work(str(found["group"]), int(found["units"])) if isinstance(found, Mapping) else None
