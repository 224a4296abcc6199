"""The U-Net of SD 1.x, 2.x and XL as a differentiable function of its weights, channels last, with kernels of its own.

`Forward(unet, value)` computes what diffusers' module does, from the tensors that `value` gives for its parameters:
float16 for products, float32 (`kept_whole`) for norms and the sums of residuals. Adapters of peft (LoRA, DoRA) on the
attention's projections are part of it, and the cross-attention maps that `attention.watched` reads.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from resurgence_harness.diffusion.attention import Watched
from resurgence_harness.diffusion.half import training_kernels as kernels

PLAIN: Mapping[str, object] = {
    **{"class_embed_type": None, "encoder_hid_dim_type": None, "num_class_embeds": None},
    **{"time_embedding_type": "positional", "time_embedding_act_fn": None, "time_embedding_dim": None},
    **{"timestep_post_act": None, "time_cond_proj_dim": None, "dual_cross_attention": False, "act_fn": "silu"},
    **{"only_cross_attention": False, "resnet_time_scale_shift": "default", "resnet_skip_time_act": False},
    **{"resnet_out_scale_factor": 1.0, "mid_block_scale_factor": 1, "cross_attention_norm": None, "dropout": 0.0},
    **{"conv_in_kernel": 3, "conv_out_kernel": 3, "downsample_padding": 1, "center_input_sample": False},
    **{"attention_type": "default", "class_embeddings_concat": False, "mid_block_only_cross_attention": None},
}
"""Settings of a U-Net that this forward pass knows with these values only."""
BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D", "UpBlock2D"}
PADDED = 8
"""Ranks of adapters are padded to a multiple of it, which products in float16 need to be fast."""


def fits(unet: Any) -> bool:
    """Whether `Forward` computes this U-Net with its adapters: SD 1.x, 2.x, XL; LoRA and DoRA without dropout."""
    blocks = {type(block).__name__ for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks)}
    if unet.config.get("addition_embed_type") not in (None, "text_time"):
        return False
    if not blocks <= BLOCKS or any(unet.config.get(name, value) != value for name, value in PLAIN.items()):
        return False
    if {type(a.processor).__name__ for a in _attentions(unet)} - {"AttnProcessor2_0", "Watched"}:
        return False
    return all(_plain_adapter(layer) for layer in unet.modules() if hasattr(layer, "lora_A"))


def kept_whole(unet: Any) -> set[int]:
    """The ids of the parameters that `Forward` reads as float32."""
    own: set[int] = set()
    for layer in unet.modules():
        kind = type(layer).__name__
        if kind in ("GroupNorm", "LayerNorm"):
            own |= {id(layer.weight), id(layer.bias)}
        elif kind == "ResnetBlock2D":
            convolutions = (layer.conv1, layer.conv2, layer.conv_shortcut)
            own |= {id(each.bias) for each in convolutions if each is not None} | {id(layer.time_emb_proj.bias)}
        elif kind == "BasicTransformerBlock":
            ends = (layer.attn1.to_out[0], layer.attn2.to_out[0], layer.ff.net[2])
            own |= {id(_base(each).bias) for each in ends}
        elif kind == "Transformer2DModel":
            own |= {id(layer.proj_out.bias)}
        for vector in getattr(layer, "lora_magnitude_vector", {}).values():
            own |= {id(vector.weight)}
    return own


class _Adapted(torch.autograd.Function):
    """x [M, in] → x Wᵀ + x Aᵀ Bᵀ for the row blocks W_i of a frozen W [Σ out_i, in], each with its A_i, B_i."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, *adapters: Tensor) -> Tensor:
        half = len(adapters) // 2
        rank = sum(len(a) for a in adapters[:half])
        down = x.new_zeros(rank + -rank % PADDED, x.shape[1])
        up = x.new_zeros(len(w), len(down))
        row = column = 0
        for a, b in zip(adapters[:half], adapters[half:], strict=True):
            down[column : column + len(a)] = a
            up[row : row + len(b), column : column + len(a)] = b
            row, column = row + len(b), column + len(a)
        z = x @ down.mT
        ctx.save_for_backward(x, w, down, up, z)
        ctx.shapes = [(len(a), len(b)) for a, b in zip(adapters[:half], adapters[half:], strict=True)]
        return functional.linear(x, w).addmm_(z, up.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, down, up, z = ctx.saved_tensors
        dy = dy.contiguous()
        dz = dy @ up
        d_down, d_up = dz.mT @ x, z.mT @ dy
        row = column = 0
        downs, ups = [], []
        for rank, out in ctx.shapes:
            downs.append(d_down[column : column + rank])
            ups.append(d_up[column : column + rank, row : row + out].mT.contiguous())
            row, column = row + out, column + rank
        dx = (dy @ w).addmm_(dz, down) if ctx.needs_input_grad[0] else None
        return dx, None, *downs, *ups


class Forward:
    """f_θ(x_t, t, c), and the maps of watched cross-attentions."""

    def __init__(self, unet: Any, value: Callable[[Any], Tensor], dtype: torch.dtype) -> None:
        """`value(parameter)`: the tensor to compute with, in `dtype`, or in float32 for one of `kept_whole`."""
        self.unet, self.value, self.dtype = unet, value, dtype

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        c: Tensor,
        added: Mapping[str, Tensor] | None = None,
        further: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, ...]:
        """x [n, 4, h, w], t [n], c [n, L, d] → f [n, 4, h, w] in float32, then the maps A_l, also in float32.

        `added`: what to add to the key or value that a weight of a watched cross-attention computes, by its name.
        `further`: conditions that are summed with the time embedding (`moves.added_conditions`).
        """
        unet, self.added = self.unet, added or {}
        self.maps: list[Tensor] = []
        n, _, height, width = x.shape
        c, at = c.to(self.dtype), (height, width)
        shifts = self._times(t, further or {})
        x = x.to(self.dtype).permute(0, 2, 3, 1).reshape(n, height * width, -1)
        h, at = self._conv(x, at, unet.conv_in)
        part: Tensor | None = None
        skips = [(h, part, at)]
        for block in unet.down_blocks:
            for index, resnet in enumerate(block.resnets):
                h, part = self._resnet(h, part, at, resnet, next(shifts))
                if getattr(block, "attentions", None):
                    h, part = self._transformer(h, part, c, block.attentions[index])
                skips.append((h, part, at))
            if block.downsamplers is not None:
                (h, at), part = self._conv(h, at, block.downsamplers[0].conv), None
                skips.append((h, part, at))
        middle = unet.mid_block
        h, part = self._resnet(h, part, at, middle.resnets[0], next(shifts))
        for transformer, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
            h, part = self._transformer(h, part, c, transformer)
            h, part = self._resnet(h, part, at, resnet, next(shifts))
        for block in unet.up_blocks:
            for index, resnet in enumerate(block.resnets):
                skip, its_part, _ = skips.pop()
                h = torch.cat([h, skip], 2)
                part = None if part is None or its_part is None else torch.cat([part, its_part], 3)
                h, part = self._resnet(h, part, at, resnet, next(shifts))
                if getattr(block, "attentions", None):
                    h, part = self._transformer(h, part, c, block.attentions[index])
            if block.upsamplers is not None:
                larger = functional.interpolate(_image(h, at), size=skips[-1][2], mode="nearest")
                (h, at), part = self._conv(_rows(larger), skips[-1][2], block.upsamplers[0].conv), None
        h = self._group_norm(h, unet.conv_norm_out, silu=True, part=part)
        out, _ = self._conv(h, at, unet.conv_out)
        return (_image(out, at).float(), *self.maps)

    def _times(self, t: Tensor, further: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """e [n, C] float32 of each resnet, in the order of the forward pass, the first convolution's bias in it."""
        unet = self.unet
        resnets = [resnet for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks) for resnet in block.resnets]
        e = unet.time_proj(t).to(self.dtype)
        e = self._linear(functional.silu(self._linear(e, unet.time_embedding.linear_1)), unet.time_embedding.linear_2)
        if further:
            pooled, sizes = further["text_embeds"], further["time_ids"]
            embedded = unet.add_time_proj(sizes.flatten()).reshape(len(sizes), -1)
            own, layers = torch.cat([pooled.to(self.dtype), embedded.to(self.dtype)], 1), unet.add_embedding
            e = e + self._linear(functional.silu(self._linear(own, layers.linear_1)), layers.linear_2)
        weight = torch.cat([self.value(resnet.time_emb_proj.weight) for resnet in resnets])
        biases = [self.value(resnet.time_emb_proj.bias) + self.value(resnet.conv1.bias) for resnet in resnets]
        shifts = functional.linear(functional.silu(e), weight).float() + torch.cat(biases)
        return iter(shifts.split([len(resnet.time_emb_proj.weight) for resnet in resnets], 1))

    def _resnet(
        self, x: Tensor, part: Tensor | None, at: tuple[int, int], resnet: Any, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        h = self._group_norm(x, resnet.norm1, silu=True, part=part)
        h, _ = self._conv(h, at, resnet.conv1, bias=False)
        h = self._group_norm(h, resnet.norm2, silu=True, moved=shift)
        h, _ = self._conv(h, at, resnet.conv2, bias=False)
        bias = self.value(resnet.conv2.bias)
        if resnet.conv_shortcut is not None:
            x = functional.linear(x, self.value(resnet.conv_shortcut.weight).flatten(1))
            bias = bias + self.value(resnet.conv_shortcut.bias)
        return kernels.residual(h, x, bias)

    def _transformer(self, x: Tensor, part: Tensor | None, c: Tensor, transformer: Any) -> tuple[Tensor, Tensor]:
        n, places, channels = x.shape
        h = self._group_norm(x, transformer.norm, silu=False, part=part)
        s = self._linear(h.view(-1, channels), transformer.proj_in)
        for block in transformer.transformer_blocks:
            y = kernels.layer_norm(s, *self._norm(block.norm1))
            y = self._attention(y, None, block.attn1, n)
            s, y = kernels.add_layer_norm(y, s, self._end(block.attn1.to_out[0]), *self._norm(block.norm2))
            y = self._attention(y, c, block.attn2, n)
            s, y = kernels.add_layer_norm(y, s, self._end(block.attn2.to_out[0]), *self._norm(block.norm3))
            y = self._linear(kernels.geglu(self._linear(y, block.ff.net[0].proj)), block.ff.net[2], bias=False)
            s, _ = kernels.residual(y.view(n, places, -1), s.view(n, places, -1), self._end(block.ff.net[2]))
            s = s.view(n * places, -1)
        y = self._linear(s, transformer.proj_out, bias=False)
        return kernels.residual(y.view(n, places, -1), x, self.value(transformer.proj_out.bias))

    def _attention(self, y: Tensor, c: Tensor | None, attention: Any, n: int) -> Tensor:
        """The output projection of attention over rows [n · P, C], without its bias; over themselves, or over c."""
        if c is None:
            q, k, v = self._together(y, attention.to_q, attention.to_k, attention.to_v)
        else:
            (q,) = self._together(y, attention.to_q)
            k, v = self._together(c.reshape(-1, c.shape[-1]), attention.to_k, attention.to_v)
        q, k, v = (part.view(n, -1, part.shape[-1]) for part in (q, k, v))
        if c is not None and isinstance(attention.processor, Watched):
            more = [self.added.get(f"{attention.processor.name}.{kind}.weight") for kind in ("to_k", "to_v")]
            k, v = (part if one is None else part + one.to(self.dtype) for part, one in zip((k, v), more, strict=True))
        q, k, v = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if c is not None and isinstance(attention.processor, Watched):
            maps = ((attention.scale * q) @ k.mT).float().softmax(dim=-1)
            self.maps.append(maps)
            read = maps.to(self.dtype) @ v
        else:  # scores and softmax are float32 in every kernel behind it, as `upcast_attention` demands
            read = functional.scaled_dot_product_attention(q, k, v)
        return self._linear(read.transpose(1, 2).reshape(len(y), -1), attention.to_out[0], bias=False)

    def _together(self, x: Tensor, *layers: Any) -> tuple[Tensor, ...]:
        """Several linear layers without biases of the same rows as one product."""
        if any(hasattr(layer, "lora_magnitude_vector") and layer.lora_magnitude_vector for layer in layers):
            return tuple(self._linear(x, layer) for layer in layers)
        bases = [_base(layer) for layer in layers]
        weights = [self.value(base.weight) for base in bases]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        if hasattr(layers[0], "lora_A"):
            y: Tensor = _Adapted.apply(x, weight, *self._adapters(layers))
        else:
            y = functional.linear(x, weight)
        parts: tuple[Tensor, ...] = y.split([len(one) for one in weights], 1)
        return parts

    def _linear(self, x: Tensor, layer: Any, *, bias: bool = True) -> Tensor:
        """A linear layer or a convolution of 1 × 1 of rows [M, in], with its adapter if it has one."""
        base = _base(layer)
        weight = self.value(base.weight)
        weight = weight.flatten(1) if weight.ndim == 4 else weight
        if not hasattr(layer, "lora_A"):
            return functional.linear(x, weight, self.value(base.bias) if bias and base.bias is not None else None)
        y: Tensor = _Adapted.apply(x, weight, *self._adapters([layer]))
        (name,) = layer.lora_A
        if name in layer.lora_magnitude_vector:  # DoRA: the norm is a constant in the backward pass
            with torch.no_grad():
                norm = torch.linalg.norm(base.weight + layer.get_delta_weight(name), dim=1)
            y = y * (self.value(layer.lora_magnitude_vector[name].weight) / norm).to(self.dtype)
        return y + self.value(base.bias).to(self.dtype) if bias and base.bias is not None else y

    def _adapters(self, layers: Any) -> Iterator[Tensor]:
        """A of each layer, then (α / r) B of each."""
        for layer in layers:
            (name,) = layer.lora_A
            yield self.value(layer.lora_A[name].weight)
        for layer in layers:
            (name,) = layer.lora_A
            up, scaling = self.value(layer.lora_B[name].weight), layer.scaling[name]
            yield up if scaling == 1 else up * scaling

    def _conv(self, x: Tensor, at: tuple[int, int], conv: Any, *, bias: bool = True) -> tuple[Tensor, tuple[int, int]]:
        """A convolution of [n, P, C], and the height and width after it."""
        y = functional.conv2d(
            _image(x, at),
            self.value(conv.weight),
            self.value(conv.bias) if bias else None,
            stride=conv.stride,
            padding=conv.padding,
        )
        return _rows(y), (y.shape[2], y.shape[3])

    def _group_norm(self, x: Tensor, norm: Any, **how: Any) -> Tensor:
        gamma, beta = self.value(norm.weight), self.value(norm.bias)
        return kernels.group_norm(x, gamma, beta, groups=norm.num_groups, eps=norm.eps, **how)

    def _norm(self, norm: Any) -> tuple[Tensor, Tensor, float]:
        return self.value(norm.weight), self.value(norm.bias), norm.eps

    def _end(self, layer: Any) -> Tensor:
        return self.value(_base(layer).bias)


def _base(layer: Any) -> Any:
    """The layer under an adapter."""
    return layer.base_layer if hasattr(layer, "lora_A") else layer


def _attentions(unet: Any) -> Iterator[Any]:
    return (layer for layer in unet.modules() if type(layer).__name__ == "Attention")


def _plain_adapter(layer: Any) -> bool:
    """A single active adapter of a linear layer, LoRA or DoRA, that drops nothing out and is not merged."""
    if len(layer.lora_A) != 1 or layer.merged or layer.disable_adapters or type(_base(layer)).__name__ != "Linear":
        return False
    (name,) = layer.lora_A
    known = set(layer.lora_variant) <= set(layer.lora_magnitude_vector)
    return known and name in layer.active_adapters and type(layer.lora_dropout[name]).__name__ == "Identity"


def _image(x: Tensor, at: tuple[int, int]) -> Tensor:
    """[n, P, C] as [n, C, h, w], channels last, without a copy."""
    return x.view(len(x), *at, -1).permute(0, 3, 1, 2)


def _rows(image: Tensor) -> Tensor:
    """The inverse; a copy unless it is channels last."""
    return image.permute(0, 2, 3, 1).reshape(len(image), -1, image.shape[1])
