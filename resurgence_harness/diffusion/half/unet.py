"""f_θ of Stable Diffusion 1 and 2 in half precision, from the U-Net's own modules.

    both rows of a guided step     what precedes the first text is computed once for the empty and the prompted row
    upsampling                     four 2 × 2 convolutions in place of a 3 × 3 one (layers.phases)
    text                           keys and values of every layer, once for each batch (`text`)
    time                           every residual block's shift, once for each sampling (`times`)
    biases                         of a transformer's products, in the norms that read their sum

Source of the architecture: diffusers' UNet2DConditionModel; heads, projections (linear or 1 × 1 convolutions), depth
and widths are read from its modules. `covered` says which configurations there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from resurgence_harness.diffusion.half import kernels
from resurgence_harness.diffusion.half.layers import Activation, Slots, attend

Text = Mapping[str, Tensor]
"""Layer → its keys and values [n, L, 2 C]."""
_NEEDED: Mapping[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "resnet_out_scale_factor": (1,),
    "center_input_sample": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "resnet_time_scale_shift": ("default",),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "time_cond_proj_dim": (None,),
    "encoder_hid_dim_type": (None,),
}
_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}


def covered(unet: Any) -> bool:
    """Whether this U-Net's configuration is one that `HalfUNet` computes, with the layers that it was made with."""
    config = unet.config
    plain = all(type(layer).__module__.startswith(("diffusers.", "torch.nn.")) for layer in unet.modules())
    blocks = {*config.down_block_types, *config.up_block_types} <= _BLOCKS
    return plain and blocks and all(config[name] in values for name, values in _NEEDED.items())


class _Stage(NamedTuple):
    kind: str
    """resnet, shrink (a strided convolution) or grow (an upsampling)."""
    name: str
    transformer: bool = False
    part: str = ""
    """Of a residual block: down, mid or up."""


