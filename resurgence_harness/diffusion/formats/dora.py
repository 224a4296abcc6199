"""DoRA (Liu et al. 2024): a weight's direction comes from W + scale · B A, its length from a separate vector.

    W ← m · V / ‖V‖,   V = W + scale · B A

    peft      lora_magnitude_vector: m and ‖V‖ per output, over all other axes
    LyCORIS   dora_scale [out, 1, …]: the same, or [1, in, …]: per input; ‖V‖ + ε of float32

peft: peft.tuners.lora.dora and .variants; LyCORIS: LoConModule.apply_weight_decompose. For a strength other than 1, and
for a second LoRA on the same layer, web interfaces compute other weights than these two, so both cases are refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from resurgence_harness.diffusion.formats.contract import without_ones
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

EPS = np.finfo(np.float32).eps


def magnitude(file: TensorFile, key: str, layer: str, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """A function that reads the lengths m, shaped to multiply a weight of this shape; UserError if they do not fit."""
    found = file.entries[key].shape
    ones = (1,) * (len(shape) - 2)
    per_output, per_input = (shape[0], 1, *ones), (1, shape[1], *ones)
    if key.endswith("dora_scale"):
        lengths = {without_ones(per_output): per_output, without_ones(per_input): per_input}
    else:  # a convolution's vector has its outputs on the second axis
        lengths = dict.fromkeys(((shape[0],), (1, shape[0])), per_output)
    if without_ones(found) not in lengths:
        raise UserError(
            sentence(
                f"The DoRA {file.path} has magnitudes that do not fit the base.",
                tensor=shown(key),
                magnitudes=found,
                layer=f"{layer} {shape}",
                do="Give the base that it was made from.",
            )
        )
    return lambda: np.asarray(file.values(key), np.float32).reshape(lengths[without_ones(found)])


def rescaled(direction: np.ndarray, lengths: np.ndarray, *, eps: bool) -> np.ndarray:
    """m · V / ‖V‖, the norm over all axes on which m has length 1."""
    axes = tuple(axis for axis, count in enumerate(lengths.shape) if count == 1)
    norm = np.sqrt(np.sum(np.square(direction), axis=axes, keepdims=True, dtype=np.float32))
    return np.asarray(direction * (lengths / (norm + EPS if eps else norm)), np.float32)
