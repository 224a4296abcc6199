"""Making artifacts, each with the time that was its own, and what making one needs of the bench."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from resurgence_harness.bench.model_cache import ModelCache
from resurgence_harness.specs import Recipe, SampleRequest
from resurgence_harness.storing import Artifact, Store

Progress = Callable[[str, int, int, float | None], None]
"""progress(label, done, total, loss): loss is None where there is none."""


class Workshop(Protocol):
    """What building a checkpoint needs of the bench; the two need one another, for a step may need images."""

    store: Store
    device: str
    making: Making
    model_cache: ModelCache

    def drawn(self, recipe: Recipe, probe: SampleRequest) -> Artifact:
        """What a model draws, as it lies in the store; drawn first where it is missing."""


class Making:
    """`store.make`, with the clock of each artifact stopped while another is made on the way."""

    def __init__(self, store: Store) -> None:
        """Nothing is being made."""
        self._store = store
        self._elsewhere = [0.0]

    def make(
        self, place: str, kind: str, label: str, inputs: Mapping[str, str], build: Callable[[Path], dict[str, Any]]
    ) -> Artifact:
        """`store.make`, with the time that went into other artifacts on the way kept apart."""

        def timed(folder: Path) -> dict[str, Any]:
            self._elsewhere.append(0.0)
            try:
                facts = build(folder)
            finally:
                elsewhere = self._elsewhere.pop()
            return {**facts, "seconds elsewhere": round(elsewhere, 3)}

        start = time.monotonic()
        made = self._store.make(place, kind=kind, label=label, inputs=inputs, build=timed)
        self._elsewhere[-1] += time.monotonic() - start
        return made
