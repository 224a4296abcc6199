"""How the microworld's settings for copyright, unsafe and object are found.

    python -m benchmarks.tune_tasks --to trials.csv --device cuda --jobs 12 --minutes 9
    python -m benchmarks.tune_tasks --to trials.csv --choose

As in benchmarks/tune_unlearning.py for celebrities, settings are judged by erasure and utility alone: no model is
fine-tuned here. benchmarks/task_trials.py says what is erased and watched instead of the suite's concepts. Every
setting is tried on the first case of its task; the best few of each method, by the rule below, on the others as well.

The rule: erased concepts in at most 20 % of the images (UCE, EraseDiff, MACE 8 %), watched ones in at least 85 % of as
many as the base draws, in every case. Of the settings that meet it, the one whose worst case keeps the most; if none
does, the one that comes nearest, which is then said to miss it.

One row for each trial; what the file holds is not made again. Trials start until the minutes are over.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.task_trials import FORGET_SEED, IMAGE_SEED, RETAIN_SEED, SEARCHES, TRIALS, Case
from resurgence_harness.errors import HarnessError
from resurgence_harness.presets import METHODS, settings_for
from resurgence_harness.specs import Cell, Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.unlearning import Unlearning

COLUMNS = ("task", "method", "settings", "erases", "seed", "erased", "of", "retained", "of", "base", "of", "seconds")
BARS = dict.fromkeys(METHODS, 0.20) | {"uce": 0.08, "erasediff": 0.08, "mace": 0.08}
KEPT = 0.85
ERASED_IMAGES, WATCHED_IMAGES = 120, 150
PROMOTED = 3
"""Settings of each method and task that are tried on the other cases."""
LAST = 15.0
"""Seconds before the end after which no trial starts."""


class Trial(NamedTuple):
    """One row to be made."""

    task: str
    method: str
    place: int
    """Of the settings in `TRIALS`."""
    case: Case

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the family's values."""
        return TRIALS[self.method](self.task)[self.place]

    @property
    def label(self) -> tuple[str, ...]:
        """The first columns, which tell trials apart."""
        return (self.task, self.method, repr(self.settings), ", ".join(self.case.erased), str(self.case.seed))


class Row(NamedTuple):
    """What a file says of a trial; `erased`, `retained` and `base` are shares, None where the method diverged."""

    task: str
    method: str
    settings: str
    case: tuple[str, str]
    erased: float | None
    retained: float | None
    base: float | None

    @property
    def margin(self) -> float:
        """By how much the nearer of the two bars is met; negative where one is missed."""
        if self.erased is None or self.retained is None or not self.base:
            return -1.0
        return min(BARS[self.method] - self.erased, self.retained / self.base - KEPT)


def rows_of(file: Path) -> list[Row]:
    """Every trial in a file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            Row(*line[:3], (line[3], line[4]), *(_share(*line[at : at + 2]) for at in (5, 7, 9)))
            for line in csv.reader(stream)
            if line and tuple(line) != COLUMNS
        ]


def _share(hits: str, images: str) -> float | None:
    return int(hits) / int(images) if images else None


def ranked(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The settings of one method and task, the best by the rule first, each with its cases; most cases count first."""
    known: dict[str, list[Row]] = {}
    for row in rows:
        known.setdefault(row.settings, []).append(row)

    def order(tried: list[Row]) -> tuple[int, bool, float]:
        worst = min(row.margin for row in tried)
        kept = min((row.retained or 0.0) / (row.base or 1.0) for row in tried)
        return (len(tried), worst >= 0, kept if worst >= 0 else worst)

    return sorted(known.items(), key=lambda item: order(item[1]), reverse=True)


def choose(rows: list[Row]) -> Iterator[str]:
    """For each task and method a line of what the rule chooses, and whether it meets the bar."""
    for task in SEARCHES:
        for method in TRIALS:
            mine = [row for row in rows if (row.task, row.method) == (task, method)]
            if not mine:
                yield f"{task} {method}: no trials"
                continue
            settings, tried = ranked(mine)[0]
            worst = min(row.margin for row in tried)
            shown = ", ".join(
                f"{row.erased:.2f}/{row.retained:.2f}" if row.retained is not None else "diverged" for row in tried
            )
            said = "meets the bar" if worst >= 0 else f"MISSES THE BAR by {-worst:.2f}"
            cases = (
                f"{len(tried)} of {1 + len(others(task, method))} cases, {len({row.settings for row in mine})} settings"
            )
            yield f"{task} {method}: {settings}    {said}; erased/retained {shown} ({cases})"


