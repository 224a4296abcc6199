"""What the authors' code and this package are both given: one small model, images, texts, and how numbers are compared.

Every weight is drawn by NumPy from a generator seeded with the weight's own name, so that neither the order in which a
library builds its modules nor torch's random numbers change the model on which the records were made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples
from resurgence_harness.diffusion.model import StableDiffusion
from tests.tiny import save_parts, save_tiny_stable_diffusion, tiny_tokenizer

WIDTHS, TEXT_WIDTH, LATENT, TOKENS = (8, 8, 16, 16), 16, 8, 77
"""Channels of the UNet's levels, width of a text state, side of a latent, tokens of a text (77: the authors' code)."""
WITHIN = 1e-5
"""Largest relative deviation of the product from what the authors' code computed."""
ERASED, PRESERVED = ("ada quill", "bram quill"), ("cleo marsh", "dov ferris")
ANCHOR = "a celebrity"


def save_parity_base(directory: Path, *, prediction_type: str = "epsilon") -> Path:
    """The model in diffusers' layout: SD v1.4's layers at small widths, in float32."""
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = TOKENS
    unfilled = save_tiny_stable_diffusion(
        directory.with_name(f"{directory.name}-unfilled"),
        prediction_type=prediction_type,
        widths=WIDTHS,
        text_width=TEXT_WIDTH,
        sample_size=LATENT,
        tokenizer=tokenizer,
    )
    model = StableDiffusion.load(unfilled)
    for part in ("unet", "vae", "text_encoder"):
        fill(part, getattr(model, part))
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    return save_parts({part: getattr(model, part) for part in parts}, directory)


def fill(part: str, module: Any) -> None:
    """Draw every weight by its name: matrices ~ N(0, 1/n) with n inputs, scales of norms about 1, biases about 0."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            word = f"{part}.{name.removeprefix('text_model.')}"
            drawn = np.random.default_rng(crc32(word.encode())).standard_normal(tuple(weight.shape))
            if weight.ndim > 1:
                drawn *= 1 if "embedding" in word and part == "text_encoder" else weight[0].numel() ** -0.5
                drawn *= 2 if ".attn2.to_" in word else 1
            else:
                drawn = drawn * 0.1 + (1 if name.endswith("weight") else 0)
            weight.copy_(torch.from_numpy(drawn))


def precise(model: StableDiffusion) -> StableDiffusion:
    """The same model in float64, but for its autoencoder: what the product computes without rounding."""
    scheduler = copy.deepcopy(model.scheduler)
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    scheduler.alphas_cumprod = (1 - beta).cumprod(0)
    return replace(
        model,
        unet=copy.deepcopy(model.unet).double(),
        text_encoder=copy.deepcopy(model.text_encoder).double(),
        scheduler=scheduler,
    )


@contextmanager
def float64() -> Iterator[None]:
    """While this lasts, new tensors are float64, random ones too."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def pictures(count: int, *, seed: int, side: int = 8 * LATENT) -> np.ndarray:
    """Smooth coloured pictures, uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(seed)
    y, x = (axis[..., None] / side * 2 * np.pi for axis in np.mgrid[:side, :side])
    waves = [
        rng.uniform(20, 40, (count, 1, 1, 3))
        * np.sin(rng.integers(1, 5, (count, 1, 1, 3)) * x + rng.integers(1, 5, (count, 1, 1, 3)) * y + phase)
        for phase in (0.3, 1.1, 2.0)
    ]
    return (127 + sum(waves)).clip(0, 255).astype(np.uint8)


def examples(model: StableDiffusion, images: np.ndarray, texts: Sequence[str]) -> Examples:
    """Images, each with its own text, as the training loops read them."""
    mean, deviation = moves.latent_moments(model, images)
    return Examples(mean, deviation, moves.encode_texts(model, texts), torch.arange(len(images)))


def recorded(name: str) -> dict[str, np.ndarray]:
    """What was recorded of one repository's code."""
    with np.load(Path(__file__).with_name(f"{name}.npz"), allow_pickle=False) as file:
        return dict(file)


def fingerprint(tensors: Mapping[str, Any]) -> np.ndarray:
    """float64 [n, 2]: each tensor's norm and its inner product with a direction that its name determines.

    A gradient of the whole UNet is recorded so: two numbers a tensor instead of all of its entries.
    """
    rows = []
    for name, value in tensors.items():
        flat = np.asarray(value.detach().double().cpu()).ravel()
        rng = np.random.default_rng(crc32(f"direction {name}".encode()))
        rows.append((np.linalg.norm(flat), rng.standard_normal(flat.size) @ flat / flat.size**0.5))
    return np.array(rows)


@contextmanager
def gradients(names: Sequence[str]) -> Iterator[list[np.ndarray]]:
    """Fingerprints of what each optimiser step inside this is taken with, of the parameters of these names."""
    seen: list[np.ndarray] = []

    def look(optimizer: Any, *_: object) -> None:
        (group,) = optimizer.param_groups
        seen.append(fingerprint({name: p.grad for name, p in zip(names, group["params"], strict=True)}))

    handle = register_optimizer_step_post_hook(look)  # after it: what a method makes of a gradient is in it
    try:
        yield seen
    finally:
        handle.remove()


def deviation(ours: Any, theirs: Any) -> float:
    """‖ours − theirs‖ / ‖theirs‖; shapes must be the same, and nothing may be NaN."""
    a, b = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64) for x in (ours, theirs))
    assert a.shape == b.shape, (a.shape, b.shape)
    assert np.isfinite(a).all() and np.isfinite(b).all() and np.linalg.norm(b) > 0
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def agree(what: str, ours: Any, theirs: Any, *, within: float = WITHIN) -> None:
    """Hold ours to what was recorded; the deviation is printed (`pytest -s`)."""
    found = deviation(ours, theirs)
    print(f"{what}: {found:.1e}")
    assert found <= within, f"{what} deviates by {found:.2e}, more than {within:.0e}"
