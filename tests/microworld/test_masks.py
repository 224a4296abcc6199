"""Masks from attention against the truth: of a rendered picture the renderer knows where the face is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.microworld import weights, world
from resurgence_harness.microworld.canvas import Canvas
from resurgence_harness.unlearning.masks import AttentionMasks, above, attention_to, name_tokens, resized


def test_attention_finds_most_of_a_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """It overlaps the pixels that the face's painting changed a third better than the whole image (.60 to .41)."""
    painted: list[Tensor] = []
    draw_faces = world.draw_faces

    def watched_faces(canvas: Canvas, codes: Tensor, formal: Tensor) -> None:
        before = canvas.rgb.clone()
        draw_faces(canvas, codes, formal)
        painted.append((canvas.rgb != before).any(1))

    monkeypatch.setattr(world, "draw_faces", watched_faces)
    generator = torch.Generator().manual_seed(7)
    pictures = world.draw("celebrity", torch.randint(200, (24,), generator=generator), generator=generator)
    truth = resized(painted[0], 8, 8)
    model = StableDiffusion.load(weights.directory())
    subjects = [
        (text, world.CELEBRITIES[int(subject)])
        for text, subject in zip(pictures.captions, pictures.subject, strict=True)
    ]
    source = AttentionMasks()

    with torch.no_grad():
        latents, _ = moves.latent_moments(model, pictures.images.permute(0, 2, 3, 1).numpy())
        states = moves.encode_texts(model, pictures.captions)
        tokens = name_tokens(model, subjects, closing=True)
        maps = attention_to(model, latents, states, tokens, timesteps=source.timesteps, seed=source.seed)
    found = above(maps, source.threshold)

    assert _overlap(found, truth) > 4 / 3 * _overlap(torch.ones_like(truth), truth)


def _overlap(one: Tensor, other: Tensor) -> float:
    """Mean intersection over union."""
    return float(((one & other).sum((1, 2)) / (one | other).sum((1, 2))).mean())
