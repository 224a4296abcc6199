"""LoRA: W ← W + weight · scale · B A, with scale = alpha / rank (alpha / √rank for rank-stabilised ones).

    unet.….to_q.lora_A.weight · .lora.down.weight · .processor.to_q_lora.down.weight       diffusers and peft
    lora_unet_…_to_q.lora_down.weight · lora_te_….alpha                                    kohya, web interfaces

Linear layers and convolutions, U-Net and text encoder. Layers are found by the names of the base's own layers, spelled
in each layout's way, so that a key either means one layer or is an error: a file whose keys match nothing would
otherwise be the base again, and look safe. The tests hold this against diffusers' own loading and fusing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from resurgence_harness.diffusion.formats.contract import (
    OTHER_BASE,
    Changes,
    Edit,
    Format,
    without_ones,
)
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, read_json, shown
from resurgence_harness.errors import UserError, sentence

ROLE = re.compile(
    r"(?P<layer>.+?)(?P<old>_lora)?\."
    r"(?:(?:lora|lora_linear_layer)\.)?(?P<role>down|up|lora_down|lora_up|lora_A|lora_B|alpha|lora_A\.default|lora_B\.default)"
    r"(?:\.weight)?"
)
"""How a key ends: the layer, and which of its three tensors this is."""
DOWN, UP, ALPHA = "down", "up", "alpha"
_ROLES = {"down": DOWN, "lora_down": DOWN, "lora_A": DOWN, "up": UP, "lora_up": UP, "lora_B": UP, "alpha": ALPHA}
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
METADATA = "lora_adapter_metadata"
"""Where diffusers notes peft's settings in the file."""
CONFIG = "adapter_config.json"
"""Where peft notes them beside it."""


