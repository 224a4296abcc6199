"""Reads those of peft's settings of a LoRA that affect the merged weights, by peft's own rules.

    lora_adapter_metadata in the file      "unet.r", "text_encoder.lora_alpha" (a pipeline's), or "r", "lora_alpha"
                                           (one network's, as save_lora_adapter() writes it)
    adapter_config.json                    beside adapter_model.safetensors, for that file only

The scale of a layer is alpha / r, or alpha / √r for rank-stabilised ones. Patterns are regular expressions; the first
that matches the end of a layer's name counts (peft.utils.other.get_pattern_key). A setting that gives other weights
than W + scale · B A is refused by name, and so is an unknown one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

from resurgence_harness.diffusion.tensor_files import TensorFile, check_inside, read_json, shown
from resurgence_harness.errors import UserError, sentence

METADATA = "lora_adapter_metadata"
"""The metadata key under which diffusers stores peft's settings."""
CONFIG, OWN = "adapter_config.json", "adapter_model.safetensors"
"""The file in which peft stores them, and the only weight file that it applies to."""
PARTS = ("unet", "text_encoder", "text_encoder_2")
FUSE = "Fuse it into the model where it was trained, and give the fused model."
UNUSED = frozenset(
    {
        *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("peft_version", "runtime_config", "target_modules", "exclude_modules", "layers_to_transform"),
        *("layers_pattern", "lora_dropout", "megatron_core", "qalora_group_size"),
        *("eva_config", "corda_config", "lora_ga_config", "loftq_config"),  # by init_lora_weights, which is checked
    }
)
"""Settings without effect on the merged weights; the tensors' names show which layers were trained."""
READ = frozenset(
    {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights", "bias"}
)
NEUTRAL = frozenset(
    {
        *("fan_in_fan_out", "modules_to_save", "trainable_token_indices", "lora_bias", "layer_replication"),
        *("use_qalora", "megatron_config", "alora_invocation_tokens", "target_parameters", "use_bdlora"),
        *("arrow_config", "kasa_config", "monteclora_config", "velora_config", "ensure_weight_tying"),
    }
)
"""Settings that give another model from the same matrices; accepted only if they are off."""
FAITHFUL = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base's weights unchanged; the others subtract the initial B A from them."""
PATTERN = re.compile(r"(?:[\w^$|()-]|\\[.\-_dw]|\.|\[[\w-]+\]|(?<![()|^*+?])[*+?]){1,300}")
"""The accepted regular expressions: no repetition within another."""
REPEATS, REPEATING = 2, 16
"""Most repetitions in one pattern, and most patterns that have any, so that matching takes milliseconds."""


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine the scale of one part's layers."""

    where: str
    """The file they were read from."""
    rank: int = 8
    alpha: float = 8.0
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()
    root: bool = False
    """Rank-stabilised: alpha / √r."""
    dora: bool = False

    def scale(self, name: str, rank: int, *, otherwise: str = "") -> float:
        """The scale of a layer whose matrices have this rank. `otherwise`: its name in another transformers release.

        UserError if the settings have another rank, or give different values for the two names.
        """
        noted = _matching(self.ranks, name, otherwise, self.where)
        noted = self.rank if noted is None else noted
        if noted != rank:
            raise UserError(
                sentence(
                    f"The settings of the LoRA {self.where} do not fit its tensors.",
                    layer=shown(name),
                    rank_in_settings=noted,
                    rank_of_tensors=rank,
                    do="Give the file with the settings that it was saved with; they determine its scale.",
                )
            )
        alpha = _matching(self.alphas, name, otherwise, self.where)
        alpha = self.alpha if alpha is None else alpha
        return float(alpha) / (math.sqrt(rank) if self.root else rank)


def settings_of(file: TensorFile, keys: Sequence[str]) -> dict[str, Settings]:
    """Part → its settings from the file or its adapter_config.json, if any; UserError for unsupported settings.

    `keys`: names of the file's tensors; settings without a part apply only if no tensor's name has one.
    """
    found: dict[str, Settings] = {}
    if METADATA in file.metadata:
        found = _noted(file, keys)
    config = file.path.with_name(CONFIG)
    if file.path.name == OWN and config.is_file():
        check_inside(config, file.path.parent)
        beside = dict.fromkeys(PARTS, _read(read_json(config), str(config)))
        for part, settings in found.items():
            if _without_place(settings) != _without_place(beside[part]):
                raise _refused(str(file.path), f"{METADATA} and {CONFIG}", "different settings for the same layers")
        return beside
    return found


def _noted(file: TensorFile, keys: Sequence[str]) -> dict[str, Settings]:
    """Settings in the file's own metadata."""
    place = str(file.path)
    try:
        noted = json.loads(file.metadata[METADATA])
    except (ValueError, RecursionError):
        raise _refused(place, METADATA, "not a JSON object") from None
    if not isinstance(noted, dict):
        raise _refused(place, METADATA, "not a JSON object")
    if not noted:
        return {}
    if not any("." in name for name in noted):  # one network's: diffusers applies them only to keys without a part
        named = next(
            (key for key in keys if key.startswith(("unet.", "text_encoder.", "text_encoder_2.", "lora_"))), None
        )
        if named is not None:
            raise _refused(place, f"the settings without a part, beside {named}", "no layers of one network")
        return dict.fromkeys(PARTS, _read(noted, place))
    parts: dict[str, dict[str, Any]] = {}
    for name, value in noted.items():
        part, dot, setting = name.partition(".")
        if part not in PARTS or not dot:
            raise _refused(place, name, value)
        parts.setdefault(part, {})[setting] = value
    return {part: _read(values, place) for part, values in parts.items()}


def _read(values: dict[str, Any], where: str) -> Settings:
    for name, value in values.items():
        odd = name not in UNUSED | READ | NEUTRAL and value is not None
        if odd or (name in NEUTRAL and value not in (None, False, [], {}, "")):
            raise _refused(where, name, value)
    if values.get("bias") not in (None, "none") or values.get("peft_type") not in (None, "LORA"):
        name = "bias" if values.get("bias") not in (None, "none") else "peft_type"
        raise _refused(where, name, values[name])
    start = values.get("init_lora_weights", True)
    if not isinstance(start, str | bool | None) or start not in FAITHFUL:
        raise UserError(
            sentence(
                f"The LoRA {where} was trained on a changed base, so on the base itself it is another model.",
                setting=shown(f"init_lora_weights = {start}"),
                do="Save it with path_initial_model_for_weight_conversion, or give the merged model.",
            )
        )
    for name in ("use_rslora", "use_dora"):
        if values.get(name) is not None and not isinstance(values[name], bool):
            raise _refused(where, name, values[name])
    rank, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    ranks, alphas = _patterns(values, "rank_pattern", where), _patterns(values, "alpha_pattern", where)
    for value in (rank, *(value for _, value in ranks)):
        if type(value) is not int or not 0 < value < 1e6:
            raise _refused(where, "r", value)
    for value in (alpha, *(value for _, value in alphas)):
        if type(value) not in (int, float) or not 0 < abs(value) < 1e6:  # 0 would leave the base unchanged
            raise _refused(where, "lora_alpha", value)
    return Settings(
        where=where,
        rank=rank,
        alpha=float(alpha),
        ranks=ranks,
        alphas=tuple((pattern, float(value)) for pattern, value in alphas),
        root=bool(values.get("use_rslora")),
        dora=bool(values.get("use_dora")),
    )


def _patterns(values: dict[str, Any], name: str, where: str) -> tuple[tuple[str, Any], ...]:
    """(pattern, value) in the file's order, as peft applies them; UserError unless they can be matched quickly."""
    found = values.get(name) or {}
    if not isinstance(found, dict) or not all(PATTERN.fullmatch(pattern) for pattern in found):
        raise _refused(where, name, found)
    repeats = [sum(pattern.count(sign) for sign in "*+?") for pattern in found]
    if max(repeats, default=0) > REPEATS or sum(map(bool, repeats)) > REPEATING or len(found) > 2000:
        raise _refused(where, name, found)
    for pattern in found:
        try:
            _expression(pattern)
        except re.error:
            raise _refused(where, name, pattern) from None
    return tuple(found.items())


@lru_cache(maxsize=8192)
def _expression(pattern: str) -> re.Pattern[str]:
    """The pattern as peft completes it."""
    return re.compile(rf"(.*\.)?({pattern})$")


def _matching(patterns: Sequence[tuple[str, float]], name: str, otherwise: str, where: str) -> float | None:
    """The value of the first pattern that matches, None for none; UserError if it differs between the two names."""
    names = (name, otherwise or name)
    first = next((value for pattern, value in patterns if _expression(pattern).match(name)), None)
    either = next((v for pattern, v in patterns if any(_expression(pattern).match(one) for one in names)), None)
    if first != either:
        raise UserError(
            sentence(
                f"The settings of the LoRA {where} mean different things in different releases of transformers.",
                layer=f"{shown(name)}, elsewhere {shown(otherwise)}",
                values=f"{'the default' if first is None else first} and {either}",
                do=FUSE,
            )
        )
    return first


def _without_place(settings: Settings) -> tuple[object, ...]:
    return (settings.rank, settings.alpha, settings.ranks, settings.alphas, settings.root, settings.dora)


def _refused(where: str, setting: str, value: object) -> UserError:
    return UserError(
        sentence(
            f"The LoRA {where} has a setting that is not supported.", setting=shown(f"{setting} = {value}"), do=FUSE
        )
    )
