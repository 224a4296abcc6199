"""The moves agree with diffusers and with the formulas they are named after."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import SpecError, UserError

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_text_states_are_the_pipelines(load: Load, style: str) -> None:
    """The same states as StableDiffusionPipeline.encode_prompt gives, in the order asked, repeats included."""
    model = load(style)
    texts = ["a portrait of ada quill", "", "ada quill", "a portrait of ada quill"]

    states = moves.encode_texts(model, texts)
    expected, _ = model.pipeline().encode_prompt(texts, "cpu", 1, do_classifier_free_guidance=False)

    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(states[0], states[3])


def test_a_name_that_cannot_be_represented_is_named(model: StableDiffusion) -> None:
    """The unknown word is in the sentence; a spelled word is not refused."""
    moves.check_texts(model.tokenizer, ["a portrait of xavier"])
    with pytest.raises(UserError, match="cannot represent") as caught:
        moves.encode_texts(model, ["ada quill", "a portrait of Žofie quill"])

    assert "Žofie" in str(caught.value)


def test_a_text_that_does_not_fit_is_refused(model: StableDiffusion) -> None:
    """22 tokens fit, 23 are refused instead of cut off."""
    moves.check_texts(model.tokenizer, [" ".join(["ada"] * 22)])
    with pytest.raises(UserError, match="does not fit"):
        moves.check_texts(model.tokenizer, [" ".join(["ada"] * 23)])


@pytest.mark.parametrize(
    ("text", "subject", "position"),
    [
        ("ada quill", "ada quill", 2),
        ("A portrait of Ada Quill", "Ada Quill", 5),
        ("ada quill in an official photo", "ada quill", 2),
        ("ada stone of ada quill", "ada quill", 5),
        ("zed quill", "zed", 3),
        ("", "", 0),
        ("a portrait of", "", 3),
    ],
)
def test_the_last_subject_token_is_found(model: StableDiffusion, text: str, subject: str, position: int) -> None:
    """Positions count the begin token, spelled words have one a letter, and an empty subject is the text's end."""
    assert moves.last_subject_token(model.tokenizer, text, subject) == position


def test_a_subjects_tokens_and_the_end_are_found(model: StableDiffusion) -> None:
    """All tokens of the last occurrence; an empty subject has none; the end token comes after the text's last."""
    text = "ada quill and ada quill at event"

    assert moves.subject_tokens(model.tokenizer, text, "ada quill") == range(6, 8)  # "and" is spelled with three
    assert len(moves.subject_tokens(model.tokenizer, text, "")) == 0
    for sought in (text, "ada quill", ""):
        ids = model.tokenizer(sought, padding="max_length").input_ids
        assert moves.end_token(model.tokenizer, sought) == ids.index(model.tokenizer.eos_token_id)


def test_a_subject_stands_where_the_template_puts_it(model: StableDiffusion) -> None:
    """Not where the same words come again: "{} and a quill" filled with "a quill"."""
    text, own = moves.filled(model.tokenizer, "{} and ada quill", "ada quill")
    assert text == "ada quill and ada quill"
    assert own == range(1, 3)
    assert moves.subject_tokens(model.tokenizer, text, "ada quill").start > own.stop
    assert moves.filled(model.tokenizer, "a portrait of {}", "ada quill")[1] == moves.subject_tokens(
        model.tokenizer, "a portrait of ada quill", "ada quill"
    )
    assert len(moves.filled(model.tokenizer, "a portrait of {}", "")[1]) == 0


def test_a_text_without_its_subject_is_refused(model: StableDiffusion) -> None:
    """A subject that is not there has no position."""
    with pytest.raises(SpecError, match="does not contain"):
        moves.last_subject_token(model.tokenizer, "a portrait of bram quill", "ada quill")


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_noise_and_targets_are_the_schedulers(load: Load, style: str) -> None:
    """add_noise and target are diffusers' own add_noise and get_velocity (or the noise itself)."""
    model = load(style)
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn((2, 5, 4, 8, 8), generator=generator)
    t = torch.tensor([0, 1, 500, 981, 999])

    velocity = model.scheduler.get_velocity(x_0, noise, t)

    torch.testing.assert_close(moves.add_noise(model, x_0, noise, t), model.scheduler.add_noise(x_0, noise, t))
    torch.testing.assert_close(moves.target(model, x_0, noise, t), noise if style == "v1" else velocity)


def test_initial_noise_depends_on_the_seed_alone(model: StableDiffusion) -> None:
    """An image's noise is the same in every batch and is the official batch-1 noise; the global state is not used."""
    before = torch.get_rng_state()
    both = moves.initial_noise(model, [7, 8], height=64, width=64)

    alone = moves.initial_noise(model, [8], height=64, width=64)
    official = torch.randn((1, 4, 8, 8), generator=torch.Generator("cpu").manual_seed(8))

    assert torch.equal(both[1:], alone)
    assert torch.equal(alone, official)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_denoising_is_the_pipelines(load: Load, style: str) -> None:
    """The same latents as StableDiffusionPipeline with DDIM, and the moments are at exactly the sampler's timesteps."""
    model = load(style)
    noise = moves.initial_noise(model, [3], height=64, width=64)
    states, empty = moves.encode_texts(model, ["a sketch of ada quill"]), moves.encode_texts(model, [""])
    seen: list[moves.Moment] = []
    with torch.no_grad():
        end = moves.denoise(model, noise, states, empty, steps=4, guidance=5.0, watch=seen.append)
    pipeline = model.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        "a sketch of ada quill", num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="latent"
    ).images

    torch.testing.assert_close(end, drawn, atol=1e-4, rtol=1e-4)
    assert [moment.t for moment in seen] == moves.timesteps(model, 4) == [751, 501, 251, 1]
    assert torch.equal(seen[0].x_t, noise)


