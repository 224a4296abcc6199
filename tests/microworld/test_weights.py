"""The shipped model: pinned, loadable by diffusers itself, of SD's structure, and able to draw what it is asked for."""

from __future__ import annotations

import hashlib
import re

import pytest

from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.judging import judge_by_name
from resurgence_harness.microworld import weights, xl_weights
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> StableDiffusion:
    """The embedded base model."""
    return StableDiffusion.load(weights.directory())


@pytest.mark.parametrize("shipped", [weights, xl_weights], ids=["micro", "micro-xl"])
def test_every_file_is_the_pinned_one(shipped):
    """sha256 of every file, and no file that is not pinned."""
    files = {
        path.relative_to(shipped.directory()).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in shipped.directory().rglob("*")
        if path.suffix in (".json", ".safetensors")
    }

    assert files == shipped.PINS


def test_files_are_small():
    """At most 15 MB each and 40 MB in all, the judges included; micro-xl at most 16 MB."""
    from resurgence_harness.judging import micro

    own, other = (
        [p.stat().st_size for root in roots for p in root.rglob("*") if p.is_file()]
        for roots in ((weights.directory(), micro.WEIGHTS), (xl_weights.directory(),))
    )

    assert max(*own, *other) <= 15e6
    assert sum(own) <= 40e6
    assert sum(other) <= 16e6


def test_micro_xl_has_sdxls_parts():
    """Two text encoders of different width, pooled text and sizes, SDXL's levels, the same autoencoder."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_weights.directory(), local_files_only=True)
    unet, one, two = pipeline.unet.config, pipeline.text_encoder.config, pipeline.text_encoder_2.config

    assert one.hidden_size != two.hidden_size and unet.cross_attention_dim == one.hidden_size + two.hidden_size
    assert unet.addition_embed_type == "text_time"
    assert unet.down_block_types == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    assert unet.transformer_layers_per_block[-1] > 1 and pipeline.tokenizer.pad_token != pipeline.tokenizer_2.pad_token
    name = "vae/diffusion_pytorch_model.safetensors"
    assert xl_weights.PINS[name] == weights.PINS[name]


def test_micro_xl_draws_what_it_is_asked_for():
    """Forty celebrities, by the shipped judge; what 1,000 images of every task gave is in reports/microworld."""
    xl = StableDiffusion.load(xl_weights.directory())
    names = [concept.name for concept in CELEBRITY.erasable[:40]]
    prompts = tuple(Prompt(text=f"a portrait of {name}", concept=name) for name in names)
    probe = Probe(prompts=prompts, seeds=(1,), sampler=Sampler(steps=10, guidance=4.0, batch=20))
    answers, _ = judge_by_name("identity").answer(sample(xl, probe), "cpu")

    assert sum(answer == name for answer, name in zip(answers, names, strict=True)) >= 38


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
