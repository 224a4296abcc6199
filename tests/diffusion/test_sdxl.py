"""A tiny SDXL of the real classes: the same texts, latents and images as diffusers' own pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.description import describe
from resurgence_harness.diffusion.families import SDXL
from resurgence_harness.diffusion.model import StableDiffusion, difference, load_difference, tensors
from resurgence_harness.errors import SpecError, UserError
from tests.tiny import save_tiny_stable_diffusion_xl

PROMPTS = ["a portrait of ada quill", "a photo of bram quill"]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL."""
    return save_tiny_stable_diffusion_xl(tmp_path_factory.mktemp("xl") / "base")


@pytest.fixture(scope="module")
def model(directory: Path) -> StableDiffusion:
    """The same, loaded."""
    return StableDiffusion.load(directory)


def by_diffusers(model: StableDiffusion, noise: torch.Tensor, *, output: str, **options: Any) -> torch.Tensor:
    """What diffusers' own pipeline draws from the noise."""
    pipeline = model.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt=PROMPTS,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=64,
        width=64,
        latents=noise.clone(),
        output_type=output,
        **options,
    )
    return drawn.images


def ours(model: StableDiffusion, noise: torch.Tensor, *, sizes: list[int] | None = None) -> torch.Tensor:
    """The latents that `moves` gives from the noise."""
    with torch.inference_mode():
        c, empty = moves.conditions(model, PROMPTS), moves.conditions(model, [""])
        if sizes is not None:
            rows = torch.tensor([sizes], dtype=torch.float32)
            c, empty = replace(c, sizes=rows.expand(2, -1)), replace(empty, sizes=rows)
        return moves.denoise(model, noise, c, empty, steps=4, guidance=5.0)


