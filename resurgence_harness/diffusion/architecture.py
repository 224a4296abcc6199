"""Names and shapes of a Stable Diffusion component's tensors, computed from its config. Needs no torch.

    expected("unet", settings)["conv_in.weight"] == (320, 4, 3, 3)

A config that disagrees with the weights is rejected before a module is built, so no module is larger than the weight
files. Names are those of current releases, as `model_files.canonical` returns them; the tests compare every name and
shape with the modules that diffusers and transformers build from the same config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def expected(part: str, settings: Mapping[str, Any]) -> Shapes:
    """Name → shape of the tensors of "unet", "vae" or a text encoder with these resolved settings."""
    return dict(_PARTS[part](settings))


Named = Iterator[tuple[str, tuple[int, ...]]]


def _layer(name: str, *weight: int, bias: bool = True) -> Named:
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", weight[:1]


def _resnet(name: str, before: int, after: int, time: int = 0) -> Named:
    yield from _layer(f"{name}.norm1", before)
    yield from _layer(f"{name}.conv1", after, before, 3, 3)
    if time:
        yield from _layer(f"{name}.time_emb_proj", after, time)
    yield from _layer(f"{name}.norm2", after)
    yield from _layer(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from _layer(f"{name}.conv_shortcut", after, before, 1, 1)


def _transformer(name: str, width: int, settings: Mapping[str, Any], layers: int) -> Named:
    text = settings["cross_attention_dim"]
    ones = () if settings["use_linear_projection"] else (1, 1)
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, *ones)
    for number in range(layers):
        block = f"{name}.transformer_blocks.{number}"
        for attention, source in (("attn1", width), ("attn2", text)):
            yield from _layer(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _layer(f"{block}.{attention}.to_k", width, source, bias=False)
            yield from _layer(f"{block}.{attention}.to_v", width, source, bias=False)
            yield from _layer(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{block}.{norm}", width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    yield from _layer(f"{name}.proj_out", width, width, *ones)


def _unet(settings: Mapping[str, Any]) -> Named:
    widths, layers = settings["block_out_channels"], settings["layers_per_block"]
    time, last = 4 * widths[0], len(widths) - 1
    kernel, end = settings["conv_in_kernel"], settings["conv_out_kernel"]
    yield from _layer("conv_in", widths[0], settings["in_channels"], kernel, kernel)
    yield from _layer("time_embedding.linear_1", time, widths[0])
    yield from _layer("time_embedding.linear_2", time, time)
    if settings["addition_embed_type"] is not None:
        yield from _layer("add_embedding.linear_1", time, settings["projection_class_embeddings_input_dim"])
        yield from _layer("add_embedding.linear_2", time, time)
    deep = settings["transformer_layers_per_block"]
    deep = deep if isinstance(deep, list) else [deep] * len(widths)
    for level, kind in enumerate(settings["down_block_types"]):
        name, before, width = f"down_blocks.{level}", widths[max(level - 1, 0)], widths[level]
        for number in range(layers):
            yield from _resnet(f"{name}.resnets.{number}", width if number else before, width, time)
            if kind.startswith("CrossAttn"):
                yield from _transformer(f"{name}.attentions.{number}", width, settings, deep[level])
        if level != last:
            yield from _layer(f"{name}.downsamplers.0.conv", width, width, 3, 3)
    for number in range(2):
        yield from _resnet(f"mid_block.resnets.{number}", widths[-1], widths[-1], time)
    yield from _transformer("mid_block.attentions.0", widths[-1], settings, deep[-1])
    rising = widths[::-1]
    for level, kind in enumerate(settings["up_block_types"]):
        name, width, below = f"up_blocks.{level}", rising[level], rising[max(level - 1, 0)]
        for number in range(layers + 1):
            skipped = width if number < layers else rising[min(level + 1, last)]
            yield from _resnet(f"{name}.resnets.{number}", (width if number else below) + skipped, width, time)
            if kind.startswith("CrossAttn"):
                yield from _transformer(f"{name}.attentions.{number}", width, settings, deep[last - level])
        if level != last:
            yield from _layer(f"{name}.upsamplers.0.conv", width, width, 3, 3)
    yield from _layer("conv_norm_out", widths[0])
    yield from _layer("conv_out", settings["out_channels"], widths[0], end, end)


def _vae(settings: Mapping[str, Any]) -> Named:
    widths, layers, latent = settings["block_out_channels"], settings["layers_per_block"], settings["latent_channels"]
    yield from _layer("encoder.conv_in", widths[0], settings["in_channels"], 3, 3)
    yield from _levels("encoder.down_blocks", widths, layers, "downsamplers")
    yield from _middle("encoder.mid_block", settings)
    yield from _layer("encoder.conv_norm_out", widths[-1])
    yield from _layer("encoder.conv_out", 2 * latent, widths[-1], 3, 3)
    yield from _layer("decoder.conv_in", widths[-1], latent, 3, 3)
    yield from _middle("decoder.mid_block", settings)
    yield from _levels("decoder.up_blocks", widths[::-1], layers + 1, "upsamplers")
    yield from _layer("decoder.conv_norm_out", widths[0])
    yield from _layer("decoder.conv_out", settings["out_channels"], widths[0], 3, 3)
    if settings["use_quant_conv"]:
        yield from _layer("quant_conv", 2 * latent, 2 * latent, 1, 1)
    if settings["use_post_quant_conv"]:
        yield from _layer("post_quant_conv", latent, latent, 1, 1)


def _levels(name: str, widths: list[int], layers: int, resampling: str) -> Named:
    for level, width in enumerate(widths):
        for number in range(layers):
            before = width if number else widths[max(level - 1, 0)]
            yield from _resnet(f"{name}.{level}.resnets.{number}", before, width)
        if level != len(widths) - 1:
            yield from _layer(f"{name}.{level}.{resampling}.0.conv", width, width, 3, 3)


def _middle(name: str, settings: Mapping[str, Any]) -> Named:
    width = settings["block_out_channels"][-1]
    for number in range(2):
        yield from _resnet(f"{name}.resnets.{number}", width, width)
    if settings["mid_block_add_attention"]:
        yield from _layer(f"{name}.attentions.0.group_norm", width)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _layer(f"{name}.attentions.0.{projection}", width, width)


def _text_encoder(settings: Mapping[str, Any]) -> Named:
    width, inner = settings["hidden_size"], settings["intermediate_size"]
    yield "embeddings.token_embedding.weight", (settings["vocab_size"], width)
    yield "embeddings.position_embedding.weight", (settings["max_position_embeddings"], width)
    for number in range(settings["num_hidden_layers"]):
        name = f"encoder.layers.{number}"
        for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _layer(f"{name}.self_attn.{projection}", width, width)
        yield from _layer(f"{name}.layer_norm1", width)
        yield from _layer(f"{name}.mlp.fc1", inner, width)
        yield from _layer(f"{name}.mlp.fc2", width, inner)
        yield from _layer(f"{name}.layer_norm2", width)
    yield from _layer("final_layer_norm", width)


def _text_encoder_2(settings: Mapping[str, Any]) -> Named:
    yield from ((f"text_model.{name}", shape) for name, shape in _text_encoder(settings))
    yield "text_projection.weight", (settings["projection_dim"], settings["hidden_size"])


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], Named]] = {
    "unet": _unet,
    "vae": _vae,
    "text_encoder": _text_encoder,
    "text_encoder_2": _text_encoder_2,
}
