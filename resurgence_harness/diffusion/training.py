"""Gradient descent as every trained step does it: a seeded order of the samples, one loss a step, a stop at a NaN."""

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
"""Places of a latent in one forward and backward pass, over all its rows: eight images of 512 pixels, whose activations
take 11 GiB in a U-Net of SD's size. More rows go through one after another, and their gradients are added up."""


def passes(rows: int, places: int) -> list[slice]:
    """Rows, each a latent of so many places, as passes of at most PASS places, of one row at least."""
    each = max(1, PASS // places)
    return [slice(low, min(low + each, rows)) for low in range(0, rows, each)]


@contextmanager
def fast_products(model: StableDiffusion) -> Iterator[None]:
    """While this lasts, a GPU may round the factors of this model's products to ten bits (TF32), as its convolutions'.

    On an H100 a step of SalUn or EraseDiff at SD's size took three quarters of the time so, and two thirds of that
    with a large model's attention, too (half_attention.py). Texts, trajectories, images and whatever is measured are
    computed without it (precision.py). On a CPU nothing changes.
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
    """The training loss at the two ends."""

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
    """One optimiser step per loss, `steps` in all; `after(done)` is called between steps.

    A loss may come as the terms of its sum: each one's gradient is taken, and its graph freed, before the next is made.
    `clip` bounds the norm of the gradients of each of the optimiser's parameter groups (there usually is one). A loss
    that is not finite is a BuildError before it moves a weight.
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
    optimizer.zero_grad(set_to_none=True)  # else every copy of the trained model would carry them along
    return Losses(first, last)


def batches(size: int, batch: int, *, generator: Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, without end: random permutations of the samples, joined.

    Every sample is seen once before any is seen again, and the order does not depend on how many are taken.
    """
    import torch

    order = torch.randperm(size, generator=generator)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(size, generator=generator)])
        yield order[:batch]
        order = order[batch:]
