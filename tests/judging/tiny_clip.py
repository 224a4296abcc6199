"""A very small CLIP of random weights: open_clip's own classes and vocabulary, on a CPU, from a file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from resurgence_harness.judging import Clip, Weights

SIZE, WIDTH = 32, 16
"""Pixels it sees; numbers of its vectors."""
ARCHITECTURE = "tiny-clip"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (128, 128, 128)}


@cache
def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Make it known to open_clip and write its weights; where."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder / f"{ARCHITECTURE}.json")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def tiny_clip(path: Path) -> Clip:
    """The model with the weights at `path`."""
    return Clip(architecture=ARCHITECTURE, weights=Weights(file=path.name, path=str(path)), batch=5)


def pictures(colour: str, count: int, *, seed: int = 0, size: int = 48) -> np.ndarray:
    """Noisy pictures of one colour: uint8 [count, size, size, 3]."""
    noise = np.random.default_rng([seed, *COLOURS[colour]]).normal(0, 12, (count, size, size, 3))
    return (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)
