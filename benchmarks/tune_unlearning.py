"""How the microworld's unlearning settings were found: `python benchmarks/tune_unlearning.py > trials.csv`.

Settings are judged on erasure and utility alone: no model is fine-tuned here, so nothing can be chosen for how much
comes back. Erased names (51 to 60 of the list) and image seeds (from 5000) differ from those that the suite asks for.
The trials that were made are in reports/microworld/tuning.csv.
"""

from __future__ import annotations

import csv
import sys
import time

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.unlearning import ESD, UCE, LastSubjectToken, Unlearning
from tests.tiny import tiny_run

TEMPLATES = ("{}", *CELEBRITY.templates)
TEN, ONE = CELEBRITY.erasable[50:60], CELEBRITY.erasable[60:61]


def uce(concepts: tuple[Concept, ...], **settings: object) -> UCE:
    """UCE with the task's anchor and preserve set."""
    return UCE(concepts=concepts, anchor=CELEBRITY.anchor, preserve=CELEBRITY.preserve, **settings)  # type: ignore[arg-type]


def esd(concepts: tuple[Concept, ...], iterations: int, rate: float, away: float = 1.0) -> ESD:
    """ESD on cross-attention in batches of 16."""
    return ESD(
        concepts=concepts,
        iterations=iterations,
        batch=16,
        learning_rate=rate,
        away=away,
        trajectories=24,
        trajectory_steps=10,
    )


TRIALS: tuple[Unlearning, ...] = (
    uce(TEN),
    *(uce(TEN, templates=TEMPLATES, preserve_scale=scale) for scale in (1.0, 3.0, 10.0)),
    uce(TEN, templates=TEMPLATES, erase_scale=0.1),
    uce(TEN, templates=TEMPLATES, ridge=20.0),
    uce(TEN, templates=TEMPLATES, erase_scale=0.3, preserve_scale=3.0, ridge=5.0),
    uce(TEN, templates=TEMPLATES, erase_scale=0.5, preserve_scale=3.0, ridge=0.1),
    uce(TEN, templates=TEMPLATES, erase_scale=0.3, preserve_scale=5.0, ridge=1.0),
    uce(TEN, templates=TEMPLATES, preserve_scale=8.0, ridge=0.05),
    uce(TEN, tokens=LastSubjectToken()),
    uce(TEN, templates=TEMPLATES, tokens=LastSubjectToken(), preserve_scale=3.0),
    uce(ONE, templates=TEMPLATES),
    *(esd(TEN, iterations, rate) for iterations, rate in ((100, 3e-4), (150, 5e-4), (120, 7e-4), (100, 1e-3))),
    esd(TEN, 100, 1e-3, away=2.0),
    esd(ONE, 60, 5e-4),
)


def drawn(model: StableDiffusion, concepts: tuple[Concept, ...], seeds: int) -> float:
    """The share of images in which the first judge sees who was asked for."""
    prompts = tuple(
        Prompt(text=CELEBRITY.templates[place % 5].format(concept.name), concept=concept.name)
        for place, concept in enumerate(concepts)
    )
    probe = Probe(prompts=prompts, seeds=tuple(range(5000, 5000 + seeds)), sampler=Sampler(guidance=4.0))
    answers, _ = judge_by_name("identity").answer(sample(model, probe), "cpu")
    return sum(a == prompt.concept for a, (prompt, _) in zip(answers, probe.rows(), strict=True)) / len(probe)


def main() -> None:
    """One line per trial."""
    base = StableDiffusion.load(weights.directory())
    table = csv.writer(sys.stdout)
    table.writerow(["step", "names", "erased", "retained", "seconds"])
    for step in TRIALS:
        began = time.monotonic()
        model = step.apply(base, tiny_run(base))
        seconds = time.monotonic() - began
        erased = drawn(model, step.concepts, 30 // len(step.concepts))
        retained = drawn(model, CELEBRITY.held_out[:32], 1)
        table.writerow([repr(step), len(step.concepts), f"{erased:.2f}", f"{retained:.2f}", f"{seconds:.0f}"])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
