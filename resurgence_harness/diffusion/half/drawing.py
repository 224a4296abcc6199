"""Which way a device and a model can be computed in float16, and the weights that are kept for it between calls.

    triton     on a GPU with Triton, for the configurations that `unet.covered` and `decoder.covered` name
    plain      otherwise: diffusers' own modules in float16; slower, on a CPU several times slower than float32

Both compute the same function; their rounding differs, so images of the two are never compared (`bench.provenance`).
There is no way back to float32: what float16 cannot hold becomes NaN or infinity, which `sampling.sample` refuses.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions, joined
from resurgence_harness.diffusion.moves import Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion

Way = Literal["triton", "plain"]
LEAST_CAPABILITY = (7, 5)
"""Compute capability from which Triton compiles for a GPU."""


def way_of(model: StableDiffusion) -> Way:
    """How images of this model are drawn in float16 on its device."""
    if model.device.type != "cuda" or not has_triton():
        return "plain"
    import torch

    from resurgence_harness.diffusion.half import decoder, unet

    able = torch.cuda.get_device_capability(model.device) >= LEAST_CAPABILITY
    return "triton" if able and unet.covered(model.unet) and decoder.covered(model.vae) else "plain"


def has_triton() -> bool:
    """Whether Triton is installed and compiles kernels, rather than interpreting them."""
    return find_spec("triton") is not None and os.environ.get("TRITON_INTERPRET", "0") != "1"


class Half(Protocol):
    """The U-Net and the decoder of one model in float16."""

    def fill(self, model: StableDiffusion) -> None:
        """Take the weights of a model of the same configuration, in place."""

    def predictions(
        self, model: StableDiffusion, states: Conditions, empty: Conditions, steps: Sequence[int]
    ) -> Predictions:
        """f_θ for `moves.denoise` at the timesteps `steps`; states n rows, empty one row."""

    def decode(self, z: Tensor) -> Tensor:
        """Pixels [n, 3, H, W] of latents that are already divided by the scaling factor."""


class Halves:
    """The float16 weights of the model that was used last; a model of the same configuration takes their place."""

    def __init__(self, way: Way | None = None) -> None:
        """`way` is `way_of` the model if None. Nothing is allocated before the first use."""
        self._way = way
        self._known: tuple[tuple[object, ...], Half] | None = None

    def of(self, model: StableDiffusion) -> Half:
        """This model's, with its weights as they are now."""
        import torch

        way = self._way or way_of(model)
        key = (way, str(model.device), repr(dict(model.unet.config)), repr(dict(model.vae.config)))
        with torch.inference_mode(False), torch.no_grad():  # filled again outside of inference mode, too
            if self._known is None or self._known[0] != key:
                self._known = None  # frees the memory of the other configuration first
                self._known = key, _ByTriton(model) if way == "triton" else _Plain(model)
            else:
                self._known[1].fill(model)
        return self._known[1]


class _ByTriton:
    def __init__(self, model: StableDiffusion) -> None:
        from resurgence_harness.diffusion.half.decoder import HalfDecoder
        from resurgence_harness.diffusion.half.unet import HalfUNet

        self._unet, self._decoder = HalfUNet(model.unet), HalfDecoder(model.vae)

    def fill(self, model: StableDiffusion) -> None:
        self._unet.fill(model.unet)
        self._decoder.fill(model.vae)

    def predictions(
        self, model: StableDiffusion, states: Conditions, empty: Conditions, steps: Sequence[int]
    ) -> Predictions:
        text = self._unet.text(joined([empty.expand(len(states)), states]).states)
        shifts = dict(zip(steps, self._unet.times(model.unet, steps), strict=True))

        def predict(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            nothing, prompted = self._unet(x, shifts[t], text).chunk(2)
            return nothing, prompted

        return predict

    def decode(self, z: Tensor) -> Tensor:
        return self._decoder(z)


class _Plain:
    def __init__(self, model: StableDiffusion) -> None:
        self._unet, self._vae = copy.deepcopy(model.unet).half(), copy.deepcopy(model.vae).half()

    def fill(self, model: StableDiffusion) -> None:
        for own, given in ((self._unet, model.unet), (self._vae, model.vae)):
            places: dict[str, Any] = own.state_dict()
            for name, value in given.state_dict().items():
                places[name].copy_(value)

    def predictions(
        self, model: StableDiffusion, states: Conditions, empty: Conditions, steps: Sequence[int]
    ) -> Predictions:
        import torch

        both = joined([empty.expand(len(states)), states])

        def predict(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            x = torch.cat([x, x])
            added = {name: value.half() for name, value in moves.added_conditions(model, x, both).items()}
            given: dict[str, Any] = {
                "encoder_hidden_states": both.states.half(),
                "added_cond_kwargs": added or None,
                "return_dict": False,
            }
            nothing, prompted = self._unet(x.half(), t, **given)[0].float().chunk(2)
            return nothing, prompted

        return predict

    def decode(self, z: Tensor) -> Tensor:
        import torch

        from resurgence_harness.diffusion.half.decoder import PIXELS

        factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        at_once = max(1, PIXELS // (z.shape[2] * z.shape[3] * factor**2))
        return torch.cat([self._vae.decode(part, return_dict=False)[0] for part in torch.split(z.half(), at_once)])
