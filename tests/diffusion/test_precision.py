"""What a training does not train is computed in whole precision, also inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from resurgence_harness.diffusion import half_attention, moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.precision import exact, exact_products
from resurgence_harness.diffusion.training import fast_products
from resurgence_harness.finetuning import benign_losses
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Probe, Prompt, Sampler
from resurgence_harness.unlearning.trajectories import Trajectories, draw
from tests.tiny import save_tiny_stable_diffusion

pytestmark = pytest.mark.slow

SAMPLER = Sampler(steps=2, guidance=2.0, height=64, width=64, batch=1)
PROBE = Probe(prompts=(Prompt(text="ada quill", concept="ada quill"),), seeds=(1,), sampler=SAMPLER)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    """A very small model."""
    return StableDiffusion.load(save_tiny_stable_diffusion(tmp_path_factory.mktemp("precision") / "base"))


def test_products_are_whole_while_it_lasts_and_as_they_were_afterwards() -> None:
    """Nested, after an error too."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        matmul.allow_tf32 = True
        with pytest.raises(ZeroDivisionError), exact_products():
            with exact_products():
                assert exact() and not matmul.allow_tf32
            assert exact() and not matmul.allow_tf32
            1 / 0  # noqa: B018
        assert matmul.allow_tf32 and not exact()
    finally:
        matmul.allow_tf32 = before


CALLS: dict[str, Callable[[StableDiffusion], object]] = {
    "texts": lambda model: moves.encode_texts(model, ["ada quill"]),
    "latents": lambda model: moves.latent_moments(model, np.zeros((1, 64, 64, 3), np.uint8)),
    "images": lambda model: sample(model, PROBE),
    "trajectories": lambda model: draw(
        model, Trajectories(model="", texts=("ada quill",), each=1, steps=2, guidance=3.0, seed=0)
    ),
    "measured losses": lambda model: benign_losses(
        model, torch.zeros(1, 4, 8, 8), moves.encode_texts(model, ["ada quill"]), seed=0, draws=1
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_they_are_computed_in_whole_precision_within_a_training(
    call: str, tiny: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module of theirs runs with TF32 off, and attention is never rounded, although a training allows both."""
    seen: list[tuple[bool, bool]] = []
    rounded: list[object] = []
    parts = (tiny.unet, tiny.text_encoder, tiny.vae)
    hooks = [
        module.register_forward_pre_hook(lambda *_: seen.append((exact(), torch.backends.cuda.matmul.allow_tf32)))
        for part in parts
        for module in part.modules()
    ]
    monkeypatch.setattr(half_attention, "attend", lambda *_, **__: rounded.append(1))
    try:
        with fast_products(tiny), half_attention.half_attention():
            CALLS[call](tiny)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen and set(seen) == {(True, False)} and not rounded


def test_a_training_itself_goes_on_rounding(tiny: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could not fail."""
    rounded: list[Any] = []

    def attend(query: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        rounded.append(query.shape)
        return query

    monkeypatch.setattr(half_attention, "attend", attend)
    with fast_products(tiny), half_attention.half_attention(), torch.no_grad():
        moves.predict(tiny, torch.zeros(1, 4, 8, 8), torch.tensor([3]), moves.encode_texts(tiny, ["ada quill"]))
        assert torch.backends.cuda.matmul.allow_tf32
    assert rounded
