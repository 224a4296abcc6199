"""Masks: four sources, one latent grid, kept in the store, never empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import watched
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.errors import BuildError, SpecError, UserError
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.storing.keys import key
from resurgence_harness.unlearning.masks import (
    AttentionMasks,
    GivenMasks,
    MaskSource,
    SegmentedMasks,
    WholeImage,
    above,
    attention_to,
    concept_masks,
    name_tokens,
    resized,
)
from tests.tiny import NAMES, TOKENS, tiny_run
from tests.tiny_segmenter import save_tiny_detector, save_tiny_segmenter

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]

PROBE = Probe(
    prompts=tuple(Prompt(text=f"a portrait of {name}", concept=name) for name in NAMES[:2]),
    seeds=(1, 2),
    sampler=Sampler(steps=2),
)
SQUARES = np.zeros((4, 64, 64), dtype=bool)
for _row in range(4):
    SQUARES[_row, 8 * _row : 8 * _row + 24, 16:40] = True


def test_the_whole_image(model: StableDiffusion) -> None:
    """Everywhere, on the latent grid."""
    assert torch.equal(concept_masks(tiny_run(model), PROBE, WholeImage()), torch.ones(4, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_attention_masks_are_part_of_every_image(load: Load, style: str) -> None:
    """Neither nothing nor everything, the same twice, and differing between noise seeds."""
    model = load(style)

    first = concept_masks(tiny_run(model), PROBE, AttentionMasks())
    again = concept_masks(tiny_run(model), PROBE, AttentionMasks())
    other = concept_masks(tiny_run(model), PROBE, AttentionMasks(seed=100))

    assert first.shape == (4, 8, 8) and first.dtype == torch.bool
    assert all(0 < part < 1 for part in first.float().mean((1, 2)).tolist())
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_mask_grows_as_its_threshold_falls(model: StableDiffusion) -> None:
    """What is above .7 of the range is above .3 of it."""
    high, low = (concept_masks(tiny_run(model), PROBE, AttentionMasks(threshold=value)) for value in (0.7, 0.3))

    assert (low | high).equal(low) and low.sum() > high.sum()


def test_attention_is_averaged_over_tokens_heads_layers_and_timesteps(model: StableDiffusion) -> None:
    """As written out: layers on grids of at least a quarter of the latents' side, whatever the batch."""
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    states = moves.encode_texts(model, ["ada quill", "a sketch of ada quill", "ada stone"])
    tokens = name_tokens(model, [("ada quill", "ada quill"), ("a sketch of ada quill", "quill"), ("ada stone", "ada")])

    with torch.no_grad():
        said = attention_to(model, latents, states, tokens, timesteps=(300, 500), seed=7, batch=2)

    for row in range(3):
        generator = torch.Generator().manual_seed(7 + row)
        seen: list[Tensor] = []
        for t in (300, 500):
            x_t = moves.add_noise(
                model, latents[row, None], torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([t])
            )
            maps: list[Tensor] = []
            with torch.no_grad(), watched(model.unet, maps.append):
                moves.predict(model, x_t, t, states[row, None])
            for one in maps:
                side = int(one.shape[2] ** 0.5)
                if side >= 2:
                    flat = one[0, :, :, tokens[row]].mean((0, 2)).view(1, 1, side, side)
                    seen.append(torch.nn.functional.interpolate(flat, (8, 8), mode="bilinear")[0, 0])
        torch.testing.assert_close(said[row], torch.stack(seen).mean(0), rtol=1e-3, atol=1e-6)


def test_the_names_tokens_are_marked(load: Load) -> None:
    """The name's own; with `closing` also the end token and all padding, whatever the padding token is."""
    for style in ("v1", "v2"):
        tokens = name_tokens(load(style), [("a portrait of ada quill at event", "ada quill")])
        closing = name_tokens(load(style), [("a portrait of ada quill at event", "ada quill")], closing=True)

        assert tokens[0].nonzero().flatten().tolist() == [4, 5]
        assert closing[0].nonzero().flatten().tolist() == [4, 5, *range(8, TOKENS)]


def test_above_is_relative_to_the_images_own_range() -> None:
    """Scaling and shifting a map changes nothing; a flat map is empty."""
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))

    assert torch.equal(above(maps, 0.5), above(5 * maps + 3, 0.5))
    assert torch.equal(
        above(torch.tensor([[[0.0, 0.4], [0.6, 1.0]]]), 0.5), torch.tensor([[[False, False], [True, True]]])
    )
    assert not above(torch.ones(1, 4, 4), 0.5).any()


def test_given_masks_are_read_back_in_the_probes_order(model: StableDiffusion, tmp_path: Path) -> None:
    """One row each, at any resolution, nearest neighbour onto the latent grid."""
    source = GivenMasks.written(tmp_path / "masks.npy", SQUARES)

    masks = concept_masks(tiny_run(model), PROBE, source)

    assert torch.equal(masks, torch.from_numpy(SQUARES[:, 4::8, 4::8]))
    assert torch.equal(resized(torch.from_numpy(SQUARES), 8, 8), masks)


def test_given_masks_have_their_content_in_the_key_and_not_their_place(tmp_path: Path) -> None:
    """A copy elsewhere is the same source, another mask is another."""
    first = GivenMasks.written(tmp_path / "a.npy", SQUARES)
    copy = GivenMasks.written(tmp_path / "b.npy", SQUARES)
    other = GivenMasks.written(tmp_path / "c.npy", ~SQUARES)

    assert first == copy and key("masks", first) == key("masks", copy)
    assert key("masks", first) != key("masks", other)


