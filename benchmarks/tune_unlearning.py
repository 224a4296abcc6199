"""How the microworld's unlearning settings are found: `python -m benchmarks.tune_unlearning uce esd --to trials.csv`.

Settings are judged on erasure and utility alone: no model is fine-tuned here, so nothing can be chosen for how much
comes back. The roles are swapped: names of the suite's retain set are erased, names of its erase set are preserved (50)
and watched (the other 50), so that nothing is erased here that the suite erases. Image and training seeds are others,
too. A trial that stands in the file is not made again. reports/microworld/tuning.csv holds the trials that were made.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.parameters import StrictKeyValue
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import ESD, UCE, Unlearning
from tests.tiny import tiny_run

ERASED = (*CELEBRITY.preserve, *CELEBRITY.held_out)
PRESERVED, WATCHED = CELEBRITY.erasable[50:], CELEBRITY.erasable[:50]
TEMPLATES = ("{}", *CELEBRITY.templates)
TRAINING_SEED, IMAGE_SEED = 1_000, 5_000
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


def uce(concepts: tuple[Concept, ...], **settings: Any) -> UCE:
    """UCE with the task's anchor."""
    return UCE(
        **{"concepts": concepts, "anchor": CELEBRITY.anchor, "preserve": PRESERVED, "templates": TEMPLATES} | settings
    )


def esd(concepts: tuple[Concept, ...], **settings: Any) -> ESD:
    """ESD on cross-attention, in batches of 16."""
    return ESD(
        **{"concepts": concepts, "batch": 16, "trajectories": 24, "trajectory_steps": 10, "seed": TRAINING_SEED}
        | settings
    )


METHODS: dict[str, tuple[Callable[..., Unlearning], Callable[[], Iterator[Trial]]]] = {
    "uce": (uce, uce_trials),
    "esd": (esd, esd_trials),
}


def drawn(model: StableDiffusion, concepts: tuple[Concept, ...], images: int) -> tuple[int, int]:
    """In how many images the first judge sees who was asked for, and of how many."""
    prompts = tuple(
        Prompt(text=CELEBRITY.templates[place % 5].format(concept.name), concept=concept.name)
        for place, concept in enumerate(concepts * max(1, 5 // len(concepts)))
    )
    seeds = tuple(range(IMAGE_SEED, IMAGE_SEED + max(1, images // len(prompts))))
    probe = Probe(prompts=prompts, seeds=seeds, sampler=Sampler(guidance=4.0, batch=50))
    answers, _ = judge_by_name("identity").answer(sample(model, probe), model.device.type)
    return sum(a == prompt.concept for a, (prompt, _) in zip(answers, probe.rows(), strict=True)), len(probe)


def main() -> None:
    """One line per trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+", choices=METHODS)
    parser.add_argument("--to", type=Path, required=True, help="CSV file; trials that it holds are not made again")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    made = set()
    if args.to.exists():
        made = {tuple(row[:3]) for row in csv.reader(args.to.open())}
    base = StableDiffusion.load(weights.directory(), args.device)
    with args.to.open("a", newline="") as file:
        table = csv.writer(file)
        if not made:
            table.writerow(COLUMNS)
        for word in args.methods:
            make, trials = METHODS[word]
            for settings, names in trials():
                if (word, repr(settings), str(names)) in made:
                    continue
                step = make(ERASED[:names], **settings)
                began = time.monotonic()
                model = step.apply(base, tiny_run(base))
                seconds = time.monotonic() - began
                erased, retained = drawn(model, step.concepts, 120), drawn(model, WATCHED, 150)
                table.writerow([word, repr(settings), names, *erased, *retained, f"{seconds:.0f}"])
                file.flush()


if __name__ == "__main__":
    main()
