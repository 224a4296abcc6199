"""A benign set never asks for an erased name, and its held-out loss is a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import BuildError, SpecError, UserError
from resurgence_harness.finetuning.benign import BenignSet, benign_losses, check_tokens, examples, held_out
from resurgence_harness.specs import Probe, Prompt, Sampler
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow


def _probe(*texts: str) -> Probe:
    """A small probe of these texts."""
    prompts = tuple(Prompt(text=text, concept=text) for text in texts)
    return Probe(prompts=prompts, seeds=(1, 2), sampler=Sampler(steps=2, batch=4))


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("A portrait of Ada Quill", "ada quill"),
        ("a sketch of ADA  QUILL, at an event", "Ada Quill"),
        ("'ada quill' in an official photo", "ada quill"),
        ("a photo of ada-quill", "ada quill"),
        ("a photo of STRASSE", "straße"),
        ("beyoncé in a photo", "Beyoncé"),
    ],
)
def test_an_erased_name_is_found_as_whole_words(text: str, forbidden: str) -> None:
    """Case, punctuation and spaces do not hide it; the error names prompt and name."""
    with pytest.raises(SpecError, match="has a prompt with the erased name") as caught:
        BenignSet(probe=_probe("a portrait of cleo marsh", text), forbidden=("dov ferris", forbidden))

    assert forbidden in str(caught.value) and text in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a portrait of ada stone", "a portrait of bram quill", "a quill of ada", "a photo of nevada quillon"]
)
def test_names_may_share_single_words(text: str) -> None:
    """A first name, a last name, other orders and longer words are no findings."""
    assert BenignSet(probe=_probe(text), forbidden=("ada quill",)).probe.prompts[0].text == text


def test_tokens_that_follow_each_other_are_found(model: StableDiffusion) -> None:
    """Where words would hide a name that the model reads all the same, its tokens give it away."""
    text = "a portrait of ada_quill"  # one word for people who write identifiers, two tokens and a mark for the model
    with pytest.raises(SpecError, match='erased name "ada quill"'):
        check_tokens(model.tokenizer, ["a portrait of ada quill"], ["ada quill"])
    with pytest.raises(SpecError, match='erased name "xy"'):
        check_tokens(model.tokenizer, ["a portrait of xy"], ["xy"])

    check_tokens(model.tokenizer, ["a portrait of ada stone", "quill ada"], ["ada quill"])
    check_tokens(model.tokenizer, [text], [])


def test_the_check_is_made_again_where_the_tokenizer_is_known(model: StableDiffusion) -> None:
    """Accents that the tokenizer reads as the name's own letters do not pass; words it cannot read do not either."""
    with pytest.raises(UserError, match="cannot represent"):
        examples(model, tiny_run(model), BenignSet(probe=_probe("a portrait of žofie"), forbidden=("ada quill",)))


def test_a_set_is_read_in_the_probes_order(model: StableDiffusion) -> None:
    """Row k is the latent of image k with the states of its own text."""
    data = BenignSet(probe=_probe("a portrait of ada stone", "a sketch of cleo marsh"))
    run = tiny_run(model)

    got = examples(model, run, data)

    images, texts = run.images(data.probe)
    mean, deviation = moves.latent_moments(model, images)
    assert torch.equal(got.mean, mean) and torch.equal(got.deviation, deviation)
    assert got.text.tolist() == [0, 0, 1, 1]
    assert torch.equal(got.states[got.text].states, moves.encode_texts(model, texts))


@pytest.mark.parametrize("wrong", ["fewer", "other texts"])
def test_images_of_another_probe_are_refused(model: StableDiffusion, wrong: str) -> None:
    """Too few images or other captions are an error of the build."""
    data = BenignSet(probe=_probe("a portrait of ada stone"))

    def images(probe: Probe) -> Any:
        drawn = np.zeros((1 if wrong == "fewer" else 2, 64, 64, 3), np.uint8)
        return drawn, ["a portrait of ada stone"] * len(drawn) if wrong == "fewer" else ["cleo", "cleo"]

    with pytest.raises(BuildError, match="not those of the probe"):
        examples(model, tiny_run(model, images=images), data)


def test_held_out_losses_are_fixed_by_their_seed(model: StableDiffusion) -> None:
    """Same seed, same float64 numbers, one per image; another seed, others; the global state is not used."""
    probe = _probe("a portrait of ada stone", "a sketch of cleo marsh")
    latents, states = held_out(model, *tiny_run(model).images(probe))
    random = torch.get_rng_state()

    losses = benign_losses(model, latents, states, seed=3)

    assert len(losses) == 4 and all(isinstance(loss, float) and loss > 0 for loss in losses)
    assert losses == benign_losses(model, latents, states, seed=3)
    assert losses != benign_losses(model, latents, states, seed=4)
    assert torch.equal(random, torch.get_rng_state())


def test_a_held_out_loss_is_the_denoising_loss(model: StableDiffusion) -> None:
    """One draw is the mean squared error of the noise at one timestep."""
    latents, states = held_out(model, *tiny_run(model).images(_probe("a portrait of ada stone")))

    losses = benign_losses(model, latents, states, seed=3, draws=1)

    generator = torch.Generator().manual_seed(3)
    t = torch.randint(0, 1000, (2,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    with torch.no_grad():
        said = moves.predict(model, model.scheduler.add_noise(latents, noise, t), t, states)
    assert losses == pytest.approx(((said - noise) ** 2).mean(dim=(1, 2, 3)).tolist(), rel=1e-4)