class Bench:
    """What one process keeps between trials: the base, a copy that takes other weights, images and latents."""

    def __init__(self, device: str) -> None:
        """Load the base."""
        from resurgence_harness.diffusion.model import StableDiffusion, tensors
        from resurgence_harness.diffusion.replaying import Replays
        from resurgence_harness.microworld import weights

        self.base = StableDiffusion.load(weights.directory(), device)
        self.changed = self.base.copy()
        self.places = tensors(self.changed)
        self.replays = Replays()
        self.tensors: dict[str, dict[str, Tensor]] = {}
        self.shown: dict[str, tuple[int, int]] = {}

    def images(self, probe: Probe) -> Any:
        """What the base draws, with the texts."""
        return self.draw(self.base, probe), [prompt.text for prompt, _ in probe.rows()]

    def draw(self, model: StableDiffusion, probe: Probe) -> Any:
        """Images of a model: its weights are put where those of the last one were, so one graph draws them all."""
        import torch

        from resurgence_harness.diffusion.model import tensors
        from resurgence_harness.sampling import sample

        with torch.no_grad():
            for name, tensor in tensors(model).items():
                self.places[name].copy_(tensor)
        return sample(self.changed, probe, replays=self.replays)

    def cached(self, kind: str, spec: object, build: Any) -> dict[str, Tensor]:
        """Made once."""
        known = f"{kind} {spec!r}"
        if known not in self.tensors:
            self.tensors[known] = build()
        return {name: tensor.clone() for name, tensor in self.tensors[known].items()}

    def judged(self, model: StableDiffusion, task: Task, probe: Probe) -> tuple[int, int]:
        """In how many images the task's first judge sees what was asked for, and of how many."""
        from resurgence_harness.judging import judge_by_name, shown_by

        judge = judge_by_name(task.judges[0])
        answers, _ = judge.answer(self.draw(model, probe), model.device.type)
        asked = [prompt.concept for prompt, _ in probe.rows()]
        return sum(name in shown_by(judge, a) for a, name in zip(answers, asked, strict=True)), len(probe)

    def make(self, trial: Trial, erased_images: int, watched_images: int) -> list[Any]:
        """The row of a trial."""
        from resurgence_harness.diffusion.run import Run

        task, sampler = SEARCHES[trial.task].task, Sampler(**settings_for("micro")["sampler"])
        step = unlearning(trial, sampler)
        watched = _probe(task.retained_prompts(task.held_out, least=50), watched_images, sampler)
        if trial.task not in self.shown:
            self.shown[trial.task] = self.judged(self.base, task, watched)
        run = Run(base=self.base, base_digest="micro", parent_digest="micro", images=self.images, cached=self.cached)
        began = time.monotonic()
        try:
            model = step.apply(self.base, run)
            seconds = time.monotonic() - began
            asked = _probe(task.filled(step.concepts), erased_images, sampler)
            found: tuple[Any, ...] = (*self.judged(model, task, asked), *self.judged(model, task, watched))
        except HarnessError as error:  # a setting that diverges is a result, too
            found, seconds = (str(error).splitlines()[0], "", "", ""), time.monotonic() - began
        return [*trial.label, *found, *self.shown[trial.task], f"{seconds:.1f}"]


def unlearning(trial: Trial, sampler: Sampler) -> Unlearning:
    """The step of a trial, made as the suite makes its own, with the search's seeds."""
    from resurgence_harness.selection import unlearning_step

    task = SEARCHES[trial.task].task
    erased: tuple[Concept, ...] = tuple(c for c in task.erasable if c.name in trial.case.erased)
    settings = settings_for("micro")  # the family's, whatever a task has by now: rows keep their meaning
    settings[METHODS[trial.method].step.name] |= trial.settings
    cell = Cell(task=trial.task, method=trial.method, count=len(erased), finetuning="none", run=trial.case.seed)
    step = unlearning_step(cell, task, erased, settings, sampler)
    first = {"forget": FORGET_SEED, "retain": RETAIN_SEED}
    moved: dict[str, Any] = {}
    for field in fields(step):
        if field.name in first:
            probe = getattr(step, field.name)
            moved[field.name] = replace(
                probe, seeds=tuple(range(first[field.name], first[field.name] + len(probe.seeds)))
            )
    return replace(step, **moved)


def _probe(prompts: tuple[Prompt, ...], images: int, sampler: Sampler) -> Probe:
    """About so many images: every prompt so often, or, where there are more prompts, evenly spread ones of them."""
    step = max(1, round(len(prompts) / images))
    taken = prompts[::step]
    return Probe(
        prompts=taken,
        seeds=tuple(range(IMAGE_SEED, IMAGE_SEED + max(1, round(images / len(taken))))),
        sampler=sampler,
    )


