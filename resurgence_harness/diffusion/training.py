"""Gradient descent as every trained step does it: a seeded order of the samples, one loss a step, a stop at a NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from resurgence_harness.errors import BuildError, sentence

if TYPE_CHECKING:
    from torch import Generator, Tensor


@contextmanager
def fast_products() -> Iterator[None]:
    """While this lasts, GPUs may round the factors of a float32 product to TF32 (10 bits), as torch's convolutions do.

    On an H100 a step of SalUn or EraseDiff at SD's size took three quarters of the time so, of MACE nearly as long as
    before. Images are drawn without it. On a CPU nothing changes.
    """
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
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
    losses: Iterator[Tensor],
    *,
    steps: int,
    clip: float | None = None,
    progress: Callable[[int, int, float | None], None],
    after: Callable[[int], None] | None = None,
) -> Losses:
    """One optimiser step per loss, `steps` in all; `after(done)` is called between steps.

    `clip` bounds the norm of the gradients of each of the optimiser's parameter groups (there usually is one). A loss
    that is not finite is a BuildError before it moves a weight.
    """
    import torch

    first = last = math.nan
    for done, loss in zip(range(1, steps + 1), losses, strict=False):
        value = loss.item()
        if not math.isfinite(value):
            raise BuildError(
                sentence(
                    f"{step}'s training diverged at step {done} of {steps}.",
                    loss=value,
                    last_good="none" if done == 1 else f"{last:.6g} at step {done - 1}",
                    do="Lower the learning rate, or check that the model it starts from is sound.",
                )
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
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
