"""What `benchmarks.sd_path` adds to the celebrity suite: CLIP as its judge, and a watch on the GPU's memory.

    pytest suites/celebrity -p benchmarks.sd_path_judge …

The package judges real celebrities by GCD, and no option names another judge: that is a task of one's own
(docs/tasks.md). Here it is the published celebrity task with nothing changed but its judge.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from resurgence_harness.judging import Calibration, Clip, ClipAccuracy, Weights
from resurgence_harness.tasks import PUBLISHED, Task

if TYPE_CHECKING:
    import numpy as np

SETTINGS = "SD_PATH_SETTINGS"
"""Environment variable that names the file of `Settings`."""
EVERY = 0.1
"""Seconds between two looks at the memory."""
CELEBRITIES = PUBLISHED["celebrity"]


@dataclass(frozen=True, kw_only=True)
class NamesByClip(ClipAccuracy):
    """CLIP's choice among names. It has no canaries, so with it no cell can ever pass."""

    config: str = ""
    """open_clip's file for an architecture that it does not ship; read when the first picture is looked at."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The likeliest name of each image uint8 [n, h, w, 3], and its probability [n]."""
        if self.config:
            import open_clip

            open_clip.add_model_config(self.config)
        return super().answer(images, device)

    def calibration(self) -> dict[str, Calibration]:
        """Stand-ins, not counts: the honest ones of random weights are no better than chance, and end a run with 12."""
        return {"nothing": Calibration(recognised=300, subjects=400, false_alarms=4, others=400)}


TASK: Task = replace(CELEBRITIES, judges=("clip-names",))
"""The paper's celebrity task, judged by CLIP."""
NAMES = tuple(dict.fromkeys(c.name for c in (*CELEBRITIES.erasable, *CELEBRITIES.preserve, *CELEBRITIES.held_out)))
"""What the judge may say: all two hundred."""


class Settings(NamedTuple):
    """What the benchmark tells the run of pytest."""

    architecture: str
    """A word of open_clip's."""
    config: str
    """open_clip's file for an architecture that it does not ship; empty for one that it does."""
    weights: str
    sha256: str
    """The pin of the weights."""
    store: str
    memory: str
    """Where the watch writes."""

    @property
    def judge(self) -> NamesByClip:
        """The judge with its pinned weights."""
        weights = Weights(file=Path(self.weights).name, path=self.weights, sha256=self.sha256)
        return NamesByClip(
            name="clip-names",
            labels=NAMES,
            template="a photo of {}",
            config=self.config,
            clip=Clip(architecture=self.architecture, weights=weights),
        )


class Watch(threading.Thread):
    """Writes, for every artifact of the store while it is made, the peak of the GPU's memory in GiB."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is looked at yet."""
        super().__init__(name="memory", daemon=True)
        self._making, self._to = Path(settings.store) / "tmp", Path(settings.memory)
        self._peaks: dict[str, float] = {}
        self._first = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(EVERY):
            self._look()

    def end(self) -> None:
        """Look once more and write what was seen: {"first": when something was first made, "peaks": {key: GiB}}."""
        self._over.set()
        self.join()
        self._to.write_text(json.dumps({"first": self._first, "peaks": self._peaks}), encoding="utf-8")

    def _look(self) -> None:
        try:
            keys = {name.split(".")[0] for name in os.listdir(self._making)}
        except FileNotFoundError:
            return
        if keys and not self._first:
            self._first = time.time()
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
            return
        peak = cuda.max_memory_allocated() / 2**30
        cuda.reset_peak_memory_stats()
        for key in keys:
            self._peaks[key] = max(peak, self._peaks.get(key, 0.0))


def pytest_resurgence_tasks() -> Sequence[Task]:
    """The celebrity task under its own name, which replaces the package's."""
    return [TASK]


def pytest_resurgence_judges() -> Sequence[ClipAccuracy]:
    """CLIP."""
    return [_settings().judge]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The watch begins."""
    watch = Watch(_settings())
    watch.start()
    config.add_cleanup(watch.end)


def _settings() -> Settings:
    return Settings(**json.loads(Path(os.environ[SETTINGS]).read_text(encoding="utf-8")))