def test_given_masks_that_do_not_fit_are_a_users_error(model: StableDiffusion, tmp_path: Path) -> None:
    """Too few, of another type, changed since, no masks at all, or gone."""
    run = tiny_run(model)
    with pytest.raises(UserError, match="do not match the forget images"):
        concept_masks(run, PROBE, GivenMasks.written(tmp_path / "few.npy", SQUARES[:3]))
    np.save(tmp_path / "grey.npy", SQUARES.astype(np.float32))
    with pytest.raises(UserError, match="do not match the forget images"):
        concept_masks(run, PROBE, GivenMasks.of(tmp_path / "grey.npy"))
    (tmp_path / "text.npy").write_text("masks")
    with pytest.raises(UserError, match="holds no masks"):
        concept_masks(run, PROBE, GivenMasks.of(tmp_path / "text.npy"))
    source = GivenMasks.written(tmp_path / "changed.npy", SQUARES)
    GivenMasks.written(tmp_path / "changed.npy", ~SQUARES)
    with pytest.raises(UserError, match="have changed"):
        concept_masks(run, PROBE, source)
    with pytest.raises(UserError, match="cannot be read"):
        GivenMasks.of(tmp_path / "gone.npy")


def test_an_empty_mask_is_an_error_that_names_its_image(model: StableDiffusion, tmp_path: Path) -> None:
    """The concept, the prompt and the seed stand in the sentence; one that misses every latent is empty too."""
    masks = SQUARES.copy()
    masks[3] = False
    with pytest.raises(BuildError, match=r'mask of "bram quill" in a forget image is empty') as caught:
        concept_masks(tiny_run(model), PROBE, GivenMasks.written(tmp_path / "a.npy", masks))
    assert 'portrait of bram quill", seed 2' in str(caught.value)

    masks[3, 0, 0] = True
    with pytest.raises(BuildError, match="is empty"):
        concept_masks(tiny_run(model), PROBE, GivenMasks.written(tmp_path / "b.npy", masks))


def test_masks_are_kept_under_base_probe_and_source(model: StableDiffusion) -> None:
    """The store is asked once per question, and nothing empty is stored."""
    asked: list[str] = []

    def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        made = build()
        asked.append(f"{kind} {key(kind, spec)}")
        return made

    run = tiny_run(model, cached=cached)
    sources: list[MaskSource] = [WholeImage(), AttentionMasks(), AttentionMasks(threshold=0.4)]
    for source in sources:
        concept_masks(run, PROBE, source)
    with pytest.raises(BuildError, match="is empty"):
        concept_masks(run, PROBE, _Nowhere())

    masks = [word for word in asked if word.startswith("masks ")]
    assert len(set(masks)) == len(masks) == 3


@dataclass(frozen=True)
class _Nowhere(MaskSource):
    """A source that finds nothing."""

    name: ClassVar[str] = "nowhere"

    def find(self, run: Any, probe: Probe) -> Tensor:
        """All False."""
        return torch.zeros(len(probe), 8, 8, dtype=torch.bool)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> SegmentedMasks:
    """A tiny Grounding DINO and SAM with a threshold that random weights pass."""
    detector = save_tiny_detector(tmp_path_factory.mktemp("detector"))
    segmenter = save_tiny_segmenter(tmp_path_factory.mktemp("segmenter"))
    return SegmentedMasks.of(detector, segmenter, threshold=1e-4)


def test_segmented_masks(model: StableDiffusion, segmented: SegmentedMasks) -> None:
    """The images that the base drew are segmented, by the concept's name or another phrase."""
    by_name = concept_masks(tiny_run(model), PROBE, segmented)

    assert by_name.shape == (4, 8, 8) and by_name.dtype == torch.bool and by_name.any((1, 2)).all()
    moved = replace(segmented, detector_location="elsewhere", segmenter_location="elsewhere")
    assert key("masks", moved) == key("masks", segmented)
    assert key("masks", replace(segmented, phrase="a face")) != key("masks", segmented)


def test_undetected_images_are_refused_unless_they_count_whole(
    model: StableDiffusion, segmented: SegmentedMasks
) -> None:
    """The authors' fallback must be asked for."""
    blind = replace(segmented, threshold=1.0)
    with pytest.raises(BuildError, match="is empty"):
        concept_masks(tiny_run(model), PROBE, blind)

    assert concept_masks(tiny_run(model), PROBE, replace(blind, undetected=WholeImage())).all()


def test_a_changed_segmenting_model_is_a_users_error(model: StableDiffusion, segmented: SegmentedMasks) -> None:
    """Its digest is compared before it is used."""
    with pytest.raises(UserError, match=r"segmenting model at .* has changed"):
        concept_masks(tiny_run(model), PROBE, replace(segmented, segmenter="0" * 64))


@pytest.mark.parametrize("bad", [{"threshold": 0.0}, {"threshold": 1.0}, {"timesteps": ()}, {"timesteps": (1000,)}])
def test_values_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    """A threshold of 1 sees nothing, and there is no timestep 1000."""
    with pytest.raises(SpecError, match="AttentionMasks"):
        AttentionMasks(**bad)
