"""What `benchmarks.sd_path` and `.sd_paths` add to a suite: CLIP as its judge, and a watch on memory and updates.

    pytest suites/celebrity -p benchmarks.sd_path_judge …

The package judges the published tasks by models whose weights a user has, and no option names another judge: that is a
task of one's own (docs/tasks.md). Here it is a published task with nothing changed but its judge.
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
from resurgence_harness.pytest_plugin.state import engine_in
from resurgence_harness.tasks import PUBLISHED, Task

if TYPE_CHECKING:
    import numpy as np

SETTINGS = "SD_PATH_SETTINGS"
"""Environment variable that names the file of `Settings`."""
FEW = "SD_PATH_FEW"
"""Environment variable that is set if a task keeps ten erasable, four preserved and eight held-out concepts, and one
template: an image of 1024 pixels takes a second."""
EVERY = 0.1
"""Seconds between two looks at the memory."""
JUDGE = "clip-names"
BUILDING = "building "
"""How the bench's progress begins while a checkpoint is made; the recipe in words follows."""


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


def judged_by_clip(task: str) -> Task:
    """The published task of that name, judged by CLIP; with FEW set, with few prompts."""
    published = replace(PUBLISHED[task], judges=(JUDGE,))
    if not os.environ.get(FEW):
        return published
    return replace(
        published,
        erasable=published.erasable[:10],
        preserve=published.preserve[:4],
        held_out=published.held_out[:8],
        templates=published.templates[:1],
        counts=tuple(count for count in published.counts if count <= 10),
        paper_images={},
        erase_sets={},
    )


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
    task: str = "celebrity"

    @property
    def judge(self) -> NamesByClip:
        """The judge with its pinned weights, which may answer every concept of the task."""
        task = PUBLISHED[self.task]
        names = dict.fromkeys(concept.name for concept in (*task.erasable, *task.preserve, *task.held_out))
        weights = Weights(file=Path(self.weights).name, path=self.weights, sha256=self.sha256)
        return NamesByClip(
            name=JUDGE,
            labels=tuple(names),
            template="a photo of {}",
            config=self.config,
            clip=Clip(architecture=self.architecture, weights=weights),
        )


class Course(NamedTuple):
    """When the updates of one checkpoint were made, in seconds of one clock."""

    first: int
    """The first update that was reported; MACE reports several concepts' at once."""
    began: float
    """When that was made."""
    last: int
    ended: float
    """When the last was made."""
    total: int

    @property
    def pace(self) -> float:
        """Seconds an update; 0 where there was only one."""
        return (self.ended - self.began) / (self.last - self.first) if self.last > self.first else 0.0


class Watch(threading.Thread):
    """Writes the GPU memory's peak in GiB for every artifact while it is made, and the pace of every training."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is looked at yet."""
        super().__init__(name="memory", daemon=True)
        self._making, self._to = Path(settings.store) / "tmp", Path(settings.memory)
        self._peaks: dict[str, float] = {}
        self._peak = 0.0
        self._courses: dict[str, Course] = {}
        self._first = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(EVERY):
            self._look()

    def end(self) -> None:
        """Look once more and write what was seen.

        {"first": when something was first made, "peak": GiB, "peaks": {key: GiB}, "courses": {recipe in words: Course}}
        """
        self._over.set()
        self.join()
        self._look()
        seen = {"first": self._first, "peak": self._peak, "peaks": self._peaks, "courses": self._courses}
        self._to.write_text(json.dumps(seen), encoding="utf-8")

    def update(self, words: str, done: int, total: int) -> None:
        """The bench's progress: so many updates of a training are made."""
        recipe = words.removeprefix(BUILDING)
        if recipe == words or not done:
            return
        now = time.monotonic()
        before = self._courses.get(recipe)
        if before is None or done <= before.last:
            self._courses[recipe] = Course(done, now, done, now, total)
        else:
            self._courses[recipe] = before._replace(last=done, ended=now)

    def _look(self) -> None:
        try:
            keys = {name.split(".")[0] for name in os.listdir(self._making)}
        except FileNotFoundError:
            keys = set()
        if keys and not self._first:
            self._first = time.time()
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
            return
        peak = cuda.max_memory_allocated() / 2**30
        cuda.reset_peak_memory_stats()
        self._peak = max(peak, self._peak)
        for key in keys:
            self._peaks[key] = max(peak, self._peaks.get(key, 0.0))


WATCH: pytest.StashKey[Watch] = pytest.StashKey()


def pytest_resurgence_tasks() -> Sequence[Task]:
    """The published task under its own name, which replaces the package's."""
    return [judged_by_clip(_settings().task)]


def pytest_resurgence_judges() -> Sequence[ClipAccuracy]:
    """CLIP."""
    return [_settings().judge]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The watch begins."""
    watch = config.stash[WATCH] = Watch(_settings())
    watch.start()
    config.add_cleanup(watch.end)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The watch hears of every update, beside the progress line."""
    engine, watch = engine_in(item.config), item.config.stash[WATCH]

    def progress(words: str, done: int, total: int, loss: float | None) -> None:
        watch.update(words, done, total)
        engine.progress.update(words, done, total, loss)

    engine.bench.set_progress(progress)


def _settings() -> Settings:
    return Settings(**json.loads(Path(os.environ[SETTINGS]).read_text(encoding="utf-8")))