@final
@dataclass(frozen=True, kw_only=True)
class Lora(Format):
    """Low-rank updates of some layers."""

    words: ClassVar[str] = "a LoRA"
    order: ClassVar[int] = 1

    file: TensorFile

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and peft's settings where they lie beside it."""
        config = self.file.path.with_name(CONFIG)
        return (self.file.path, config) if config.is_file() else (self.file.path,)

    def changes(self, parent: ModelFiles) -> Changes:
        """One change per layer; a UserError where a key means no layer of the base."""
        layers = self._layers(parent)
        settings = self._settings()
        changes: Changes = {}
        for name, keys in layers.items():
            down, up = (self.file.entries[keys[role]].shape for role in (DOWN, UP))
            shape = parent[name].entry.shape
            rank = down[0] if down else 0
            fits = len(up) >= 2 and rank and without_ones(up) == without_ones((shape[0], rank))
            if not fits or without_ones(down[1:]) != without_ones(shape[1:]):
                raise UserError(
                    sentence(
                        f"The LoRA {self.file.path} has a layer of another shape than the base.",
                        layer=name,
                        down_and_up=f"{down} and {up}",
                        base=shape,
                        do=OTHER_BASE,
                    )
                )
            scale = self._scale(name, keys, rank, settings) * self.source.weight
            changes[name] = Edit(apply=self._added(keys, rank, scale))
        return changes

    def _layers(self, parent: ModelFiles) -> dict[str, dict[str, str]]:
        """Name of a weight of the parent → {down, up, alpha: key}."""
        spelled: dict[str, str] = {}
        for name in parent:
            part, _, rest = name.partition(".")
            if part != "vae" and rest.endswith(".weight") and len(parent[name].entry.shape) >= 2:
                spelled |= dict.fromkeys(_spellings(part, rest.removesuffix(".weight")), name)
        layers: dict[str, dict[str, str]] = {}
        unknown = []
        for key in self.file.entries:
            match = ROLE.fullmatch(key)
            meant = spelled.get(_layer(match)) if match else None
            if match is None or meant is None:
                unknown.append(key)
                continue
            name, role = meant, _ROLES[match["role"].removesuffix(".default")]
            if role in layers.setdefault(name, {}):
                raise UserError(
                    sentence(
                        f"The LoRA {self.file.path} changes a layer twice.",
                        layer=name,
                        keys=f"{shown(layers[name][role])} and {shown(key)}",
                        do="Give a file with one pair of matrices per layer.",
                    )
                )
            layers[name][role] = key
        if unknown:
            raise UserError(
                sentence(
                    f"The LoRA {self.file.path} has keys that match no layer of the base.",
                    unmatched=f"{len(unknown)} of {len(self.file.entries)}, first {shown(unknown[0])}",
                    do="Give a LoRA for Stable Diffusion v1 or v2 in the layout of diffusers, peft or kohya, "
                    "and the base of its version.",
                )
            )
        for name, keys in layers.items():
            if not keys.keys() >= {DOWN, UP}:
                raise UserError(
                    sentence(
                        f"The LoRA {self.file.path} has only half of a layer.",
                        layer=name,
                        found=", ".join(sorted(keys)),
                        do="Copy or download the file again.",
                    )
                )
        return layers

    def _settings(self) -> dict[str, dict[str, Any]]:
        """peft's settings by part, where they are noted in the file or beside it."""
        config = self.file.path.with_name(CONFIG)
        if METADATA in self.file.metadata:
            try:
                noted = json.loads(self.file.metadata[METADATA])
                settings = {
                    part: {k.removeprefix(f"{part}."): v for k, v in noted.items() if k.startswith(f"{part}.")}
                    for part in ("unet", "text_encoder")
                }
            except (ValueError, AttributeError, RecursionError):
                raise self._odd(METADATA, "not a JSON object") from None
        elif config.is_file():
            settings = dict.fromkeys(("unet", "text_encoder"), read_json(config))
        else:
            return {}
        for part in settings.values():
            for odd in ("use_dora", "modules_to_save", "lora_bias", "fan_in_fan_out"):
                if part.get(odd):
                    raise self._odd(odd, part[odd])
            patterns = part.get("alpha_pattern") or {}
            if not isinstance(patterns, dict) or not all(re.fullmatch(r"[\w.]+", pattern) for pattern in patterns):
                raise self._odd("alpha_pattern", patterns)
            for value in (part.get("lora_alpha", 1), *patterns.values()):
                if not isinstance(value, int | float) or not abs(value) < 1e6:
                    raise self._odd("lora_alpha", value)
        return settings

    def _scale(self, name: str, keys: Mapping[str, str], rank: int, settings: Mapping[str, Mapping[str, Any]]) -> float:
        """alpha / rank; 1 where no alpha is noted, as diffusers and the web interfaces have it."""
        part, _, layer = name.removesuffix(".weight").partition(".")
        mine = settings.get(part, {})
        alpha = mine.get("lora_alpha")
        for pattern, value in (mine.get("alpha_pattern") or {}).items():
            if f".{layer}".endswith(f".{pattern}"):
                alpha = value
        root = bool(mine.get("use_rslora"))
        if ALPHA in keys:
            values = self.file.values(keys[ALPHA])
            if values.size != 1:
                raise self._odd(keys[ALPHA], f"{values.size} numbers")
            alpha, root = float(values.item()), False
        return 1.0 if alpha is None else float(alpha) / (math.sqrt(rank) if root else rank)

    def _added(self, keys: Mapping[str, str], rank: int, scale: float) -> Any:
        def apply(weight: np.ndarray) -> np.ndarray:
            down, up = (np.asarray(self.file.values(keys[role]), np.float32) for role in (DOWN, UP))
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused when it is written
                product = up.reshape(len(up), rank) @ down.reshape(rank, -1)
                return np.asarray(weight + np.float32(scale) * product.reshape(weight.shape))

        return apply

    def _odd(self, setting: str, value: object) -> UserError:
        return UserError(
            sentence(
                f"The LoRA {self.file.path} has a setting that is not supported.",
                setting=shown(f"{setting} = {value}"),
                do="Fuse it into the model where it was trained, and give the fused model.",
            )
        )


def _spellings(part: str, layer: str) -> list[str]:
    """Every way in which a layer's name is written; `_layer` brings a key to one of them."""
    prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
    return [f"{part}.{layer}", prefix + layer.replace(".", "_")]


def _layer(match: re.Match[str]) -> str:
    """The layer that a key means, as `_spellings` has it."""
    layer = match["layer"].removeprefix("base_model.model.")
    if layer.startswith("lora_"):
        return layer.replace("lora_te1_", "lora_te_", 1) if layer.startswith("lora_te1_") else layer
    for part in ("unet", "text_encoder"):
        if layer.startswith(f"{part}."):
            rest = layer.removeprefix(f"{part}.")
            break
    else:
        part, rest = ("text_encoder" if layer.startswith(("text_model.", "encoder.layers.")) else "unet"), layer
    rest = rest.removeprefix("text_model.")
    if match["old"]:  # attention processors of diffusers before peft: attn1.processor.to_q_lora, self_attn.to_q_lora
        before, _, last = rest.replace(".processor.", ".").rpartition(".")
        last = _OLD_TEXT.get(last, last) if part == "text_encoder" else last
        rest = f"{before}.{last}"
    return f"{part}.{rest}.0" if part == "unet" and rest.endswith(".to_out") else f"{part}.{rest}"
