"""Rendered pictures held on the device, and a training loop's clockwork: schedule, snapshots, one line of progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from resurgence_harness.microworld import world


@dataclass(frozen=True)
class Pool:
    """Pictures with what they show; `tokens` int16 [n, length] are the captions."""

    images: Tensor
    family: Tensor
    subject: Tensor
    captions: list[str]

    def __len__(self) -> int:
        return len(self.images)


def render_pool(n: int, *, seed: int, device: torch.device, chunk: int = 16_384) -> Pool:
    """Draw `n` pictures in the world's proportions."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        world.draw_world(min(chunk, n - start), generator=generator, device=device) for start in range(0, n, chunk)
    ]
    return Pool(
        images=torch.cat([p.images for p in parts]),
        family=torch.cat([p.family for p in parts]),
        subject=torch.cat([p.subject for p in parts]),
        captions=[text for p in parts for text in p.captions],
    )


def pixels(images: Tensor) -> Tensor:
    """uint8 0 … 255 → float −1 … 1."""
    return images.float() / 127.5 - 1


def cosine(step: int, steps: int, *, warmup: int = 500) -> float:
    """The learning rate's factor: a linear warm-up, then a cosine to 2 %."""
    warmup = min(warmup, max(steps // 10, 1))
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of every group; a tensor, which a captured step reads, is filled in place."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def descend(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One step of the optimiser, the gradient cut to length 1; gives the loss without its graph."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return loss.detach()


class Snapshots:
    """A stage's state on disk every so often, so that a cut stage goes on where it was."""

    def __init__(self, path: Path, every: float) -> None:
        self.path, self.every, self.last = path, every, time.monotonic()

    def load(self, device: torch.device) -> dict[str, object] | None:
        """The last state, or None."""
        if not self.path.exists():
            return None
        state: dict[str, object] = torch.load(self.path, map_location=device, weights_only=True)
        return state

    def maybe(self, state: Callable[[], dict[str, object]]) -> None:
        """Write one if it is time."""
        if time.monotonic() - self.last >= self.every:
            temporary = self.path.with_suffix(".part")
            torch.save(state(), temporary)
            temporary.replace(self.path)
            self.last = time.monotonic()

    def done(self) -> None:
        """The stage is finished: its snapshot is of no more use."""
        self.path.unlink(missing_ok=True)


def batches(n: int, batch: int, *, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
    """Random index batches for ever, drawn on the device."""
    while True:
        yield torch.randint(n, (batch,), generator=generator, device=device)


def half_precision(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU, where it is emulated and very slow, nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


class GraphedStep:
    """A whole optimiser step, captured once as a CUDA graph and replayed.

    The networks are so small that launching their kernels one by one takes longer than running them. `step` must draw
    its own random numbers from the device's default generator and return its loss; without a GPU it is simply called.
    """

    def __init__(self, step: Callable[[], Tensor], device: torch.device) -> None:
        self.step, self.graph = step, None
        if device.type != "cuda":
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step()

    def __call__(self) -> Tensor:
        """Run it; the loss tensor is overwritten by the next call."""
        if self.graph is None:
            return self.step()
        self.graph.replay()
        return self.loss


class Progress:
    """The steps of a stage, and one line every ten seconds: step, loss, pictures per second, seconds left.

    With `seconds`, the number of steps is set anew after the first three hundred, from the speed of the last hundred,
    so that the stage ends in time; the line that says so is what settings.py is corrected by.
    """

    def __init__(self, label: str, steps: int, batch: int, start: int = 0, seconds: float = 0.0) -> None:
        self.label, self.steps, self.batch, self.first, self.seconds = label, steps, batch, start, seconds
        self.began = self.last = self.mark = time.monotonic()

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while step < self.steps:
            if self.seconds and step - self.first in (200, 300):
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                now = time.monotonic()
                if step - self.first == 300:
                    left = self.seconds - (now - self.began)
                    self.steps = step + max(int(left / ((now - self.mark) / 100)), 1)
                    print(f"{self.label}: {self.steps} steps fit in {self.seconds:.0f} s", flush=True)
                self.mark = now
            yield step
            step += 1

    def step(self, step: int, loss: Tensor, extra: str = "") -> None:
        """Say where we are, if it is time."""
        now = time.monotonic()
        if now - self.last < 10 and step + 1 < self.steps:
            return
        self.last = now
        rate = (step + 1 - self.first) / max(now - self.began, 1e-9)
        print(
            f"{self.label}  {step + 1}/{self.steps}  loss {float(loss):.4f}  {rate * self.batch:,.0f} pictures/s  "
            f"{(self.steps - step - 1) / rate:.0f} s left {extra}",
            flush=True,
        )
