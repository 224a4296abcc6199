"""Records a U-Net's cross-attention maps during its forward pass; optionally adds to the layers' keys and values.

    A_l = softmax(Q K_lᵀ / √d)   [n, heads, h_l w_l, L]   for each attn2 layer l (16 in Stable Diffusion)

Fused attention kernels never compute A_l, so while maps are recorded a plain processor replaces the layers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.parameters import StrictKeyValue, selected

if TYPE_CHECKING:
    from torch import Tensor

Watch = Callable[["Tensor"], None]
"""Called with A_l once per layer, in the order of the forward pass."""
Added = Callable[[str, "Tensor"], "Tensor"]
"""added(name, c): what to add to the key or value that the weight `name` ("unet.….to_k.weight") computes from c."""


@contextmanager
def watched(unet: Any, watch: Watch, added: Added | None = None) -> Iterator[None]:
    """Within the context `watch` is called with every cross-attention map; on exit the processors are restored."""
    names = [f"unet.{name}" for name, _ in unet.named_parameters()]
    layers = [
        name.removeprefix("unet.").removesuffix(".to_k.weight")
        for name in selected(StrictKeyValue(), names)
        if name.endswith(".to_k.weight")
    ]
    before = [unet.get_submodule(layer).processor for layer in layers]
    try:
        for layer in layers:
            unet.get_submodule(layer).set_processor(Watched(f"unet.{layer}", watch, added))
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            unet.get_submodule(layer).set_processor(processor)


class Watched:
    """diffusers' attention processor for a cross-attention layer, in plain operations."""

    def __init__(self, name: str, watch: Watch, added: Added | None) -> None:
        self.name, self.watch, self.added = name, watch, added

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: object, **__: object
    ) -> Tensor:
        """What the layer returns, [n, h w, C]."""
        key, value = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        if self.added is not None:
            key = key + self.added(f"{self.name}.to_k.weight", encoder_hidden_states)
            value = value + self.added(f"{self.name}.to_v.weight", encoder_hidden_states)
        q, k, v = (
            part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (attn.to_q(hidden_states), key, value)
        )
        maps = (attn.scale * q @ k.mT).softmax(dim=-1)
        self.watch(maps)
        read: Tensor = attn.to_out[1](attn.to_out[0]((maps @ v).transpose(1, 2).flatten(2)))
        return read


def grid(places: int, height: int, width: int) -> tuple[int, int]:
    """(h_l, w_l) of a layer with h_l · w_l = `places`, in a U-Net that halves height × width latents, rounding up."""
    while height * width > places:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width
