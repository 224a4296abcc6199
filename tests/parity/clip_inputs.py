"""One small CLIP with OpenAI's layers and activation, pictures and vectors for the judges that look through it."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from resurgence_harness.judging import Clip, Weights
from tests.parity.given import pictures

ARCHITECTURE = "parity-clip"
SIDE, WIDTH, INNER = 32, 16, 64
"""Pixels it sees, numbers of its vectors, channels inside: 64 for each head, as OpenAI's code has it."""
CONFIG = {
    "embed_dim": WIDTH,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 2, "width": INNER, "head_width": INNER, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": INNER, "heads": 1, "layers": 1},
}
LABELS = ("church", "truck", "parachute", "horn")
FITTING, LARGER, WIDE = (pictures(4, seed=8, side=SIDE), pictures(3, seed=9, side=48), pictures(3, seed=10)[:, :40])
"""Pictures of the size that it sees, larger ones, and ones that are wider than high: uint8 [n, h, w, 3]."""


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight by its name, float32: matrices ~ N(0, 1/n), scales of norms about 1, biases about 0."""
    rng = np.random.default_rng(crc32(f"clip {name}".encode()))
    value = rng.standard_normal(shape)
    if name == "logit_scale":
        return torch.tensor(np.log(100.0)).float()
    if len(shape) == 1 and "class_embedding" not in name:
        value = value * 0.1 + (1 if name.endswith("weight") else 0)
    elif len(shape) > 1 and "embedding" not in name:
        value = value * np.prod(shape[1:]) ** -0.5
    if name == "token_embedding.weight":
        value = value * 0.3  # labels alike: no probability is nearly 1
    return torch.from_numpy(value).float()


def vectors() -> torch.Tensor:
    """Q16's two prompts, alike and of numbers that half precision can hold: float32 [2, 16]."""
    return (drawn("prompt", (1, WIDTH)) + 0.03 * drawn("prompts", (2, WIDTH))).half().float()


def save_parity_clip(folder: Path) -> Clip:
    """Make it known to open_clip and write its weights."""
    import open_clip
    from safetensors.torch import save_file

    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    open_clip.add_model_config(folder / f"{ARCHITECTURE}.json")
    shapes = {name: tuple(value.shape) for name, value in open_clip.CLIP(**CONFIG).state_dict().items()}
    path = folder / "parity-clip.safetensors"
    save_file({name: drawn(name, shape).contiguous() for name, shape in shapes.items()}, path)
    return Clip(architecture=ARCHITECTURE, weights=Weights(file=path.name, path=str(path)))