def test_x_t_comes_after_exactly_i_steps(model: StableDiffusion) -> None:
    """Moment i holds x after i scheduler steps, paired with timesteps[i] (ESD's property e)."""
    noise = moves.initial_noise(model, [3], height=64, width=64)
    states, empty = moves.encode_texts(model, ["ada quill"]), moves.encode_texts(model, [""])
    seen: list[moves.Moment] = []
    with torch.no_grad():
        moves.denoise(model, noise, states, empty, steps=5, guidance=3.0, watch=seen.append)
        scheduler = type(model.scheduler).from_config(model.scheduler.config)
        scheduler.set_timesteps(5)
        x = noise
        for i, t in enumerate(scheduler.timesteps):
            assert seen[i].t == t
            torch.testing.assert_close(seen[i].x_t, x)
            torch.testing.assert_close(seen[i].prompted, moves.predict(model, x, t, states), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(seen[i].empty, moves.predict(model, x, t, empty), atol=1e-5, rtol=1e-4)
            guided = seen[i].empty + 3.0 * (seen[i].prompted - seen[i].empty)
            x = scheduler.step(guided, t, x, eta=0.0).prev_sample


def test_a_texts_keys_and_values_are_computed_once(model: StableDiffusion) -> None:
    """The 32 matrices see the text once however many steps there are; the bits are those of asking at every step."""
    noise = moves.initial_noise(model, [3], height=64, width=64)
    states, empty = moves.encode_texts(model, ["ada quill"]), moves.encode_texts(model, [""])
    matrices = {name: m for name, m in model.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))}
    with torch.no_grad():
        scheduler = type(model.scheduler).from_config(model.scheduler.config)
        scheduler.set_timesteps(4)
        x = noise
        for t in scheduler.timesteps.tolist():
            nothing, prompted = moves.predict(
                model, torch.cat([x, x]), t, torch.cat([empty.expand_as(states), states])
            ).chunk(2)
            x = scheduler.step(nothing + 3.0 * (prompted - nothing), t, x, eta=0.0, return_dict=False)[0]
        computed: list[str] = []
        linear = torch.nn.functional.linear
        weights = {id(m.weight) for m in matrices.values()}

        def counting(value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            if id(weight) in weights:
                computed.append("computed")
            return linear(value, weight, bias)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.functional, "linear", counting)
            end = moves.denoise(model, noise, states, empty, steps=4, guidance=3.0)

    assert len(matrices) == 32 and len(computed) == 32
    assert torch.equal(end, x)


def test_a_texts_keys_and_values_are_forgotten_after_an_error(model: StableDiffusion) -> None:
    """A sampler that is stopped half-way leaves no old text in the model."""
    noise = moves.initial_noise(model, [3], height=64, width=64)
    states, empty = moves.encode_texts(model, ["ada quill"]), moves.encode_texts(model, [""])

    def stop(moment: moves.Moment) -> None:
        raise KeyboardInterrupt

    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        moves.denoise(model, noise, states, empty, steps=4, guidance=3.0, watch=stop)

    assert not any("forward" in vars(module) for module in model.unet.modules())


def test_latents_and_images_are_the_vaes(model: StableDiffusion) -> None:
    """Moments are the posterior's times the scaling factor; decoding rounds as diffusers' image processor does."""
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)

    mean, deviation = moves.latent_moments(model, images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        posterior = model.vae.encode(pixels).latent_dist
        decoded = moves.decode(model, mean)
        official = model.pipeline().image_processor.postprocess(
            model.vae.decode(mean / model.vae.config.scaling_factor).sample, output_type="np"
        )

    torch.testing.assert_close(mean, posterior.mean * model.vae.config.scaling_factor)
    torch.testing.assert_close(deviation, posterior.std * model.vae.config.scaling_factor)
    assert decoded.dtype == torch.uint8
    assert np.array_equal(decoded.numpy(), (official * 255).round().astype(np.uint8))


def test_large_images_are_encoded_a_few_at_a_time(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 images of 128 pixels fill a forward pass, so four of 512; what comes out is the same."""
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    together, _ = moves.latent_moments(model, images)
    sizes: list[int] = []
    hook = model.vae.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    try:
        monkeypatch.setattr(moves, "PIXELS", 16 * 8)
        apart, _ = moves.latent_moments(model, images)
    finally:
        hook.remove()
    assert sizes == [2, 2, 1]
    torch.testing.assert_close(apart, together)
    assert moves.BATCH * 128 * 128 // (512 * 512) == 4


def test_errors_are_those_of_noise_for_velocity_too(load: Load) -> None:
    """At one x_t, two noise predictions and the same two as velocities are equally far apart, image by image."""
    x_t, one, other = (torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    t = torch.tensor([20, 500, 981])
    a = moves.signal(load("v2"), t)
    velocities = [(noise - (1 - a**2).sqrt() * x_t) / a for noise in (one, other)]

    errors = moves.noise_errors(load("v1"), one, other, t)

    torch.testing.assert_close(errors, ((one - other) ** 2).mean(dim=(1, 2, 3)))
    torch.testing.assert_close(moves.noise_errors(load("v2"), *velocities, t), errors, rtol=1e-3, atol=1e-4)
