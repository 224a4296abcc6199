"""Activations in channels-last layout, and the layers that the U-Net and the decoder share, over prepared weights.

A residual block and a transformer exchange their biases so that no pass over memory is spent on them: what a block adds
to its last convolution's output may contain the bias of the transformer that follows, which takes it out again in its
first norm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resurgence_harness.diffusion.half import kernels
from resurgence_harness.diffusion.half.kernels import Normed


class Activation:
    """x [n, P, C], P = H · W places, with the channel sums that a group norm needs, computed when first used."""

    def __init__(self, x: Tensor, height: int, width: int, sums: Tensor | None = None) -> None:
        self.x, self.height, self.width, self._sums = x, height, width, sums

    @classmethod
    def of(cls, image: Tensor) -> Activation:
        """From [n, C, H, W] in channels-last layout, without a copy."""
        n, channels, height, width = image.shape
        image = image.contiguous(memory_format=torch.channels_last)
        return cls(image.permute(0, 2, 3, 1).reshape(n, height * width, channels), height, width)

    @property
    def image(self) -> Tensor:
        """[n, C, H, W] in channels-last layout, without a copy."""
        n, _, channels = self.x.shape
        return self.x.view(n, self.height, self.width, channels).permute(0, 3, 1, 2)

    @property
    def tokens(self) -> Tensor:
        """[n · P, C]."""
        return self.x.view(-1, self.x.shape[2])

    @property
    def source(self) -> tuple[Tensor, Tensor]:
        """x and its channel sums, for `kernels.group_norm`."""
        if self._sums is None:
            self._sums = kernels.channel_sums(self.x)
        return self.x, self._sums

    def add(self, y: Tensor | None = None, bias: Tensor | None = None) -> Activation:
        """x += y + bias, in place."""
        self._sums = kernels.channel_sums(self.x, y, bias)
        return self

    def changed(self) -> Activation:
        """The same after x was changed in place."""
        return Activation(self.x, self.height, self.width)

    def twice(self) -> Activation:
        """The same rows twice."""
        sums = None if self._sums is None else torch.cat([self._sums, self._sums])
        return Activation(torch.cat([self.x, self.x]), self.height, self.width, sums)


class Slots:
    """Prepared weights by name, at fixed addresses, filled in place from float32 modules."""

    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        self.dtype = dtype
        self.slots: dict[str, Tensor] = {}
        """Weights in `dtype`, and biases and norms in float32."""
        self._norms: dict[str, tuple[float, int]] = {}

    def __getitem__(self, name: str) -> Tensor:
        """A weight in `dtype`, or a bias in float32."""
        return self.slots[name]

    def __contains__(self, name: str) -> bool:
        return name in self.slots

    def put(self, name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
        """Fill a slot, which is made when its name is new."""
        value = value.detach()
        if name not in self.slots:
            layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
            self.slots[name] = torch.empty(
                value.shape, device=value.device, dtype=dtype or self.dtype, memory_format=layout
            )
        self.slots[name].copy_(value)

    def put_whole(self, name: str, value: Tensor) -> None:
        """Fill a slot of float32: biases, norms, and what is summed."""
        self.put(name, value, torch.float32)

    def put_conv(self, name: str, conv: Any) -> None:
        """A convolution with its bias apart."""
        self.put(f"{name}.weight", conv.weight)
        self.put_whole(f"{name}.bias", conv.bias)

    def put_norm(self, name: str, norm: Any) -> None:
        """A group norm or a layer norm."""
        self.put_whole(f"{name}.weight", norm.weight)
        self.put_whole(f"{name}.bias", norm.bias)
        self._norms[name] = (norm.eps, getattr(norm, "num_groups", 1))

    def norm(self, name: str) -> Normed:
        """The parameters of a norm."""
        return Normed(self[f"{name}.weight"], self[f"{name}.bias"], *self._norms[name])

    def group_norm(
        self, name: str, *sources: Activation, silu: bool, bias: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Activation:
        """act(GroupNorm(cat(sources) + bias))."""
        first = sources[0]
        x = kernels.group_norm([one.source for one in sources], self.norm(name), silu=silu, bias=bias, dtype=dtype)
        return Activation(x, first.height, first.width)

    def put_resnet(self, name: str, block: Any, *, extra: Tensor | None = None) -> None:
        """A residual block; `extra` [C] is added to its output, for a transformer that takes it out again."""
        self.put_norm(f"{name}.norm1", block.norm1)
        self.put_norm(f"{name}.norm2", block.norm2)
        self.put(f"{name}.conv1", block.conv1.weight)
        self.put(f"{name}.conv2", block.conv2.weight)
        self.put_whole(f"{name}.bias1", block.conv1.bias)
        bias = block.conv2.bias.detach().float().clone()
        if block.conv_shortcut is not None:
            self.put(f"{name}.shortcut", block.conv_shortcut.weight.flatten(1))
            bias += block.conv_shortcut.bias
        self.put_whole(f"{name}.bias2", bias if extra is None else bias + extra)

    def resnet(self, name: str, *sources: Activation, shift: Tensor | None = None) -> Activation:
        """A residual block of one activation, or of two that stand for their concatenation.

        shift [C] or [n, C]: the time embedding, with conv1's bias; None: the bias alone.
        """
        h = self.group_norm(f"{name}.norm1", *sources, silu=True)
        h = Activation.of(functional.conv2d(h.image, self[f"{name}.conv1"], padding=1))
        h = self.group_norm(f"{name}.norm2", h, silu=True, bias=self[f"{name}.bias1"] if shift is None else shift)
        h = Activation.of(functional.conv2d(h.image, self[f"{name}.conv2"], padding=1))
        side = sources[0].x
        if f"{name}.shortcut" in self:
            weight, low = self[f"{name}.shortcut"], sources[0].x.shape[2]
            side = torch.mm(sources[0].tokens, weight[:, :low].t())
            if len(sources) == 2:
                side.addmm_(sources[1].tokens, weight[:, low:].t())
            side = side.view(h.x.shape)
        return h.add(side, self[f"{name}.bias2"])

    def put_upsampling(self, name: str, conv: Any) -> None:
        """A 3 × 3 convolution after nearest 2× upsampling."""
        self.put(f"{name}.weight", phases(conv.weight.detach().float()))
        self.put_whole(f"{name}.bias", conv.bias)

    def upsampling(self, name: str, a: Activation) -> Activation:
        """Twice the height and width."""
        y = Activation.of(functional.conv2d(a.image, self[f"{name}.weight"], padding=1))
        x, sums = kernels.interleave(y.x, self[f"{name}.bias"], a.height, a.width)
        return Activation(x, 2 * a.height, 2 * a.width, sums)

    def conv(self, name: str, a: Activation | Tensor, *, stride: int = 1) -> Activation:
        """A 3 × 3 convolution with its bias."""
        image = a.image if isinstance(a, Activation) else a
        y = Activation.of(functional.conv2d(image, self[f"{name}.weight"], stride=stride, padding=1))
        return y.add(bias=self[f"{name}.bias"])


def phases(weight: Tensor) -> Tensor:
    """[O, I, 3, 3] after nearest 2× upsampling as four 2 × 2 convolutions [4 · O, I, 2, 2], phase (i, j) at 2 i + j.

    Two neighbours of an upsampled pixel are equal, so their weights add up: in rows, phase 0 reads (w_0 | w_1 + w_2)
    and phase 1 (w_0 + w_1 | w_2); columns likewise. 16 products replace 36.
    """
    halves = torch.zeros(2, 2, 3, device=weight.device, dtype=weight.dtype)  # phase, position, weight
    halves[0, 0, 0] = halves[0, 1, 1] = halves[0, 1, 2] = 1
    halves[1, 0, 0] = halves[1, 0, 1] = halves[1, 1, 2] = 1
    four = torch.einsum("oiyx,apy,bqx->aboipq", weight, halves, halves)
    return four.reshape(-1, weight.shape[1], 2, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(Q Kᵀ / √d) V [n · L, C] of [n, L, C] views with the heads side by side.

    Every kernel behind it keeps scores and softmax in float32, which is what a model's `upcast_attention` requires.
    """
    q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (q, k, v))
    read = functional.scaled_dot_product_attention(q, k, v)
    return read.transpose(1, 2).reshape(read.shape[0] * read.shape[2], -1)
