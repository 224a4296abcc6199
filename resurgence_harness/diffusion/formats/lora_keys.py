"""Names of a LoRA's tensors: the layer of the base that each belongs to, and its role there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

ROLE = re.compile(
    r"(?P<layer>.+?)(?P<old>_lora)?\."
    r"(?:(?:lora|lora_linear_layer)\.)?"
    r"(?P<role>down|up|lora_down|lora_up|lora_A|lora_B|alpha|lora_magnitude_vector|dora_scale)"
    r"(?:\.(?!(?:weight|bias)$)(?P<adapter>\w+))?(?:\.weight)?"
)
"""A key: the layer, the role of the tensor, and the adapter's name, which peft's internal names contain."""
DOWN, UP, ALPHA, MAGNITUDE = "down", "up", "alpha", "magnitude"
_ROLES = {
    **dict.fromkeys(("down", "lora_down", "lora_A"), DOWN),
    **dict.fromkeys(("up", "lora_up", "lora_B"), UP),
    **dict.fromkeys(("lora_magnitude_vector", "dora_scale"), MAGNITUDE),
    "alpha": ALPHA,
}
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_PEFT = "base_model.model."


@final
@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the base as a LoRA names it."""

    keys: Mapping[str, str]
    """Role (down, up, alpha, magnitude) → the tensor's name."""
    wrapped: bool
    """Whether "text_model." stands in front, as in releases of transformers before 5."""
    peft: bool
    """Whether the names are peft's internal ones, which always come with settings."""
    bare: bool
    """Whether the names have no prefix for the U-Net or the text encoder."""


def layers_of(file: TensorFile, parent: ModelFiles) -> dict[str, Layer]:
    """Name of a weight of the parent → the tensors that change it; UserError if a key matches no layer."""
    spelled: dict[str, str] = {}
    depth = int(parent.description.config("unet").get("layers_per_block", 2))
    for name in parent:
        part, _, rest = name.partition(".")
        if part != "vae" and rest.endswith(".weight") and len(parent[name].entry.shape) >= 2:
            spelled |= dict.fromkeys(_spellings(part, rest.removesuffix(".weight"), depth), name)
    layers: dict[str, dict[str, str]] = {}
    unknown, adapters = [], set()
    for key in file.entries:
        match = ROLE.fullmatch(key)
        meant = spelled.get(_layer(match)) if match else None
        if match is None or meant is None:
            unknown.append(key)
            continue
        adapters.add(match["adapter"] or "")
        role = _ROLES[match["role"]]
        if role in layers.setdefault(meant, {}):
            raise UserError(
                sentence(
                    f"The LoRA {file.path} changes a layer twice.",
                    layer=meant,
                    keys=f"{shown(layers[meant][role])} and {shown(key)}",
                    do="Give a file with one pair of matrices per layer.",
                )
            )
        layers[meant][role] = key
    _check_known(file, unknown)
    if len(adapters) > 1:
        raise UserError(
            sentence(
                f"The LoRA {file.path} holds several adapters.",
                names=shown(", ".join(name or "one without a name" for name in sorted(adapters))),
                do="Save each with save_pretrained(), and give the one that is to be judged.",
            )
        )
    for name, keys in layers.items():
        if not keys.keys() >= {DOWN, UP}:
            raise UserError(
                sentence(
                    f"The LoRA {file.path} lacks one of a layer's two matrices.",
                    layer=name,
                    found=", ".join(sorted(keys)),
                    do="Copy or download the file again.",
                )
            )
    named = bool(adapters - {""})
    return {name: _described(keys, named=named) for name, keys in layers.items()}


