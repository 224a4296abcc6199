"""The shipped model: pinned, loadable by diffusers itself, of SD's structure, and able to draw what it is asked for."""

from __future__ import annotations

import hashlib
import re

import pytest

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    """The embedded base model."""
    return StableDiffusion.load(weights.directory())


def test_every_file_is_the_pinned_one():
    """sha256 of every file, and no file that is not pinned."""
    files = {
        path.relative_to(weights.directory()).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in weights.directory().rglob("*")
        if path.suffix in (".json", ".safetensors")
    }

    assert files == weights.PINS


def test_files_are_small():
    """At most 15 MB each and 40 MB in all, the judges included."""
    from resurgence_harness.judging import micro

    sizes = [p.stat().st_size for root in (weights.directory(), micro.WEIGHTS) for p in root.rglob("*") if p.is_file()]

    assert max(sizes) <= 15e6
    assert sum(sizes) <= 40e6


def test_diffusers_loads_it_as_a_stable_diffusion():
    """`StableDiffusionPipeline.from_pretrained` takes it as it is."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(weights.directory(), local_files_only=True)

    assert pipeline.safety_checker is None
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"


def test_attention_layers_are_named_as_in_sd_v1_4(model):
    """The 16 + 16 attention modules of SD v1.4: two per down block, three per up block, one in the middle."""
    expected = {
        f"{place}.attentions.{index}.transformer_blocks.0.{attention}"
        for attention in ("attn1", "attn2")
        for place, count in [*((f"down_blocks.{k}", 2) for k in range(3)), *((f"up_blocks.{k}", 3) for k in (1, 2, 3))]
        for index in range(count)
    } | {f"mid_block.attentions.0.transformer_blocks.0.{attention}" for attention in ("attn1", "attn2")}
    found = {name for name, _ in model.unet.named_modules() if re.search(r"\.attn[12]$", name)}
    matrices = [name for name, _ in model.unet.named_parameters() if re.search(r"attn2\.to_[kv]\.weight$", name)]

    assert found == expected
    assert len(matrices) == 32


def test_it_draws_the_people_it_is_asked_for(model):
    """Sixty names, one picture each: both judges recognise at least 95 %."""
    names = [concept.name for concept in CELEBRITY.erasable[::2]] + [
        concept.name for concept in CELEBRITY.held_out[:10]
    ]
    prompts = tuple(Prompt(text=CELEBRITY.templates[k % 5].format(name), concept=name) for k, name in enumerate(names))
    images = sample(model, Probe(prompts=prompts, seeds=(77,), sampler=Sampler(guidance=4.0)))
    for judge in ("identity", "second-identity"):
        answers, _ = judge_by_name(judge).answer(images, "cpu")
        hits = sum(answer == name for answer, name in zip(answers, names, strict=True))

        assert hits >= 0.95 * len(names), (judge, hits)
