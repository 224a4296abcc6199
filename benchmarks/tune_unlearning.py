"""How the microworld's unlearning settings are found: `python -m benchmarks.tune_unlearning uce esd --to trials.csv`.

Settings are judged on erasure and utility alone: no model is fine-tuned here, so nothing can be chosen for how much
comes back. The roles are swapped: names of the suite's retain set are erased, names of its erase set are preserved (50)
and watched (the other 50), so that nothing is erased here that the suite erases. Image and training seeds are others,
too. A trial that stands in the file is not made again. reports/microworld/tuning.csv holds the trials that were made.

The three other tasks are searched by benchmarks/tune_tasks.py.

Several processes share the work: they are given one folder for `--claims`, and a file each.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import product
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import CrossAttention, Everything, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import HarnessError
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import (
    ESD,
    MACE,
    SDD,
    SHS,
    UCE,
    AdaptiveWeight,
    EraseDiff,
    MostSalient,
    NoProjection,
    SalUn,
    Unlearning,
)
from tests.tiny import tiny_run

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.run import Run

ERASED = (*CELEBRITY.preserve, *CELEBRITY.held_out)
PRESERVED, WATCHED = CELEBRITY.erasable[50:], CELEBRITY.erasable[:50]
TEMPLATES = ("{}", *CELEBRITY.templates)
TRAINING_SEED, IMAGE_SEED, FORGET_SEED, RETAIN_SEED = 1_000, 5_000, 6_000, 7_000
FORGET, RETAIN = 50, 100
"""About how many images of the erased and of the preserved names a method learns from."""
COLUMNS = ("method", "settings", "names", "erased", "of", "retained", "of", "seconds")

Trial = tuple[dict[str, Any], int]
"""Settings, and how many names are erased."""


def uce_trials() -> Iterator[Trial]:
    """Only the ratios of UCE's three weights matter."""
    for names, erase, ridge in product((10, 1, 100), (0.1, 0.3, 1.0, 3.0), (0.01, 0.1, 1.0)):
        yield {"erase_scale": erase, "preserve_scale": 1.0, "ridge": ridge}, names
    for erase in (0.3, 1.0, 3.0):
        yield {"erase_scale": erase, "preserve_scale": 1.0, "ridge": 0.1, "templates": ("{}",)}, 10
    for names, erase in product((10, 100), (0.03, 0.1, 0.15, 0.2, 0.3)):
        yield {"erase_scale": erase, "ridge": 1.0}, names
    for names, erase, ridge in product((10, 1, 5), (0.05, 0.1, 0.15, 0.2), (0.3, 1.0, 3.0)):
        yield {"erase_scale": erase, "preserve_scale": 1.0, "ridge": ridge}, names


def esd_trials() -> Iterator[Trial]:
    """Length, rate, how far past the unconditional prediction to aim, and which texts to learn from."""
    for templates, iterations, rate, away in product((("{}",), TEMPLATES), (50, 100), (3e-4, 6e-4, 1e-3), (1.0, 2.0)):
        yield {"iterations": iterations, "learning_rate": rate, "away": away, "templates": templates}, 10
    for names, (iterations, rate, away) in product((1, 100), ((50, 6e-4, 2.0), (100, 6e-4, 2.0), (100, 1e-3, 2.0))):
        yield {"iterations": iterations, "learning_rate": rate, "away": away}, names
    for names, batch in product((1, 10, 100), (8, 32)):
        yield {"iterations": 100, "learning_rate": 1e-3, "away": 2.0, "batch": batch}, names
    for iterations, rate, away, batch, trajectories in (
        (100, 6e-4, 2.0, 32, 96),
        (200, 3e-4, 2.0, 16, 96),
        (100, 1e-3, 2.0, 16, 96),
        (100, 5e-4, 4.0, 16, 96),
        (50, 1e-3, 2.0, 32, 96),
        (100, 1e-3, 1.0, 32, 96),
    ):
        yield (
            {
                "iterations": iterations,
                "learning_rate": rate,
                "away": away,
                "batch": batch,
                "trajectories": trajectories,
            },
            10,
        )
    for rate in (1e-3, 2e-3):
        yield {"iterations": 100, "learning_rate": rate, "away": 2.0, "subset": StrictKeyValue()}, 10
    for rate, iterations, trajectories in product((3e-3, 5e-3), (100, 200), (24, 96)):
        strict = {"subset": StrictKeyValue(), "trajectories": trajectories}
        yield {"iterations": iterations, "learning_rate": rate, "away": 2.0} | strict, 10
    for names, away, rate in product((1, 10), (2.0, 1.0), (3e-4, 1e-4, 5e-5, 2e-5)):  # esd-u and esd-all
        wide = {"iterations": 100, "learning_rate": rate, "away": away, "batch": 16, "trajectories": 24}
        for subset in (NonCrossAttention(), Everything()):
            yield {**wide, "subset": subset}, names


