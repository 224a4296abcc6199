"""Making artifacts, each with the time that was its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resurgence_harness.storing import Artifact, Store


class Making:
    """`store.make`, with the clock of each artifact stopped while another is made on the way."""

    def __init__(self, store: Store) -> None:
        """Nothing is being made."""
        self._store = store
        self._elsewhere = [0.0]

    def make(
        self, place: str, kind: str, words: str, inputs: Mapping[str, str], build: Callable[[Path], dict[str, Any]]
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
        made = self._store.make(place, kind=kind, words=words, inputs=inputs, build=timed)
        self._elsewhere[-1] += time.monotonic() - start
        return made