@pytest.mark.parametrize(
    ("predicts", "zero_snr", "skip", "negative"),
    [
        ("epsilon", False, None, None),
        ("epsilon", False, 1, None),
        ("epsilon", False, 2, ""),
        ("v_prediction", False, None, ""),
        ("v_prediction", True, 0, None),
        ("v_prediction", True, 1, ""),
    ],
)
def test_latents_and_images_are_those_of_diffusers(
    tmp_path: Path, predicts: str, zero_snr: bool, skip: int | None, negative: str | None
) -> None:
    """For both predictions, zero terminal SNR, clip skip, and both kinds of empty text."""
    folder = save_tiny_stable_diffusion_xl(
        tmp_path / "base", prediction_type=predicts, zero_snr=zero_snr, force_zeros=negative is None
    )
    model = replace(StableDiffusion.load(folder), clip_skip=skip or 0)
    noise = moves.initial_noise(model, [1, 2], height=64, width=64)
    options = {"clip_skip": skip, "negative_prompt": None if negative is None else [negative] * 2}
    theirs = by_diffusers(model, noise, output="latent", **options)
    mine = ours(model, noise)
    assert torch.isfinite(mine).all()
    assert (mine - theirs).abs().max() < CLOSE
    images = torch.as_tensor(by_diffusers(model, noise, output="np", **options))
    with torch.inference_mode():
        pixels = (moves.decode_pixels(model, mine) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert (pixels - images).abs().max() < CLOSE
    assert torch.equal(moves.rounded(moves.decode_pixels(model, theirs)), (images * 255).round().to(torch.uint8))


def test_cropped_sizes_are_those_of_diffusers(model: StableDiffusion) -> None:
    """Sizes of an original and a crop are read as diffusers reads them, and matter."""
    noise = moves.initial_noise(model, [1, 2], height=64, width=64)
    cropped = {"original_size": (96, 128), "crops_coords_top_left": (8, 24), "target_size": (64, 64)}
    theirs = by_diffusers(model, noise, output="latent", **cropped)
    mine = ours(model, noise, sizes=[96, 128, 8, 24, 64, 64])
    assert (mine - theirs).abs().max() < CLOSE
    assert (ours(model, noise) - theirs).abs().max() > 100 * CLOSE


def test_without_sizes_images_are_as_large_as_they_were(model: StableDiffusion) -> None:
    """Time ids come from the latents: the size of training or sampling."""
    x_t = torch.zeros(2, 4, 4, 8)
    added = moves.added_conditions(model, x_t, moves.conditions(model, PROMPTS))
    assert added["time_ids"].tolist() == [[32, 64, 0, 0, 32, 64]] * 2
    assert added["text_embeds"].shape == (2, 20)


def test_a_prediction_without_pooled_text_is_refused(model: StableDiffusion) -> None:
    """Text states alone are not all that SDXL reads."""
    states = moves.encode_texts(model, PROMPTS)
    with pytest.raises(SpecError, match="lacks the pooled text"):
        moves.predict(model, torch.zeros(2, 4, 8, 8), 5, states)


def test_a_time_id_count_that_does_not_fit_is_refused(model: StableDiffusion) -> None:
    """Five numbers are not six."""
    c = replace(moves.conditions(model, PROMPTS), sizes=torch.zeros(2, 5))
    with pytest.raises(SpecError, match="reads 6 sizes"):
        moves.predict(model, torch.zeros(2, 4, 8, 8), 5, c)


def test_more_clip_skip_than_layers_is_refused(model: StableDiffusion) -> None:
    """There are five hidden states."""
    with pytest.raises(SpecError, match="hidden states has none to read"):
        moves.conditions(replace(model, clip_skip=4), PROMPTS)


def test_the_empty_text_is_zero_where_the_model_says_so(tmp_path: Path, model: StableDiffusion) -> None:
    """force_zeros_for_empty_prompt applies to the empty text alone."""
    assert not moves.conditions(model, [""]).states.any()
    other = StableDiffusion.load(save_tiny_stable_diffusion_xl(tmp_path / "base", force_zeros=False))
    mixed = moves.conditions(other, ["", *PROMPTS])
    assert mixed.states[0].any()
    assert torch.equal(moves.conditions(model, ["", *PROMPTS])[[1, 2]].states, mixed[[1, 2]].states)


def test_model_index_is_part_of_the_digest(tmp_path: Path, directory: Path) -> None:
    """Its setting changes images, so another setting is another model."""
    other = save_tiny_stable_diffusion_xl(tmp_path / "base", force_zeros=False)
    assert describe(other).family is SDXL
    mine, theirs = describe(directory), describe(other)
    assert mine.digest != theirs.digest
    assert {name for name in mine.hashes if mine.hashes[name] != theirs.hashes[name]} == {"model_index.json"}


def test_differences_hold_both_text_encoders(model: StableDiffusion) -> None:
    """A delta of all three parts gives the model back."""
    changed = model.copy(texts=True)
    with torch.no_grad():
        for part in (changed.unet, *changed.encoders):
            next(iter(part.parameters())).add_(1)
    delta = difference(changed, model)
    assert {name.partition(".")[0] for name in delta} == {"unet", "text_encoder", "text_encoder_2"}
    again = load_difference(model, delta)
    assert all(torch.equal(value, tensors(changed)[name]) for name, value in tensors(again).items())
    assert not difference(model, model.copy(texts=True))


def test_conditions_keep_their_rows_together() -> None:
    """States and pooled text are indexed alike."""
    c = Conditions(torch.arange(6.0).view(3, 1, 2), torch.arange(3.0).view(3, 1))
    part = c[[2, 0]]
    assert part.pooled is not None
    assert part.states[:, 0, 0].tolist() == [4, 0]
    assert part.pooled[:, 0].tolist() == [2, 0]
    assert len(c[:1].expand(5)) == 5


def test_loading_with_a_digest_reads_the_same_bytes(directory: Path) -> None:
    """As for other families."""
    StableDiffusion.load(directory, digest=describe(directory).digest)
    with pytest.raises(UserError, match="not those that were checked"):
        StableDiffusion.load(directory, digest="0" * 64)
