"""Recognises a candidate's format from its tensors' names and shapes alone; refuses unsupported formats by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from resurgence_harness.diffusion.base_files import STEMS, weights_at
from resurgence_harness.diffusion.description import open_weights
from resurgence_harness.diffusion.families import FAMILIES
from resurgence_harness.diffusion.formats.adapter_settings import CONFIG
from resurgence_harness.diffusion.formats.component import Component
from resurgence_harness.diffusion.formats.contract import Format, Source
from resurgence_harness.diffusion.formats.embedding import Embedding
from resurgence_harness.diffusion.formats.lora import Lora
from resurgence_harness.diffusion.formats.original import EMA, TEXTS, UNET, VAE, Original
from resurgence_harness.diffusion.settings import resolved
from resurgence_harness.diffusion.tensor_files import (
    PICKLES,
    Entry,
    TensorFile,
    check_finite,
    check_inside,
    read_header,
    read_json,
    refuse_pickle,
    shown,
)
from resurgence_harness.errors import UserError, sentence

REFUSED: Mapping[str, tuple[str, ...]] = {
    "a ControlNet": ("control_model.", "controlnet_", "input_hint_block.", "zero_convs."),
    "the refiner of Stable Diffusion XL": ("conditioner.embedders.0.model.",),
    "an embedding for two text encoders": ("clip_g",),
    "of Flux": ("double_blocks.", "single_blocks.", "double_blocks_", "single_transformer_blocks."),
    "of Stable Diffusion 3": ("joint_blocks.", "text_encoders.", "context_embedder."),
    "an IP-Adapter": ("ip_adapter.", "image_proj."),
    "an AnimateDiff motion module": ("motion_modules.",),
    "a LoHa, LoKr, OFT or GLoRA": ("hada_", "lokr_", "oft_", "glora_", ".a1.weight", "boft_"),
    "an update of whole layers by LyCORIS": ("diff_b", "w_norm", "b_norm"),
    "quantised": (
        *("quant_state.", ".absmax", ".quant_map", ".nested_absmax", ".SCB", ".weight_format"),  # bitsandbytes
        *(".qweight", ".qzeros", ".scale_weight", "scaled_fp8", ".weight_scale", "._scale", "._data"),
    ),
    "a Tucker-decomposed LoCon": ("lora_mid.",),
    "a diffusion transformer": ("transformer_blocks.0.", "adaln_single.", "x_embedder.", "patchify_proj."),
    "of Stable Cascade": ("clip_txt_mapper.", "channelwise."),
}
"""Unsupported format → parts of tensor names that identify it; the first match counts."""
SUPPORTED = (
    "Give a Stable Diffusion v1, v2 or XL: a directory in diffusers' layout, a single file in the original layout, "
    "a U-Net, a text encoder, a LoRA or DoRA of diffusers, peft or kohya, or a textual-inversion embedding."
)
_LORA = (
    *(".lora_down.", ".lora_up.", ".lora.down.", ".lora.up.", "_lora.down.", "_lora.up.", ".lora_A.", ".lora_B."),
    *(".dora_scale", ".lora_magnitude_vector"),
)
_LORA_TEXT = "lora_linear_layer."
_UNET = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "conv_out.", "conv_norm_out.", "time_embedding.")
_TEXT = ("encoder.layers.", "embeddings.", "final_layer_norm.")
_PARTS = {"UNet2DConditionModel": "unet"} | {
    reader.kind: reader.encoder for family in FAMILIES for reader in family.readers
}
"""Class in a config.json → the part that it is."""
_PROJECTION = "text_projection.weight"
"""The tensor that only the second text encoder of SDXL has."""
REFINER = 384
"""Channels of the refiner's first level; those of a text-to-image model are 320."""


def recognise(source: Source) -> Format | Path:
    """The candidate's format, its weights checked to be finite; for a whole model's directory, the path itself."""
    path = source.path
    refuse_pickle(path)
    if not path.exists():
        raise UserError(sentence(f"There is no candidate at {path}.", do=SUPPORTED))
    if not path.is_dir():
        return _one_file(path, source)
    if (path / "model_index.json").exists():
        return path
    return _folder(path, source)


