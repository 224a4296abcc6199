"""MACE's closed forms, mask losses and updates are those of the authors' code (docs/parity.md)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import watched
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.unlearning.closed_form import general_moment, moment, text_moment
from resurgence_harness.unlearning.mace import fuse, mace_map, matched
from resurgence_harness.unlearning.mace_lora import (
    FocalTimesteps,
    draws,
    fresh,
    masked_norm,
    own_generator,
    train_together,
)
from resurgence_harness.unlearning.masks import WholeImage, name_tokens
from tests.parity import mace_inputs as given
from tests.parity.given import ERASED, PRESERVED, agree, deviation, float64, precise, recorded
from tests.tiny import tiny_run

pytestmark = pytest.mark.slow


def rows(matrices: Mapping[str, Tensor]) -> np.ndarray:
    """All matrices, in the order of their names."""
    return np.concatenate([matrices[name].detach().numpy().ravel() for name in sorted(matrices)])


def kept(model: StableDiffusion) -> Tensor:
    """M + w N."""
    run = tiny_run(model)
    retained = tuple(template.format(name) for name in PRESERVED for template in given.TEMPLATES)
    return general_moment(model, run, given.GENERAL) + given.WEIGHT * text_moment(model, run, retained)


@pytest.fixture(scope="module")
def refined(base: StableDiffusion) -> StableDiffusion:
    """The model after the first stage."""
    pairs = (matched(base, concept.name, concept.kind, given.TEMPLATES) for concept in given.CONCEPTS)
    edit = mace_map(pairs, given.TRAIN**2 * kept(base), ridge=given.RIDGE)
    changed = base.copy()
    for matrix in given.matrices(changed).values():
        matrix.copy_(matrix.double() @ edit)
    return changed


def test_refined_matrices_are_the_authors(base: StableDiffusion, refined: StableDiffusion) -> None:
    """Stage 1, with the scale applied twice as their code does."""
    ours, theirs, before = (rows(given.matrices(refined)), recorded("mace")["refined"], rows(given.matrices(base)))

    agree("MACE refined, matrices", ours, theirs)
    agree("MACE refined, edits", ours - before, theirs - before)


def test_fused_matrices_are_the_authors(base: StableDiffusion, refined: StableDiffusion) -> None:
    """Stage 3 with given LoRAs of both concepts."""
    matrices = given.matrices(refined.copy())
    parts = []
    for concept in given.CONCEPTS:
        texts = [template.format(concept.name) for template in given.TEMPLATES]
        parts.append((given.given_loras(base, concept.name), moment(moves.encode_texts(base, texts))))
    fuse(matrices, tensors(base), parts, given.FUSE * kept(base), ridge=given.RIDGE)

    agree("MACE fused", rows(matrices), recorded("mace")["fused"])
    assert deviation(recorded("mace")["fused, no LoRA"], recorded("mace")["fused"]) > 0.01


def test_the_whole_step_is_the_authors_where_the_loras_change_nothing(base: StableDiffusion) -> None:
    """All three stages in one, at a learning rate that leaves the LoRAs at zero."""
    step = given.step(masks=WholeImage(), iterations=1, learning_rate=1e-12)

    agree("MACE whole", rows(given.matrices(step.apply(base, tiny_run(base)))), recorded("mace")["fused, no LoRA"])


def test_losses_and_loras_are_the_authors(refined: StableDiffusion) -> None:
    """Stage 2: the loss before the first and the third update, and what the LoRAs then add to the matrices.

    In float64: AdamW divides every entry of a gradient by its own size, so that what is rounding moves as far as the
    rest, and the authors' float32 is as far from their float64 as ours.
    """
    step, model, data = given.stage2_step(), precise(refined), given.pictures_of(refined)
    model.scheduler.alphas_cumprod = refined.scheduler.alphas_cumprod.double()  # as diffusers' own class computes it
    data = data._replace(mean=data.mean.double(), deviation=data.deviation.double(), states=data.states.double())
    with float64(), torch.enable_grad():
        trained, ends = train_together(
            step,
            step.concepts,
            model,
            given.matrices(model),
            data,
            torch.from_numpy(given.ALIGNED > 0)[None],
            tiny_run(model),
            before=0,
        )
    theirs = recorded("mace")

    agree("MACE loss, first", ends.first, theirs["losses"][0])
    agree("MACE loss, last", ends.last, theirs["losses"][-1])
    agree("MACE LoRAs", rows({name: lora.up @ lora.down for name, lora in trained[0].items()}), theirs["changes"])


@pytest.mark.parametrize("kind", ["layers", "layers, unaligned"])
def test_masks_are_read_at_a_cells_centre_where_the_authors_read_its_corner(
    refined: StableDiffusion, kind: str
) -> None:
    """The departure's exact form: with the corners' values in the cells, each layer's norm is theirs."""
    mask = given.ALIGNED > 0 if kind == "layers" else given.UNALIGNED
    step, data = given.stage2_step(), given.pictures_of(refined)
    generator = own_generator(step.seed, step.concepts[0].name)
    with float64():  # the random numbers that the record was made with
        fresh(given.matrices(refined), 1, generator=generator)
        density = torch.tensor(FocalTimesteps().density(1000))
        drawn = next(draws(step, step.concepts[0], generator, density, tuple(data.mean.shape[1:]), 0))
    x_0 = data.mean + data.deviation * drawn.spread.float()
    text = given.PHOTO.format(ERASED[0])
    tokens = name_tokens(refined, [(text, ERASED[0])], closing=True)
    corner: list[Tensor] = []
    centre: list[Tensor] = []

    def watch(maps: Tensor) -> None:
        side = int(maps.shape[2] ** 0.5)
        whole = torch.from_numpy(mask)[None]
        corners = whole[:, :: 8 // side, :: 8 // side]
        corner.append(masked_norm(maps, corners, tokens))
        centre.append(masked_norm(maps, whole, tokens))

    with torch.no_grad(), watched(refined.unet, watch):
        x_t = moves.add_noise(refined, x_0, drawn.noise.float(), drawn.t)
        moves.predict(refined, x_t, drawn.t, moves.encode_texts(refined, [text]))
    theirs = recorded("mace")[kind]

    agree(f"MACE {kind}", torch.cat(corner), theirs)
    assert (deviation(torch.cat(centre), theirs) < 1e-5) == (kind == "layers")


def test_the_density_of_timesteps_is_the_authors() -> None:
    """Not normalised, as their function returns it."""
    agree("MACE density", FocalTimesteps().density(1000), recorded("mace")["importance"])
