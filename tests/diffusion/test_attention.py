"""Cross-attention made visible: the maps are those that the U-Net uses, and it is left as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.attention import grid, watched
from resurgence_harness.diffusion.model import StableDiffusion
from tests.tiny import TOKENS

pytestmark = pytest.mark.slow

Load = Callable[[str], StableDiffusion]


def _said(model: StableDiffusion) -> Tensor:
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return moves.predict(model, x_t, 300, moves.encode_texts(model, ["ada quill", "a portrait of bram quill"]))


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_watching_changes_nothing_and_shows_every_layer(load: Load, style: str) -> None:
    """The prediction is the fused kernels' to rounding; 16 maps [n, heads, places, L] of sum 1 are shown."""
    model = load(style)
    plain = _said(model)
    before = dict(model.unet.attn_processors)
    maps: list[Tensor] = []

    with watched(model.unet, maps.append):
        seen = _said(model)

    torch.testing.assert_close(seen, plain, rtol=1e-4, atol=1e-5)
    assert len(maps) == 16
    assert all(one.shape[0] == 2 and one.shape[3] == TOKENS for one in maps)
    assert sorted({one.shape[2] for one in maps}) == [1, 4, 16, 64]
    for one in maps:
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))
    assert dict(model.unet.attn_processors) == before


def test_what_is_added_is_as_if_it_were_in_the_weights(model: StableDiffusion) -> None:
    """dW c beside the layer and W + dW inside it predict the same."""
    changed = model.copy()
    deltas: dict[str, Tensor] = {}
    with torch.no_grad():
        for index, (name, weight) in enumerate(changed.unet.named_parameters()):
            if ".attn2.to_k." in name or ".attn2.to_v." in name:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(index))
                deltas[f"unet.{name}"] = 0.1 * noise
                weight.add_(0.1 * noise)

    with watched(model.unet, lambda maps: None, lambda name, c: c @ deltas[name].T):
        beside = _said(model)

    torch.testing.assert_close(beside, _said(changed), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(beside, _said(model), atol=1e-3)


def test_the_processors_come_back_after_an_error(model: StableDiffusion) -> None:
    """An exception while watching leaves the U-Net as it was."""
    before = dict(model.unet.attn_processors)

    with pytest.raises(ZeroDivisionError), watched(model.unet, lambda maps: 1 // 0):
        _said(model)

    assert dict(model.unet.attn_processors) == before


def test_a_layers_grid_is_found_from_its_places() -> None:
    """Latents are halved, odd sides rounded up, as the U-Net's convolutions do."""
    assert grid(64 * 64, 64, 64) == (64, 64)
    assert grid(8 * 8, 64, 64) == (8, 8)
    assert grid(48 * 32, 96, 64) == (48, 32)
    assert grid(5 * 3, 9, 6) == (5, 3)
    assert grid(3 * 2, 9, 6) == (3, 2)