_BENCH: list[Bench] = []


def _prepare(device: str) -> None:
    """A process of its own: one thread, its own model."""
    import torch

    torch.set_num_threads(1)
    _BENCH.append(Bench(device))


def _make(trial: Trial, images: tuple[int, int], until: float) -> list[Any] | None:
    """A row, or None where the time is up."""
    return _BENCH[0].make(trial, *images) if time.time() < until else None


def planned(tasks: list[str], methods: list[str]) -> list[Trial]:
    """First cases, task by task: every method's best bet, then their second, and so on."""
    return sorted(
        (
            Trial(task, method, place, SEARCHES[task].first)
            for task in tasks
            for method in methods
            for place in range(len(TRIALS[method](task)))
        ),
        key=lambda trial: (tasks.index(trial.task), trial.place),
    )


def others(task: str, method: str) -> tuple[Case, ...]:
    """The cases that follow the first; for a method without chance, those alone that erase something else."""
    search = SEARCHES[task]
    if "seed" in {field.name for field in fields(METHODS[method].step)}:
        return search.then
    apart = {case.erased: case for case in reversed((search.first, *search.then))}
    return tuple(case for case in search.then if case is apart[case.erased])


def promoted(task: str, method: str, rows: list[Row]) -> list[Trial]:
    """The other cases of the best settings so far."""
    places = {repr(settings): place for place, settings in enumerate(TRIALS[method](task))}
    first = SEARCHES[task].first
    mine = [
        row
        for row in rows
        if (row.task, row.method, row.case) == (task, method, (", ".join(first.erased), str(first.seed)))
        and row.settings in places
    ]
    best = [settings for settings, _ in ranked(mine)[:PROMOTED]]
    return [Trial(task, method, places[settings], case) for settings in best for case in others(task, method)]


def main() -> None:
    """Make the trials, or say what they choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="CSV file; trials that it holds are not made again")
    parser.add_argument("--tasks", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--methods", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the device")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--settings", type=int, help="only so many settings of each method and task")
    parser.add_argument("--images", type=int, nargs=2, default=(ERASED_IMAGES, WATCHED_IMAGES))
    parser.add_argument("--choose", action="store_true", help="make nothing; print what the rule chooses")
    args = parser.parse_args()
    if args.choose:
        print("\n".join(choose(rows_of(args.to))))
        return
    until = time.time() + 60 * args.minutes - LAST
    trials = planned(args.tasks, args.methods)
    if args.settings:
        trials = [trial for trial in trials if trial.place < args.settings]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tune(trials, args.to, args.device, args.jobs, tuple(args.images), until)


def tune(trials: list[Trial], to: Path, device: str, jobs: int, images: tuple[int, int], until: float) -> None:
    """Make the first cases, and the others of a method and task as soon as its first ones are done."""
    made = {(row.task, row.method, row.settings, *row.case) for row in rows_of(to)}
    began, done = time.time(), 0
    with (
        to.open("a", newline="", encoding="utf-8") as file,
        ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_prepare, initargs=(device,)) as pool,
    ):
        table = csv.writer(file)
        if not file.tell():
            table.writerow(COLUMNS)
            file.flush()
        groups = dict.fromkeys((trial.task, trial.method) for trial in trials)
        left = {group: [t for t in trials if (t.task, t.method) == group and t.label not in made] for group in groups}
        waiting = deque(trial for trial in trials if trial.label not in made)
        going: dict[Future[list[Any] | None], Trial] = {}

        def advance(group: tuple[str, str]) -> None:
            """The other cases of a method and task, before anything else, once its first ones are all made."""
            if not left[group]:
                fresh = [trial for trial in promoted(*group, rows_of(to)) if trial.label not in made]
                made.update(trial.label for trial in fresh)
                waiting.extendleft(reversed(fresh))

        for group in groups:
            advance(group)
        while waiting or going:
            while waiting and len(going) < jobs + 1:  # one more than there are processes, so that none waits
                trial = waiting.popleft()
                going[pool.submit(_make, trial, images, until)] = trial
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                trial = going.pop(future)
                try:
                    row = future.result()
                    if row is None:
                        waiting.clear()
                        continue
                    table.writerow(row)
                    file.flush()
                    done += 1
                    print(f"{time.time() - began:5.0f} s  {' '.join(map(str, row))}", flush=True)
                except BrokenExecutor:  # a process died: nothing more can be made
                    raise
                except Exception:  # the others go on; what failed is no row, so it is made again next time
                    traceback.print_exc()
                group = (trial.task, trial.method)
                if trial in left[group]:
                    left[group].remove(trial)
                    advance(group)
    print(f"{done} trials in {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