def _residual(unet: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Name, part, residual block, and the transformer behind it or None, in the order in which they are computed."""
    for part, blocks in (("down", unet.down_blocks), ("mid", [unet.mid_block]), ("up", unet.up_blocks)):
        for number, block in enumerate(blocks):
            transformers = list(getattr(block, "attentions", []))
            for place, resnet in enumerate(block.resnets):
                name = f"{part}.{number}.{place}"
                yield name, part, resnet, transformers[place] if place < len(transformers) else None


class HalfUNet(Slots):
    """The prepared weights of a U-Net and its forward pass; `fill` replaces the weights in place."""

    def __init__(self, unet: Any, dtype: torch.dtype = torch.float16) -> None:
        super().__init__(dtype)
        self._heads: dict[str, list[int]] = {}
        self._stages: list[_Stage] = []
        self._shifts: list[int] = []
        self._plan(unet)
        self.fill(unet)

    def _plan(self, unet: Any) -> None:
        for name, part, resnet, transformer in _residual(unet):
            self._stages.append(_Stage("resnet", name, transformer is not None, part))
            self._shifts.append(resnet.time_emb_proj.out_features)
            kind, number, place = name.split(".")
            block = getattr(unet, f"{kind}_blocks")[int(number)] if kind != "mid" else unet.mid_block
            last = int(place) == len(block.resnets) - 1
            if last and getattr(block, "downsamplers", None):
                self._stages.append(_Stage("shrink", f"down.{number}.downsampling"))
            if last and getattr(block, "upsamplers", None):
                self._stages.append(_Stage("grow", f"up.{number}.upsampling"))

    @torch.no_grad()
    def fill(self, unet: Any) -> None:
        """Take the weights of a U-Net of the same configuration."""
        self.put_conv("in", unet.conv_in)
        for name, _, resnet, transformer in _residual(unet):
            extra = None if transformer is None else self._put_transformer(f"{name}.transformer", transformer)
            self.put_resnet(name, resnet, extra=extra)
        for stage in self._stages:
            number = int(stage.name.split(".")[1])
            if stage.kind == "shrink":
                self.put_conv(stage.name, unet.down_blocks[number].downsamplers[0].conv)
            if stage.kind == "grow":
                self.put_upsampling(stage.name, unet.up_blocks[number].upsamplers[0].conv)
        self.put_norm("out", unet.conv_norm_out)
        self.put_whole("out.conv", unet.conv_out.weight)
        self.put_whole("out.conv.bias", unet.conv_out.bias)

    def _put_transformer(self, name: str, transformer: Any) -> Tensor:
        """Returns the bias [C] of its output, which the residual block in front of it adds instead.

        Within it, the biases of every product so far are left out of the running sum and added in the norms.
        """
        self.put_norm(f"{name}.norm", transformer.norm)
        self.put(f"{name}.in", transformer.proj_in.weight.flatten(1))
        bias = transformer.proj_in.bias.float()
        self._heads[name] = []
        for number, block in enumerate(transformer.transformer_blocks):
            own = f"{name}.{number}"
            itself, text, feed = block.attn1, block.attn2, block.ff.net
            self._heads[name].append(itself.heads)
            self.put(f"{own}.qkv", torch.cat([itself.to_q.weight, itself.to_k.weight, itself.to_v.weight]))
            self.put(f"{own}.out1", itself.to_out[0].weight)
            self.put(f"{own}.q", text.to_q.weight)
            self.put(f"{own}.kv", torch.cat([text.to_k.weight, text.to_v.weight]))
            self.put(f"{own}.out2", text.to_out[0].weight)
            self.put(f"{own}.feed1", feed[0].proj.weight)
            self.put(f"{own}.feed1.bias", feed[0].proj.bias)
            self.put(f"{own}.feed2", feed[2].weight)
            for norm, added in (("norm1", None), ("norm2", itself.to_out[0].bias), ("norm3", text.to_out[0].bias)):
                bias = bias if added is None else bias + added
                self.put_norm(f"{own}.{norm}", getattr(block, norm))
                self.put_whole(f"{own}.{norm}.before", bias)
            bias = bias + feed[2].bias
        weight = transformer.proj_out.weight.flatten(1)
        self.put(f"{name}.out", weight)
        whole: Tensor = transformer.proj_out.bias.float() + weight.float() @ bias
        self.put_whole(f"{name}.minus", -whole)
        return whole

    @torch.no_grad()
    def times(self, unet: Any, steps: Sequence[int], added: Tensor | None = None) -> Tensor:
        """[steps, ΣC] float32: every residual block's time embedding plus its first convolution's bias.

        added [n, d] is a further condition that is summed with the time embedding (Stable Diffusion XL's): the result
        is then [steps, n, ΣC].
        """
        t = torch.as_tensor(steps, device=unet.conv_in.weight.device)
        embedding = unet.time_embedding(unet.time_proj(t).to(unet.conv_in.weight.dtype))
        if added is not None:
            embedding = embedding[:, None] + added
        embedding = functional.silu(embedding)
        blocks = [resnet for _, _, resnet, _ in _residual(unet)]
        return torch.cat([(one.time_emb_proj(embedding) + one.conv1.bias).float() for one in blocks], -1)

    @torch.no_grad()
    def added(self, unet: Any, further: Mapping[str, Tensor]) -> Tensor | None:
        """The added condition [n, d] of pooled text and sizes (`moves.added_conditions`); None if there are none."""
        if not further:
            return None
        pooled, sizes = further["text_embeds"], further["time_ids"]
        embedded = unet.add_time_proj(sizes.flatten()).reshape(len(sizes), -1).to(pooled.dtype)
        found: Tensor = unet.add_embedding(torch.cat([pooled, embedded], -1))
        return found

    @torch.no_grad()
    def text(self, states: Tensor) -> Text:
        """Keys and values for text states [n, L, d]."""
        states = states.to(self.dtype)
        layers = [f"{name}.{place}" for name, heads in self._heads.items() for place in range(len(heads))]
        return {layer: functional.linear(states, self[f"{layer}.kv"]) for layer in layers}

    def __call__(self, x: Tensor, shift: Tensor, text: Text) -> Tensor:
        """f_θ(x_t, t, ·) [2 n, 4, h, w] float32 for x_t [n, 4, h, w] and the text of 2 n rows, the empty ones first.

        shift: a row of `times`. With an added condition it differs between the two halves, which then have nothing
        in common; without, they are computed once up to the first text.
        """
        if shift.ndim == 2:
            x = torch.cat([x, x])
        shifts = iter(torch.split(shift, self._shifts, -1))
        h = self.conv("in", x.to(self.dtype))
        skips = [h]
        for stage in self._stages:
            if stage.kind == "shrink":
                h = self.conv(stage.name, h, stride=2)
                skips.append(h)
                continue
            if stage.kind == "grow":
                h = self.upsampling(stage.name, h)
                continue
            sources = [h]
            if stage.part == "up":
                skip = skips.pop()
                sources.append(skip if len(skip.x) == len(h.x) else skip.twice())
            h = self.resnet(stage.name, *sources, shift=next(shifts))
            if stage.transformer:
                h = self._transformer(f"{stage.name}.transformer", h, text)
            if stage.part == "down":
                skips.append(h)
        h = self.group_norm("out", h, silu=True, dtype=torch.float32)
        return functional.conv2d(h.image, self["out.conv"], self["out.conv.bias"], padding=1)

    def _transformer(self, name: str, a: Activation, text: Text) -> Activation:
        """x + the transformer's output; of twice as many rows as `a` has if it is the first to read the text."""
        h = self.group_norm(f"{name}.norm", a, silu=False, bias=self[f"{name}.minus"])
        x, channels = torch.mm(h.tokens, self[f"{name}.in"].t()), a.x.shape[2]
        for number, heads in enumerate(self._heads[name]):
            own = f"{name}.{number}"
            y = kernels.layer_norm(x, self.norm(f"{own}.norm1"), self[f"{own}.norm1.before"])
            qkv = torch.mm(y, self[f"{own}.qkv"].t()).view(len(a.x), -1, 3 * channels)
            q, k, v = qkv.chunk(3, -1)
            x.addmm_(attend(q, k, v, heads), self[f"{own}.out1"].t())
            both = text[own]
            if len(both) != len(a.x):
                x, a = torch.cat([x, x]), a.twice()
            y = kernels.layer_norm(x, self.norm(f"{own}.norm2"), self[f"{own}.norm2.before"])
            q = torch.mm(y, self[f"{own}.q"].t()).view(len(a.x), -1, channels)
            k, v = both.chunk(2, -1)
            x.addmm_(attend(q, k, v, heads), self[f"{own}.out2"].t())
            y = kernels.layer_norm(x, self.norm(f"{own}.norm3"), self[f"{own}.norm3.before"])
            y = kernels.geglu(torch.addmm(self[f"{own}.feed1.bias"], y, self[f"{own}.feed1"].t()))
            x.addmm_(y, self[f"{own}.feed2"].t())
        a.tokens.addmm_(x, self[f"{name}.out"].t())
        return a.changed()
