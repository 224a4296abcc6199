"""The gradient descent of all trained steps: samples in a seeded order, one loss per update, BuildError for a NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from resurgence_harness.diffusion.precision import HalfTraining, half_training
from resurgence_harness.errors import BuildError, sentence
from resurgence_harness.specs import Arithmetic

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


PASS = 8 * 64 * 64
"""Most positions of latents in one forward and backward pass: those of eight images of 512 × 512 pixels, whose
activations take 11 GiB in a U-Net of SD's size. More rows take several passes, whose gradients are added up."""


HALF_PASS = 2 * PASS
"""The same in float16, whose activations take half the memory."""


_HEAVIER: ContextVar[int] = ContextVar("memory of a position", default=1)
"""How much more memory a position's activations take in the model that is trained now than in SD's."""


def passes(rows: int, places: int) -> list[slice]:
    """Split `rows` latents of `places` positions each into passes of at most PASS positions, at least one row each.

    In a huge U-Net each position counts twice.
    """
    each = max(1, (PASS if half_training() is None else HALF_PASS) // (places * _HEAVIER.get()))
    return [slice(low, min(low + each, rows)) for low in range(0, rows, each)]


@contextmanager
def gradients(model: StableDiffusion, arithmetic: Arithmetic, run: Run) -> Iterator[None]:
    """Within the context gradients are enabled, and predictions are made in this arithmetic.

    Of float16, `run` records how it was computed (half/training.py).
    """
    import torch

    token = _HEAVIER.set(2 if model.huge else 1)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            if arithmetic == "float32":
                yield
                return
            from resurgence_harness.diffusion.half.training import KERNELS, half_training

            with half_training(model.device) as training:
                yield
            ways = [f"{way} {version(way)}" if way == KERNELS else way for way in sorted(training.ways)]
            run.record("computed in float16 by", ways)
    finally:
        _HEAVIER.reset(token)


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
    kept: Collection[int] = (),
) -> Losses:
    """One optimiser step per loss, `steps` in all; `after(done)` is called after each step.

    A loss may be an iterable of summands: each one's gradient is computed, and its graph freed, before the next is
    made. `clip` bounds the norm of the gradients of each of the optimiser's parameter groups (there usually is one).
    BuildError for a loss that is not finite, before it changes a weight; in float16 also for a gradient. There a GPU
    skips the update and every later one by itself, and Python, which is a step ahead, learns of it at the next step or
    before `after` of a step in `kept`, those whose weights are stored.
    """
    import torch

    half, waiting = half_training(), None
    if half is not None:
        optimizer.found_inf = half.found
    ends = _Ends(step, steps, progress)
    for done, loss in zip(range(1, steps + 1), losses, strict=False):
        optimizer.zero_grad(set_to_none=True)
        value: float | Tensor = 0.0
        for term in (loss,) if isinstance(loss, torch.Tensor) else loss:
            value = value + (term.item() if half is None else term.detach())
            if half is None:
                ends.check(done, float(value))
            torch.autograd.backward(term)
        if clip is not None:
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], clip)
        optimizer.step()
        if half is None:
            ends.made(done, float(value))
        else:
            if waiting is not None:
                ends.arrived(*waiting.read())
            waiting = _Waiting(done, value, half)
            if done in kept or done == steps:
                ends.arrived(*waiting.read())
                waiting = None
        if after is not None:
            after(done)
    if waiting is not None:
        ends.arrived(*waiting.read())
    optimizer.zero_grad(set_to_none=True)  # else every copy of the trained model would include them
    return Losses(ends.first, ends.last)


class _Ends:
    """The losses of a descent as they become known."""

    def __init__(self, step: str, steps: int, progress: Callable[[int, int, float | None], None]) -> None:
        self.step, self.steps, self.progress = step, steps, progress
        self.first = self.last = math.nan

    def check(self, done: int, value: float, *, found: bool = False) -> None:
        """BuildError for a loss that is not finite, or a gradient that was found not to be."""
        last_good = "none" if done == 1 else f"{self.last:.6g} at step {done - 1}"
        if not math.isfinite(value):
            raise BuildError(
                sentence(
                    f"{self.step}'s training diverged at step {done} of {self.steps}.",
                    loss=value,
                    last_good=last_good,
                    do="Lower the learning rate, or check that the model it starts from is sound.",
                )
            )
        if found:
            raise BuildError(
                sentence(
                    f"A gradient of {self.step}'s training is beyond float16 at step {done} of {self.steps}.",
                    loss=value,
                    last_good=last_good,
                    do='Train it in float32, with arithmetic="float32"; if it diverges there, lower the learning rate.',
                )
            )

    def made(self, done: int, value: float) -> None:
        """A step that is done."""
        self.last = value
        self.first = value if done == 1 else self.first
        self.progress(done, self.steps, value)

    def arrived(self, done: int, value: float, found: float) -> None:
        """What a GPU said of a step."""
        self.check(done, value, found=bool(found))
        self.made(done, value)


class _Waiting:
    """The loss of a step, and whether a gradient was not finite so far, on their way from the device."""

    def __init__(self, done: int, value: Any, half: HalfTraining) -> None:
        import torch

        self.done = done
        given = torch.cat([torch.as_tensor(value, device=half.device).reshape(1).float(), half.found.reshape(1)])
        self._event: Any = torch.cuda.Event() if half.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._event is None:
            self._numbers = given
            return
        self._numbers = torch.empty(2, pin_memory=True)
        self._numbers.copy_(given, non_blocking=True)
        self._event.record()

    def read(self) -> tuple[int, float, float]:
        """Wait for them."""
        if self._event is not None:
            self._event.synchronize()
        value, found = self._numbers.tolist()
        return self.done, value, found


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