def _folder(path: Path, source: Source) -> Format:
    """A directory with one part, one LoRA or one file."""
    if (path / "config.json").exists():
        check_inside(path / "config.json", path)
        settings = read_json(path / "config.json")
        kinds = [settings.get("_class_name"), *(settings.get("architectures") or ["CLIPTextModel"])]
        part = _PARTS.get(str(kinds[0] or kinds[1]))
        if settings.get("quantization_config"):
            raise _refused(path, "quantised", "quantization_config in its config.json")
        if part is None:
            raise _refused(path, f"a {shown(str(kinds[0] or kinds[1]))}", "its config.json")
        known = resolved(part, settings, path / "config.json")
        files = tuple(open_weights(weights_at(path, path, STEMS[part]), path))
        for file in files:
            check_finite(file)
        return Component(source=source, part=part, opened=files, settings=known)
    files_here = sorted(path.glob("*.safetensors"))
    if len(files_here) != 1:
        pickles = sorted(file for file in path.iterdir() if file.suffix.lower() in PICKLES)
        if pickles and not files_here:
            refuse_pickle(pickles[0])
        raise UserError(
            sentence(
                f"The directory {path} is not a candidate.",
                expected=f"model_index.json, config.json, or one safetensors file (a LoRA with {CONFIG})",
                found=shown(", ".join(file.name for file in files_here) or "no safetensors file"),
                do="Give one file by its own path, or a whole model's directory.",
            )
        )
    check_inside(files_here[0], path)
    return _one_file(files_here[0], source)


def _one_file(path: Path, source: Source) -> Format:
    file = read_header(path)
    names = file.entries
    _refuse_known(file)
    found: Format | None = None
    if any(sign in name for name in names for sign in (*_LORA, _LORA_TEXT)):
        found = Lora(source=source, file=file)
    elif any(name.startswith((UNET, VAE, EMA, *TEXTS, "input_blocks.", "output_blocks.")) for name in names):
        found = Original(source=source, file=file)
    elif part := _part(names):
        found = Component(source=source, part=part, opened=(file,))
    elif len(names) == 1 and len(next(iter(names.values())).shape) in (1, 2):
        found = Embedding(source=source, file=file)
    if found is None:
        raise UserError(
            sentence(
                f"{path} is of no known format.",
                tensors=f"{len(names)}, first {shown(min(names))}",
                do=SUPPORTED,
            )
        )
    check_finite(file)
    return found


def _part(names: Mapping[str, Entry]) -> str | None:
    """The part that most of these tensors belong to; None for neither."""
    for part, signs in (("unet", _UNET), ("text_encoder", _TEXT)):
        second = part == "text_encoder" and any(name.endswith(_PROJECTION) for name in names)
        part = "text_encoder_2" if second else part
        bare = [name.removeprefix(f"{part}.").removeprefix("text_model.") for name in names]
        if sum(name.startswith(signs) for name in bare) > len(bare) / 2 and any(
            name.startswith(signs[:3] if part == "unet" else signs[:1]) for name in bare
        ):
            return part
    return None


def _refuse_known(file: TensorFile) -> None:
    """UserError if the tensors are those of a known but unsupported format."""
    for kind, signs in REFUSED.items():
        for sign in signs:
            found = next((name for name in file.entries if _matches(name, sign)), None)
            if found is not None:
                raise _refused(file.path, kind, f"the tensor {shown(found)}")
    for name in ("conv_in.weight", "unet.conv_in.weight", f"{UNET}input_blocks.0.0.weight", "input_blocks.0.0.weight"):
        entry = file.entries.get(name)
        if (
            entry is not None
            and len(entry.shape) == 4
            and entry.shape[1] != 4
            and _part(file.entries) in (None, "unet")
        ):
            raise _refused(file.path, "for inpainting, upscaling, depth or editing", f"{entry.shape[1]} input channels")
        if entry is not None and len(entry.shape) == 4 and entry.shape[0] == REFINER:
            raise _refused(file.path, "the refiner of Stable Diffusion XL", f"{REFINER} channels of its first layer")
    first = min(file.entries)
    if any(name.startswith(("decoder.", "encoder.conv_in")) for name in file.entries):
        raise _refused(file.path, "a VAE alone, which draws no images by itself", f"the tensor {shown(first)}")


def _matches(name: str, sign: str) -> bool:
    """Whether a name holds a sign at its beginning or after a dot or an underscore."""
    if sign == "transformer_blocks.0.":
        return name.startswith(sign) or name.startswith(f"transformer.{sign}")
    place = name.find(sign)
    return place == 0 or (place > 0 and (sign[0] == "." or name[place - 1] in "._"))


def _refused(path: Path, kind: str, by: str) -> UserError:
    return UserError(sentence(f"{path} is {kind}, which cannot be judged here.", recognised_by=by, do=SUPPORTED))
