"""D, the decoder of Stable Diffusion's autoencoder, in half precision, from the autoencoder's own modules.

Upsampling convolutions are four 2 × 2 ones (layers.phases). Source of the architecture: diffusers' AutoencoderKL.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from resurgence_harness.diffusion.half.layers import Slots, attend

PIXELS = 16 * 512 * 512
"""Pixels that are decoded at once: a whole batch would need more memory than the U-Net."""


def covered(vae: Any) -> bool:
    """Whether this autoencoder's configuration is one that `HalfDecoder` computes."""
    config = vae.config
    plain = all(type(layer).__module__.startswith(("diffusers.", "torch.nn.")) for layer in vae.decoder.modules())
    blocks = {*config.up_block_types} <= {"UpDecoderBlock2D"}
    return plain and blocks and config.act_fn in ("silu", "swish") and config.get("mid_block_add_attention", True)


class HalfDecoder(Slots):
    """The prepared weights of a decoder and its forward pass; `fill` replaces the weights in place."""

    def __init__(self, vae: Any, dtype: torch.dtype = torch.float16) -> None:
        super().__init__(dtype)
        self.fill(vae)

    @torch.no_grad()
    def fill(self, vae: Any) -> None:
        """Take the weights of an autoencoder of the same configuration."""
        decoder, attention = vae.decoder, vae.decoder.mid_block.attentions[0]
        if vae.config.get("use_post_quant_conv", True):
            self.put_whole("latents.weight", vae.post_quant_conv.weight)
            self.put_whole("latents.bias", vae.post_quant_conv.bias)
        self.put_conv("in", decoder.conv_in)
        self.put_resnet("mid.0", decoder.mid_block.resnets[0])
        self.put_norm("attention.norm", attention.group_norm)
        self._heads = attention.heads
        three = (attention.to_q, attention.to_k, attention.to_v)
        self.put("attention.qkv", torch.cat([one.weight for one in three]))
        self.put("attention.qkv.bias", torch.cat([one.bias for one in three]))
        self.put("attention.out", attention.to_out[0].weight)
        self.put_whole("attention.out.bias", attention.to_out[0].bias)
        self.put_resnet("mid.1", decoder.mid_block.resnets[1])
        self._stages: list[str] = []
        for number, block in enumerate(decoder.up_blocks):
            for place, resnet in enumerate(block.resnets):
                self._stages.append(f"up.{number}.{place}")
                self.put_resnet(self._stages[-1], resnet)
            if block.upsamplers is not None:
                self._stages.append(f"up.{number}.upsampling")
                self.put_upsampling(self._stages[-1], block.upsamplers[0].conv)
        self.put_norm("out", decoder.conv_norm_out)
        self.put("out.conv", decoder.conv_out.weight)
        self.put("out.conv.bias", decoder.conv_out.bias)

    def __call__(self, z: Tensor) -> Tensor:
        """Latents z [n, 4, h, w], already divided by the scaling factor → pixels [n, 3, H, W] in `dtype`."""
        grown = 2 ** sum(name.endswith("upsampling") for name in self._stages)
        each = max(1, PIXELS // (z.shape[2] * z.shape[3] * grown**2))
        return torch.cat([self._decoded(part) for part in torch.split(z, each)])

    def _decoded(self, z: Tensor) -> Tensor:
        z = z.float()
        if "latents.weight" in self:
            z = functional.conv2d(z, self["latents.weight"], self["latents.bias"])
        h = self.conv("in", z.to(self.dtype))
        h = self.resnet("mid.0", h)
        y = self.group_norm("attention.norm", h, silu=False)
        qkv = torch.addmm(self["attention.qkv.bias"], y.tokens, self["attention.qkv"].t())
        q, k, v = qkv.view(*h.x.shape[:2], -1).chunk(3, -1)
        read = attend(q, k, v, self._heads)
        h = h.add(torch.mm(read, self["attention.out"].t()).view(h.x.shape), self["attention.out.bias"])
        h = self.resnet("mid.1", h)
        for name in self._stages:
            h = self.upsampling(name, h) if name.endswith("upsampling") else self.resnet(name, h)
        h = self.group_norm("out", h, silu=True)
        return functional.conv2d(h.image, self["out.conv"], self["out.conv.bias"], padding=1)
