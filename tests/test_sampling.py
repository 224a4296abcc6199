"""Images are paired by prompt and seed, whatever stands beside them in the batch and whatever the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resurgence_harness.bench import Bench
from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.base_files import digest_of
from resurgence_harness.diffusion.half.drawing import Halves
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.errors import BuildError, SpecError, UserError
from resurgence_harness.sampling import NotInFloat16, sample
from resurgence_harness.specs import Base, Probe, Prompt, Recipe, Sampler
from resurgence_harness.storing import Store
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

ADA, CLEO = (Prompt(text=f"a portrait of {name}", concept=name) for name in ("ada quill", "cleo marsh"))
PROBE = Probe(prompts=(ADA, CLEO), seeds=(3, 1, 2), sampler=Sampler(steps=3, batch=4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion's directory."""
    return save_tiny_stable_diffusion(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def model(base: Path) -> StableDiffusion:
    """The tiny Stable Diffusion."""
    return StableDiffusion.load(base)


@pytest.fixture(scope="module")
def images(model: StableDiffusion) -> np.ndarray:
    """The probe, drawn once."""
    return sample(model, PROBE)


def test_images_come_in_the_probes_order(model: StableDiffusion, images: np.ndarray) -> None:
    """Row k is (prompt k // n, seed k % n), as StableDiffusionPipeline draws it alone, within one grey level."""
    pipeline = model.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    assert images.shape == (6, 64, 64, 3) and images.dtype == np.uint8
    for image, (prompt, seed) in zip(images, PROBE.rows(), strict=True):
        noise = moves.initial_noise(model, [seed], height=64, width=64)
        alone = pipeline(prompt.text, num_inference_steps=3, guidance_scale=7.5, latents=noise, output_type="np").images
        assert np.abs((alone[0] * 255).round() - image).max() <= 1


def test_of_a_written_prompt_what_the_model_cannot_read_is_cut_off(model: StableDiffusion) -> None:
    """As in StableDiffusionPipeline; a prompt that nobody wrote out is refused, for what is cut could be the name."""
    words = ["photo", "of", "ada", "quill"] * 10
    read = model.tokenizer.model_max_length - 2
    long, cut = (Prompt(text=" ".join(words[:n]), concept="ada quill", written=True) for n in (40, read))
    once = replace(PROBE, seeds=(1,))
    both = sample(model, replace(once, prompts=(long, cut)))
    assert np.array_equal(both[0], both[1])
    assert not np.array_equal(both[0], sample(model, replace(once, prompts=(ADA,)))[0])
    for prompts in ((replace(long, written=False),), (long, Prompt(text=long.text, concept="another"))):
        with pytest.raises(UserError, match="does not fit the base model"):
            sample(model, replace(once, prompts=prompts))


def test_the_same_probe_gives_the_same_bytes(model: StableDiffusion, images: np.ndarray) -> None:
    """Whatever the global random state and grad mode are; neither is touched, nor are the weights."""
    weights = {name: value.clone() for name, value in tensors(model).items()}
    random = torch.get_rng_state()
    with torch.enable_grad():
        again = sample(model, PROBE)
        grad = torch.is_grad_enabled()

    assert np.array_equal(again, images)
    assert torch.equal(random, torch.get_rng_state()) and grad
    assert all(torch.equal(value, weights[name]) for name, value in tensors(model).items())


def test_a_place_in_the_batch_does_not_change_an_image(model: StableDiffusion, images: np.ndarray) -> None:
    """The same prompt and seed among other neighbours, and in a padded batch, is the same to the byte."""
    turned = replace(PROBE, prompts=(CLEO, ADA), seeds=(2, 5, 3))
    few = replace(PROBE, prompts=(CLEO,), seeds=(1,))

    drawn = sample(model, turned)

    assert np.array_equal(drawn[0], images[5]) and np.array_equal(drawn[2], images[3])
    assert np.array_equal(drawn[3], images[2]) and np.array_equal(drawn[5], images[0])
    assert np.array_equal(sample(model, few)[0], images[4])


def test_weights_there_and_back_draw_the_same(model: StableDiffusion, images: np.ndarray) -> None:
    """A → B → A is A again: nothing of a model stays in the sampler."""
    changed = model.copy()
    tensors(changed)["unet.conv_out.weight"].mul_(1.5)

    other = sample(changed, PROBE)

    assert not np.array_equal(other, images)
    assert np.array_equal(sample(model, PROBE), images)


def test_progress_counts_images(model: StableDiffusion) -> None:
    """After each batch, without the padding."""
    told: list[tuple[int, int]] = []

    sample(model, PROBE, progress=lambda done, total: told.append((done, total)))

    assert told == [(4, 6), (6, 6)]


def test_guidance_and_size_are_the_samplers(model: StableDiffusion) -> None:
    """Guidance changes the image; height and width are pixels."""
    one = replace(PROBE, seeds=(1,), sampler=Sampler(steps=2, batch=2, guidance=1.0, height=32, width=64))
    more = replace(one, sampler=replace(one.sampler, guidance=9.0))

    assert sample(model, one).shape == (2, 32, 64, 3)
    assert not np.array_equal(sample(model, one), sample(model, more))


def test_a_size_that_cannot_be_drawn_is_refused(model: StableDiffusion) -> None:
    """Pixels must be multiples of eight."""
    with pytest.raises(SpecError, match="60 × 64 pixels cannot be drawn"):
        sample(model, replace(PROBE, sampler=Sampler(height=60)))


def test_a_name_the_tokenizer_cannot_represent_is_named(model: StableDiffusion) -> None:
    """Before anything is drawn."""
    with pytest.raises(UserError, match="Žofie"):
        sample(model, replace(PROBE, prompts=(Prompt(text="a portrait of Žofie", concept="Žofie"),)))


def test_a_model_that_draws_nothing_is_an_error(model: StableDiffusion) -> None:
    """NaN would be a black image, and black images look safe."""
    broken = model.copy()
    tensors(broken)["unet.conv_out.bias"].fill_(float("nan"))

    with pytest.raises(BuildError, match="draws NaN or infinity"):
        sample(broken, PROBE)


HALF = replace(PROBE, sampler=replace(PROBE.sampler, arithmetic="float16"))


def test_float16_draws_the_same_images_but_for_rounding(model: StableDiffusion, images: np.ndarray) -> None:
    """On a CPU, too: other bytes than float32's, ten times nearer to them than other seeds are, the same every time."""
    halves = Halves()
    drawn = sample(model, HALF, halves=halves)
    other = model.copy()
    tensors(other)["unet.conv_out.weight"].mul_(1.5)
    changed = sample(other, HALF, halves=halves)

    assert not np.array_equal(drawn, images)
    apart = np.abs(images[0].astype(float) - images[1]).mean()
    assert np.abs(images.astype(float) - drawn).mean() < apart / 10
    assert np.array_equal(sample(model, HALF, halves=halves), drawn) and not np.array_equal(changed, drawn)
    assert np.array_equal(sample(other, HALF), changed)


def test_what_float16_cannot_hold_is_a_sentence(base: Path, tmp_path: Path) -> None:
    """Weights of a million: float32 draws on; float16 ends, never falling back, and says what to set."""
    model = StableDiffusion.load(base)
    tensors(model)["unet.conv_out.weight"].fill_(1e6)
    sample(model, replace(PROBE, seeds=(1,)))
    with pytest.raises(NotInFloat16, match=r"in float16, so there is no image(.|\n)*sampler\.arithmetic=float32"):
        sample(model, replace(HALF, seeds=(1,)))

    model.pipeline().save_pretrained(tmp_path / "large")
    large = Base(digest=digest_of(tmp_path / "large"), name="large", location=str(tmp_path / "large"))
    with pytest.raises(UserError, match=r"sampler\.arithmetic=float32"):  # of a base it is the user's choice
        Bench(Store(tmp_path / "store")).images(Recipe(large), HALF)
    with pytest.raises(SpecError, match="known"):
        replace(HALF.sampler, arithmetic="half")  # type: ignore[arg-type]