def sdd_trials() -> Iterator[Trial]:
    """How fast the student learns, how closely the teacher follows, and what may move."""
    for names, rate, ema, iterations in product((10, 1), (1e-4, 2e-4, 5e-4), (0.9, 0.95, 0.98), (60, 120)):
        yield {"learning_rate": rate, "ema": ema, "iterations": iterations}, names
    for names, rate, ema in product((10, 1), (5e-4, 1e-3, 2e-3), (0.9, 0.97)):
        yield {"learning_rate": rate, "ema": ema, "iterations": 120, "subset": StrictKeyValue()}, names
    for names, subset, batch, iterations in product((10, 1), (CrossAttention(), StrictKeyValue()), (8, 16), (80, 100)):
        yield {"learning_rate": 1e-4, "ema": 0.9, "iterations": iterations, "batch": batch, "subset": subset}, names
    for subset, iterations in product((CrossAttention(), StrictKeyValue()), (160, 200)):
        yield {"learning_rate": 5e-5, "ema": 0.9, "iterations": iterations, "trajectories": 40, "subset": subset}, 10
    for guidance, iterations in product((0.0, 1.0), (90, 120)):
        yield {"learning_rate": 1e-4, "ema": 0.9, "iterations": iterations, "guidance": guidance}, 10


def mace_trials() -> Iterator[Trial]:
    """How hard each LoRA pulls, and how much is kept when they are fused."""
    for names, rate, iterations, weight in product((10, 1), (1e-3, 3e-3, 1e-2), (30, 60), (8e3, 8e4, 8e5)):
        yield (
            {"learning_rate": rate, "iterations": iterations, "preserve_weight": weight, "templates": TEMPLATES},
            names,
        )
    for names, rate, weight in product((10, 5), (1e-3, 3e-3), (2e4, 4e4, 8e4)):
        yield {"learning_rate": rate, "iterations": 30, "preserve_weight": weight, "templates": TEMPLATES}, names


def salun_trials() -> Iterator[Trial]:
    """Rate, length, the retain images' weight and the share of entries that may move."""
    for names, rate, iterations, retain in product((10, 1), (1e-4, 2e-4, 5e-4), (60, 120), (0.5, 1.0, 3.0)):
        yield {"learning_rate": rate, "iterations": iterations, "retain_weight": retain}, names
    for names, rate, fraction in product((10, 1), (2e-4, 5e-4), (0.1, 0.3)):
        mask = MostSalient(fraction=fraction)
        yield {"learning_rate": rate, "iterations": 120, "retain_weight": 1.0, "mask": mask}, names
    for names, (rate, iterations), retain in product(
        (10, 1, 5), ((2e-4, 240), (3e-4, 120), (3e-4, 200)), (0.1, 0.3, 0.6)
    ):
        yield {"learning_rate": rate, "iterations": iterations, "retain_weight": retain}, names
    for names, iterations in product((10, 5, 1), (160,)):
        yield {"learning_rate": 2e-4, "iterations": iterations, "retain_weight": 0.5}, names


def shs_trials() -> Iterator[Trial]:
    """Rate, length, the forget images' weight and how little is cut."""
    for names, rate, iterations, forget, sparsity in product(
        (10, 1), (1e-4, 2e-4, 5e-4), (60, 120), (0.1, 0.3, 1.0), (0.9, 0.99)
    ):
        yield (
            {"learning_rate": rate, "iterations": iterations, "forget_weight": forget, "sparsity": sparsity},
            names,
        )
    for names, (rate, iterations), forget, sparsity in product(
        (10, 1), ((1e-4, 70), (1e-4, 85), (5e-5, 120), (5e-5, 180)), (0.1, 0.5), (0.9, 0.95)
    ):
        yield (
            {"learning_rate": rate, "iterations": iterations, "forget_weight": forget, "sparsity": sparsity},
            names,
        )
    for rate, iterations, forget, sparsity in product((1e-4, 2e-4), (80, 120), (0.3, 1.0), (0.9, 0.95)):
        unprojected = {"sparsity": sparsity, "projection": NoProjection()}
        yield {"learning_rate": rate, "iterations": iterations, "forget_weight": forget} | unprojected, 10
    for names, iterations in product((10, 5, 1), (65,)):
        yield {"learning_rate": 1e-4, "iterations": iterations, "forget_weight": 0.1, "sparsity": 0.9}, names


def erasediff_trials() -> Iterator[Trial]:
    """Rate, length, and how fast the constraint makes it forget."""
    for names, rate, iterations, eta in product((10, 1), (1e-4, 2e-4, 5e-4), (60, 120), (0.1, 0.3, 1.0)):
        yield {"learning_rate": rate, "iterations": iterations, "weight": AdaptiveWeight(rate=eta)}, names
    for names, (rate, iterations), eta in product(
        (10, 1, 5), ((2e-4, 180), (2e-4, 300), (3e-4, 120), (3e-4, 200)), (1.0, 3.0)
    ):
        yield {"learning_rate": rate, "iterations": iterations, "weight": AdaptiveWeight(rate=eta)}, names
    for names, iterations in product((10, 5, 1), (100,)):
        yield {"learning_rate": 3e-4, "iterations": iterations, "weight": AdaptiveWeight(rate=1.5)}, names


