"""The way back: a diffusers model as the tensors of a single file in the original layout, for tests of the way in.

Written from the layout itself, not from diffusers' converter: 12 input blocks, a middle block and 12 output blocks in
the U-Net; down, mid and up in the VAE; CLIP by its own names in v1, OpenCLIP's with joined projections in v2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def original_layout(model: StableDiffusion, *, openclip: bool = False) -> dict[str, Tensor]:
    """Every tensor of U-Net, VAE and text encoder under its original name."""
    text = openclip_names(model) if openclip else clip_names(model)
    return {**unet_names(model), **vae_names(model), **text}


def original_layout_xl(model: StableDiffusion) -> dict[str, Tensor]:
    """The same of a Stable Diffusion XL: CLIP's names for its first text encoder, OpenCLIP's for its second."""
    first = {
        name.replace("cond_stage_model.", "conditioner.embedders.0.", 1): value
        for name, value in clip_names(model).items()
    }
    found = _openclip(model.text_encoder_2, further=0)
    found["text_projection"] = model.text_encoder_2.text_projection.weight.detach().T.contiguous()
    second = {f"conditioner.embedders.1.model.{name}": value for name, value in found.items()}
    return {**unet_names(model), **vae_names(model), **first, **second}


def unet_names(model: StableDiffusion) -> dict[str, Tensor]:
    """model.diffusion_model.…"""
    plain = {place for place, kind in enumerate(model.unet.config.up_block_types) if kind == "UpBlock2D"}
    return {f"model.diffusion_model.{_unet(name, plain)}": value for name, value in model.unet.state_dict().items()}


def vae_names(model: StableDiffusion) -> dict[str, Tensor]:
    """first_stage_model.…, its attention as 1 × 1 convolutions."""
    levels = len(model.vae.config.block_out_channels)
    found = {}
    for name, value in model.vae.state_dict().items():
        place = _vae(name, levels)
        if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", place):
            value = value[:, :, None, None]
        found[f"first_stage_model.{place}"] = value
    return found


def clip_names(model: StableDiffusion) -> dict[str, Tensor]:
    """cond_stage_model.transformer.text_model.…"""
    return {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": value
        for name, value in model.text_encoder.state_dict().items()
    }


def openclip_names(model: StableDiffusion) -> dict[str, Tensor]:
    """cond_stage_model.model.…, with the last block and the projection that Stable Diffusion does not use."""
    return {f"cond_stage_model.model.{name}": value for name, value in _openclip(model.text_encoder).items()}


def _openclip(encoder: Any, *, further: int = 1) -> dict[str, Tensor]:
    """OpenCLIP's names; `further` copies of the last block follow it."""
    import torch

    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    layers, width = encoder.config.num_hidden_layers, encoder.config.hidden_size
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.eye(width),
        "logit_scale": torch.tensor(4.6),
    }
    for place in range(layers + further):
        source, target = f"encoder.layers.{min(place, layers - 1)}", f"transformer.resblocks.{place}"
        for kind in ("weight", "bias"):
            projections = [state[f"{source}.self_attn.{one}_proj.{kind}"] for one in "qkv"]
            found[f"{target}.attn.in_proj_{kind}"] = torch.cat(projections)
            found[f"{target}.attn.out_proj.{kind}"] = state[f"{source}.self_attn.out_proj.{kind}"]
            for ours, theirs in BLOCK.items():
                found[f"{target}.{theirs}.{kind}"] = state[f"{source}.{ours}.{kind}"]
    return found


def _unet(name: str, plain: set[int]) -> str:
    """The original name; `plain`: upsampling blocks without attention."""
    for ours, theirs in ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, number, rest = match.groups()
        return f"middle_block.{2 * int(number) if kind == 'resnets' else 1}.{_within(kind, rest)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)", name)
    assert match, name
    way, block, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.{rest.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{1 if block in plain else 2}.{rest}"
    place = f"input_blocks.{3 * block + 1 + number}" if way == "down" else f"output_blocks.{3 * block + number}"
    return f"{place}.{int(kind == 'attentions')}.{_within(kind, rest)}"


def _within(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    module, _, last = rest.partition(".")
    return f"{RESNET[module]}.{last}"


def _vae(name: str, levels: int) -> str:
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)", name):
        return f"{match[1]}.mid.attn_1.{VAE_ATTENTION[match[2]]}.{match[3]}"
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
