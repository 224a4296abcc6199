"""Captures a small model's whole sampling once as a CUDA graph and replays it.

The speed of a U-Net with a few million weights is limited by launching kernels, not by arithmetic. One replay draws a
batch from noise to pixels with a single launch. The kernels are those of ordinary sampling, so images are the same up
to the choice of algorithms. A graph reads the weights at fixed addresses, so it suits a model whose weights change in
place (the bench's); if the addresses change, the graph is captured again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


class Replays:
    """Captured samplings by model, batch shape, steps and guidance. They are freed together with their model."""

    def __init__(self) -> None:
        """Graphs are captured when they are first used."""
        self._known: WeakKeyDictionary[Any, dict[tuple[Any, ...], _Replay]] = WeakKeyDictionary()

    def serves(self, model: StableDiffusion) -> bool:
        """Whether replaying is worthwhile: on a GPU, for a small U-Net. A large one needs its memory for other work."""
        return bool(model.device.type == "cuda") and not model.large

    def draw(
        self,
        model: StableDiffusion,
        noise: Tensor,
        states: Conditions,
        empty: Conditions,
        *,
        steps: int,
        guidance: float,
    ) -> tuple[Tensor, Tensor]:
        """(x_0, images uint8 [n, H, W, 3]) as `moves.denoise` and `moves.decode` give them; valid until the next call.

        noise [n, 4, h, w], states n rows, empty one row.
        """
        mine = self._known.setdefault(model.unet, {})
        places = tuple(value.data_ptr() for part in (model.unet, model.vae) for value in part.parameters())
        given = (noise, *states.tensors(), *empty.tensors())
        key = (*(tuple(value.shape) for value in given), steps, guidance)
        if key not in mine or mine[key].places != places:
            mine[key] = _captured(model, noise, states, empty, steps=steps, guidance=guidance, places=places)
        replay = mine[key]
        for slot, value in zip(replay.inputs, given, strict=True):
            slot.copy_(value)
        replay.graph.replay()
        return replay.latents, replay.images


class _Replay(NamedTuple):
    """A graph with its inputs and outputs. It must not refer to the model, which could never be freed then."""

    graph: Any
    inputs: tuple[Tensor, ...]
    latents: Tensor
    images: Tensor
    places: tuple[int, ...]
    """Addresses of the weights that it reads."""


def _captured(
    model: StableDiffusion,
    noise: Tensor,
    states: Conditions,
    empty: Conditions,
    *,
    steps: int,
    guidance: float,
    places: tuple[int, ...],
) -> _Replay:
    import torch

    inputs = tuple(value.clone() for value in (noise, *states.tensors(), *empty.tensors()))
    first, *rest = inputs
    count = len(states.tensors())
    prompted, nothing = states.of(rest[:count]), empty.of(rest[count:])

    def draw() -> tuple[Tensor, Tensor]:
        latents = moves.denoise(model, first, prompted, nothing, steps=steps, guidance=guidance)
        return latents, moves.decode(model, latents)

    aside = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream(model.device))
    with torch.cuda.stream(
        aside
    ):  # libraries choose algorithms and workspaces in a first run, which must not be captured
        draw()
    torch.cuda.current_stream(model.device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        latents, images = draw()
    return _Replay(graph, inputs, latents, images, places)