USUAL: dict[str, dict[str, Any]] = {
    "uce": {"templates": TEMPLATES},
    "esd": {"batch": 16, "trajectories": 24, "trajectory_steps": 10},
    "sdd": {"batch": 8, "trajectories": 8, "trajectory_steps": 10, "iterations_per_concept": 0},
    "mace": {"together": 5},
    "salun": {"batch": 8},
    "shs": {"batch": 8, "trim_batches": 4},
    "erasediff": {"batch": 8},
}
"""What every trial of a method has, unless it says otherwise."""

METHODS: dict[str, tuple[type[Any], Callable[[], Iterator[Trial]]]] = {
    "uce": (UCE, uce_trials),
    "esd": (ESD, esd_trials),
    "sdd": (SDD, sdd_trials),
    "mace": (MACE, mace_trials),
    "salun": (SalUn, salun_trials),
    "shs": (SHS, shs_trials),
    "erasediff": (EraseDiff, erasediff_trials),
}


class Kept:
    """Image sets, latents and trajectories of this process; trials of one number of names share them."""

    def __init__(self, base: StableDiffusion) -> None:
        """Nothing yet."""
        self.base = base
        self.tensors: dict[str, dict[str, Tensor]] = {}

    def run(self) -> Run:
        """The surroundings of one trial."""
        return tiny_run(self.base, cached=self.cached)

    def cached(self, kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Made once."""
        known = f"{kind} {spec!r}"
        if known not in self.tensors:
            self.tensors[known] = build()
        return {name: tensor.clone() for name, tensor in self.tensors[known].items()}


def unlearning(word: str, concepts: tuple[Concept, ...], settings: dict[str, Any]) -> Unlearning:
    """The step of one trial."""
    step, _ = METHODS[word]
    has = {field.name for field in fields(step)}
    offered = {
        "anchor": CELEBRITY.anchor,
        "preserve": PRESERVED,
        "seed": TRAINING_SEED,
        "forget": pictures(concepts, FORGET, FORGET_SEED),
        "retain": pictures(PRESERVED, RETAIN, RETAIN_SEED),
    }
    built: Unlearning = step(
        concepts=concepts, **{name: value for name, value in offered.items() if name in has} | USUAL[word] | settings
    )
    return built


def pictures(concepts: tuple[Concept, ...], images: int, first: int) -> Probe:
    """About so many images of the concepts, each by every template where they are few, else the templates in turn."""
    prompts = tuple(
        Prompt(text=CELEBRITY.templates[place % 5].format(concept.name), concept=concept.name)
        for place, concept in enumerate(concepts * max(1, 5 // len(concepts)))
    )
    seeds = tuple(range(first, first + max(1, ceil(images / len(prompts)))))
    return Probe(prompts=prompts, seeds=seeds, sampler=Sampler(guidance=4.0, batch=50))


def drawn(model: StableDiffusion, concepts: tuple[Concept, ...], images: int) -> tuple[int, int]:
    """In how many images the first judge sees who was asked for, and of how many."""
    probe = pictures(concepts, images, IMAGE_SEED)
    answers, _ = judge_by_name("identity").answer(sample(model, probe), model.device.type)
    return sum(a == prompt.concept for a, (prompt, _) in zip(answers, probe.rows(), strict=True)), len(probe)


def claimed(trial: str, folder: Path | None) -> bool:
    """Whether this process is the first to take the trial."""
    if folder is None:
        return True
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / hashlib.sha256(trial.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> None:
    """One line per trial."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", choices=METHODS)
    parser.add_argument("--to", type=Path, required=True, help="CSV file; trials that it holds are not made again")
    parser.add_argument("--known", type=Path, help="another CSV file whose trials are not made again")
    parser.add_argument("--claims", type=Path, help="a folder; processes that share it never make the same trial")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    made = {
        tuple(row[:3]) for file in (args.to, args.known) if file and file.exists() for row in csv.reader(file.open())
    }
    trials = [(word, *trial) for word in args.methods for trial in METHODS[word][1]()]
    random.Random(0).shuffle(trials)
    base = StableDiffusion.load(weights.directory(), args.device)
    kept = Kept(base)
    with args.to.open("a", newline="") as file:
        table = csv.writer(file)
        if not file.tell():
            table.writerow(COLUMNS)
        for word, settings, names in trials:
            trial = (word, repr(settings), str(names))
            if trial in made or not claimed(repr(trial), args.claims):
                continue
            step = unlearning(word, ERASED[:names], settings)
            began = time.monotonic()
            try:
                model = step.apply(base, kept.run())
                seconds = time.monotonic() - began
                found: tuple[Any, ...] = (*drawn(model, step.concepts, 200), *drawn(model, WATCHED, 250))
            except HarnessError as error:  # a setting that diverges is a result, too
                found, seconds = (str(error), "", "", ""), time.monotonic() - began
            table.writerow([*trial, *found, f"{seconds:.0f}"])
            file.flush()


if __name__ == "__main__":
    main()