def _described(keys: Mapping[str, str], *, named: bool) -> Layer:
    key = keys[DOWN]
    plain = key.removeprefix(_PEFT)
    within = plain.removeprefix("text_encoder.").removeprefix("text_encoder_2.")
    wrapped = within.startswith(("text_model.", "lora_te_text_model_", "lora_te1_", "lora_te2_"))
    bare = not plain.startswith(("unet.", "text_encoder.", "text_encoder_2.", "lora_unet_", "lora_te"))
    return Layer(keys=keys, wrapped=wrapped, peft=named or key.startswith(_PEFT), bare=bare)


def _check_known(file: TensorFile, unknown: list[str]) -> None:
    if not unknown:
        return
    bias = next((key for key in unknown if key.endswith(".bias") and "lora_" in key), None)
    if bias is not None:
        raise UserError(
            sentence(
                f"The LoRA {file.path} has a setting that is not supported.",
                setting=f"lora_bias, by {shown(bias)}",
                do="Fuse it into the model where it was trained, and give the fused model.",
            )
        )
    raise UserError(
        sentence(
            f"The LoRA {file.path} has keys that match no layer of the base.",
            unmatched=f"{len(unknown)} of {len(file.entries)}, first {shown(unknown[0])}",
            do="Give a LoRA for Stable Diffusion in the layout of diffusers, peft or kohya, "
            "and the base of its version.",
        )
    )


def _spellings(part: str, layer: str, depth: int) -> list[str]:
    """Every spelling of a layer's name; `_layer` converts a key to one of them. `depth`: layers of a block.

    kohya's trainers name a U-Net's layers as diffusers does or, for XL, as the original layout does.
    """
    flat = layer.replace(".", "_")
    if part == "unet":
        original = original_name(layer, depth)
        return [
            f"unet.{layer}",
            f"lora_unet_{flat}",
            *([f"lora_unet_{original.replace('.', '_')}"] if original else []),
        ]
    prefix = {"text_encoder": "lora_te_text_model_", "text_encoder_2": "lora_te2_"}[part]
    return [f"{part}.{layer.removeprefix('text_model.')}", prefix + flat]


_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def original_name(layer: str, depth: int) -> str:
    """A layer of the U-Net as the original layout names it; "" for upsampling layers, which no trainer adapts so."""
    if layer in _ENDS:
        return _ENDS[layer]
    if match := _MIDDLE.fullmatch(layer):
        kind, number, rest = match[1], int(match[2]), match[3]
        return f"middle_block.{2 * number if kind == 'resnets' else 1}.{_RESNET.get(rest, rest)}"
    if (match := _BLOCK.fullmatch(layer)) is None:
        return ""
    way, block, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{(depth + 1) * (block + 1)}.0.op"
    place = (
        f"input_blocks.{(depth + 1) * block + 1 + number}"
        if way == "down"
        else f"output_blocks.{(depth + 1) * block + number}"
    )
    return f"{place}.{int(kind == 'attentions')}.{_RESNET.get(rest, rest) if kind == 'resnets' else rest}"


def _layer(match: re.Match[str]) -> str:
    """The layer that a key belongs to, in one of the spellings of `_spellings`."""
    layer = match["layer"].removeprefix(_PEFT)
    if layer.startswith("lora_"):
        return layer.replace("lora_te1_", "lora_te_", 1) if layer.startswith("lora_te1_") else layer
    for part in ("unet", "text_encoder", "text_encoder_2"):
        if layer.startswith(f"{part}."):
            rest = layer.removeprefix(f"{part}.")
            break
    else:
        part, rest = ("text_encoder" if layer.startswith(("text_model.", "encoder.layers.")) else "unet"), layer
    rest = rest.removeprefix("text_model.")
    if match["old"]:  # attention processors of diffusers before peft: attn1.processor.to_q_lora, self_attn.to_q_lora
        before, _, last = rest.replace(".processor.", ".").rpartition(".")
        last = _OLD_TEXT.get(last, last) if part != "unet" else last
        rest = f"{before}.{last}"
    return f"{part}.{rest}.0" if part == "unet" and rest.endswith(".to_out") else f"{part}.{rest}"
