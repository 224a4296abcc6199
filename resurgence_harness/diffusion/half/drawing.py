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
    decodes = model.decodes_in_float32 or decoder.covered(model.vae)
    return "triton" if able and unet.covered(model.unet) and decodes else "plain"


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

    def decode(self, model: StableDiffusion, x_0: Tensor) -> Tensor:
        """Pixels [n, 3, H, W] in float32 of latents x_0."""


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

        self._unet = HalfUNet(model.unet)
        self._decoder = None if model.decodes_in_float32 else HalfDecoder(model.vae)

    def fill(self, model: StableDiffusion) -> None:
        self._unet.fill(model.unet)
        if self._decoder is not None:
            self._decoder.fill(model.vae)

    def predictions(
        self, model: StableDiffusion, states: Conditions, empty: Conditions, steps: Sequence[int]
    ) -> Predictions:
        import torch

        both = joined([empty.expand(len(states)), states])
        text, shifts = self._unet.text(both.states), dict[int, Tensor]()

        def predict(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            if not shifts:  # sizes are those of the latents
                further = moves.added_conditions(model, torch.cat([x, x]), both)
                rows = self._unet.added(model.unet, further)
                shifts.update(zip(steps, self._unet.times(model.unet, steps, rows), strict=True))
            nothing, prompted = self._unet(x, shifts[t], text).chunk(2)
            return nothing, prompted

        return predict

    def decode(self, model: StableDiffusion, x_0: Tensor) -> Tensor:
        if self._decoder is None:
            return _decoded(model, x_0)
        return self._decoder(x_0 / model.vae.config.scaling_factor).float()


class _Plain:
    def __init__(self, model: StableDiffusion) -> None:
        self._unet = copy.deepcopy(model.unet).half()
        self._vae = None if model.decodes_in_float32 else copy.deepcopy(model.vae).half()

    def fill(self, model: StableDiffusion) -> None:
        for own, given in ((self._unet, model.unet), (self._vae, model.vae)):
            if own is None:
                continue
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

    def decode(self, model: StableDiffusion, x_0: Tensor) -> Tensor:
        import torch

        if (vae := self._vae) is None:
            return _decoded(model, x_0)
        parts = torch.split((x_0 / model.vae.config.scaling_factor).half(), _at_once(model, x_0))
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in parts]).float()


def _decoded(model: StableDiffusion, x_0: Tensor) -> Tensor:
    """Pixels by the model's own autoencoder in float32, a few images at a time."""
    import torch

    at_once = max(1, _at_once(model, x_0) // 2)
    return torch.cat([moves.decode_pixels(model, part) for part in torch.split(x_0, at_once)])


def _at_once(model: StableDiffusion, x_0: Tensor) -> int:
    """How many images are decoded at once in float16: a whole batch would need more memory than the U-Net."""
    from resurgence_harness.diffusion.half.decoder import PIXELS

    return int(max(1, PIXELS // (x_0.shape[2] * x_0.shape[3] * model.latent_factor**2)))
