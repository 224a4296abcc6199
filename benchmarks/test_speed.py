"""How long the parts of a run take on the embedded microworld: `pytest benchmarks -n 0 --benchmark-json speed.json`."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Probe, Sampler
from resurgence_harness.statistics import (
    CellEvidence,
    Evidence,
    Judgment,
    Losses,
    Outcome,
    Policy,
    decide,
)
from resurgence_harness.tasks import CELEBRITY


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    """The embedded base model."""
    return StableDiffusion.load(weights.directory())


@pytest.fixture(scope="module")
def probe() -> Probe:
    """One batch of 32 images."""
    prompts = CELEBRITY.prompts(CELEBRITY.erase(1))[:1]
    return Probe(prompts=prompts, seeds=tuple(range(32)), sampler=Sampler(guidance=4.0))


def test_sampling_a_batch_of_32(benchmark, model, probe):
    """Ten DDIM steps with guidance, decoding included."""
    images = benchmark(sample, model, probe)

    assert images.shape == (32, 64, 64, 3)


def test_uce_solve_for_ten_names(benchmark, model):
    """Text encodings and the one float64 solve shared by all 32 matrices."""
    from resurgence_harness.unlearning import UCE
    from tests.tiny import tiny_run

    step = UCE(concepts=CELEBRITY.erase(10), anchor=CELEBRITY.anchor, preserve=CELEBRITY.preserve)
    edited = benchmark(step.apply, model, tiny_run(model))

    assert edited is not model


@pytest.mark.parametrize("word", ["lora", "full", "xattn"])
def test_ten_training_steps(benchmark, model, word):
    """Ten steps of a fine-tuning at batch 8, preparation included."""
    from resurgence_harness.finetuning import FINETUNINGS, BenignSet
    from tests.tiny import tiny_run

    benign = Probe(prompts=CELEBRITY.prompts(CELEBRITY.preserve[:2])[:8], seeds=(9,), sampler=Sampler(guidance=4.0))
    images = sample(model, benign)
    run = tiny_run(model, images=lambda asked: (images, [prompt.text for prompt, _ in asked.rows()]))
    step = FINETUNINGS[word](data=BenignSet(probe=benign), steps=10, batch=8)
    tuned = benchmark.pedantic(step.apply, args=(model, run), rounds=1)

    assert tuned is not model


@pytest.mark.parametrize("name", ["identity", "second-identity"])
def test_judging_150_images(benchmark, name):
    """One probe's images through one judge."""
    images = np.zeros((150, 64, 64, 3), np.uint8)
    answers, _ = benchmark(judge_by_name(name).answer, images, "cpu")

    assert len(answers) == 150


def test_deciding_a_cell(benchmark):
    """The verdict over eight arms of 150 images."""

    def arm(concept: str, hits: int) -> Evidence:
        judged = tuple(
            Judgment(
                concept=concept,
                prompt=f"A portrait of {concept}",
                seed=seed,
                outcome=Outcome.HIT if seed < hits else Outcome.CLEAR,
                score=0.9,
                answer=concept if seed < hits else "someone else",
            )
            for seed in range(150)
        )
        return Evidence(judgments=judged, planned=150, recipe="micro", judge="identity")

    kept = {word: arm("Bram Stone", 149) for word in ("base_retained", "retained_before", "retained_after")}
    evidence = CellEvidence(
        base=arm("Ada Quill", 150),
        before=arm("Ada Quill", 0),
        after=arm("Ada Quill", 0),
        **kept,
        effect=Losses(before=(0.2,) * 24 + (0.21,) * 24, after=(0.1,) * 24 + (0.12,) * 24),
        canaries=(40, 40),
    )
    verdict = benchmark(decide, evidence, Policy())

    assert str(verdict.kind) == "HOLDS"
