"""The gradient descent of all trained steps: samples in a seeded order, one loss per update, BuildError for a NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from resurgence_harness.errors import BuildError, sentence

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


PASS = 8 * 64 * 64
"""Most positions of latents in one forward and backward pass: those of eight images of 512 × 512 pixels, whose
activations take 11 GiB in a U-Net of SD's size. More rows take several passes, whose gradients are added up."""


def passes(rows: int, places: int) -> list[slice]:
    """Split `rows` latents of `places` positions each into passes of at most PASS positions, at least one row each."""
    each = max(1, PASS // places)
    return [slice(low, min(low + each, rows)) for low in range(0, rows, each)]


@contextmanager
def fast_products(model: StableDiffusion) -> Iterator[None]:
    """Within the context a GPU may round the factors of this model's products to ten bits (TF32), as in convolutions.

    On an H100 a step of SalUn or EraseDiff at SD's size took three quarters of the time with it, and two thirds of that
    with half-precision attention, which large models use (half_attention.py). Text states, trajectories, images and
    measurements are computed without it (precision.py). On a CPU nothing changes.
    """
    import torch

    from resurgence_harness.diffusion.half_attention import half_attention

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with half_attention() if model.large and model.device.type == "cuda" else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Losses(NamedTuple):
    """The training loss at the first and the last step."""

    first: float
    last: float


def descend(
    step: str,
    optimizer: Any,
    losses: Iterator[Tensor | Iterable[Tensor]],
    *,
    steps: int,
    clip: float | None = None,
    progress: Callable[[int, int, float | None], None],
    after: Callable[[int], None] | None = None,
) -> Losses:
    """One optimiser step per loss, `steps` in all; `after(done)` is called after each step.

    A loss may be an iterable of summands: each one's gradient is computed, and its graph freed, before the next is
    made. `clip` bounds the norm of the gradients of each of the optimiser's parameter groups (there usually is one).
    BuildError for a loss that is not finite, before it changes a weight.
    """
    import torch

    first = last = math.nan
    for done, loss in zip(range(1, steps + 1), losses, strict=False):
        optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for term in (loss,) if isinstance(loss, torch.Tensor) else loss:
            value += term.item()
            if not math.isfinite(value):
                raise BuildError(
                    sentence(
                        f"{step}'s training diverged at step {done} of {steps}.",
                        loss=value,
                        last_good="none" if done == 1 else f"{last:.6g} at step {done - 1}",
                        do="Lower the learning rate, or check that the model it starts from is sound.",
                    )
                )
            torch.autograd.backward(term)
        if clip is not None:
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], clip)
        optimizer.step()
        last = value
        first = value if done == 1 else first
        progress(done, steps, value)
        if after is not None:
            after(done)
    optimizer.zero_grad(set_to_none=True)  # else every copy of the trained model would include them
    return Losses(first, last)


def batches(size: int, batch: int, *, generator: Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, without end: concatenated random permutations of the samples.

    Every sample is used once before any is used again, and the order does not depend on the batch size.
    """
    import torch

    order = torch.randperm(size, generator=generator)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(size, generator=generator)])
        yield order[:batch]
        order = order[batch:]
