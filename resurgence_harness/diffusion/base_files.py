"""Checks a base model's files (`check_base`) and computes their digest (`digest_of`). Needs no torch.

`description.describe` lists the files. `check_base` checks that settings, tokenizer and weights fit together, so that
building the model from them later cannot fail, and that every number is finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.architecture import expected
from resurgence_harness.diffusion.description import (
    DOWNLOAD,
    SETTINGS,
    WEIGHTS,
    ModelDescription,
    describe,
    weights_at,
)
from resurgence_harness.diffusion.families import FAMILIES
from resurgence_harness.diffusion.schedules import check_schedule
from resurgence_harness.diffusion.settings import check_together, resolved
from resurgence_harness.diffusion.tensor_files import INDEX, TensorFile, check_finite, is_index, shown
from resurgence_harness.diffusion.tokenizing import check_tokenizer
from resurgence_harness.errors import UserError, sentence

STEMS = {part: stem for family in FAMILIES for part, stem in family.weights.items()}
"""Component of any family → stem of its weight files."""
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

Settings = Mapping[str, Mapping[str, Any]]


def canonical(part: str, raw: str) -> str:
    """The name that current releases give to a component's tensor, from its name in the file."""
    if part == "text_encoder":
        return raw.removeprefix("text_model.")  # text_encoder_2 has it in every release
    if part == "vae" and ".attentions." in raw:
        *before, module, kind = raw.split(".")
        return ".".join([*before, _OLD_ATTENTION.get(module, module), kind])
    return raw


def weight_files(directory: str | Path, component: str) -> list[Path]:
    """The safetensors files of one component, shards in the order of their names."""
    return weights_at(Path(directory) / component, Path(directory), STEMS[component]).files


def digest_of(directory: str | Path) -> str:
    """The base's digest: sha256 over the sorted list of (file, sha256) of its weights and their settings."""
    return describe(directory).digest


def check_base(directory: str | Path) -> ModelDescription:
    """Describe the directory; UserError unless it is a complete Stable Diffusion whose weights are all finite."""
    description = describe(directory)
    settings = check_settings(description)
    for part in description.family.weights:
        files = description.open_part(part)
        for file in files:
            whole = [name for name, entry in file.entries.items() if not entry.floating and not is_index(name)]
            if whole:
                raise UserError(
                    sentence(
                        f"The weights {file.path} are integers.",
                        first_tensor=f"{shown(whole[0])}, {file.entries[whole[0]].dtype}",
                        do="Give weights in float32, float16 or bfloat16; quantised ones cannot be judged here.",
                    )
                )
        check_tensors(part, files, settings[part], description.directory)
        for file in files:
            check_finite(file)
    return description


def check_settings(description: ModelDescription) -> Settings:
    """The resolved settings of every component; UserError if one is out of range or they do not fit together."""
    directory, family = description.directory, description.family
    check_schedule(description.config("scheduler"), directory / "scheduler" / SETTINGS["scheduler"][0])
    settings = {
        part: resolved(part, description.config(part), directory / part / names[0])
        for part, names in family.settings.items()
        if part not in family.tokenizers
    }
    check_together(settings, directory, family)
    for reader in family.readers:
        place = directory / reader.tokenizer
        check_tokenizer(description.data(reader.tokenizer), place, settings[reader.encoder]["vocab_size"])
    return settings


def check_tensors(part: str, files: list[TensorFile], settings: Mapping[str, Any], directory: Path) -> None:
    """UserError unless the weights are exactly the tensors that the config defines, with the same shapes."""
    wanted, found = expected(part, settings), {}
    for file in files:
        for raw, entry in file.entries.items():
            if is_index(raw):
                continue
            if (name := canonical(part, raw)) in found:
                raise UserError(
                    sentence(
                        f"The base at {directory} has a tensor of its {part} twice, under an old name and a new one.",
                        tensor=shown(name),
                        do=DOWNLOAD,
                    )
                )
            found[name] = entry.shape
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise UserError(
            sentence(
                f"The base at {directory} lacks weights of its {part}.",
                missing=f"{len(missing)} tensors, first {missing[0]}",
                do="Copy or download the base again, with the config.json of these weights.",
            )
        )
    if unknown:
        raise UserError(
            sentence(
                f"The base at {directory} holds tensors that its {part} does not have.",
                extra=f"{len(unknown)} tensors, first {shown(unknown[0])}",
                do="Give the model in diffusers' layout that save_pretrained() wrote, with its own config.json.",
            )
        )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(
                sentence(
                    f"The base at {directory} has weights of its {part} whose shapes differ from its config.",
                    tensor=name,
                    weights=found[name],
                    config=shape,
                    do="Give the config.json that save_pretrained() wrote for these weights.",
                )
            )


__all__ = [
    "INDEX",
    "SETTINGS",
    "STEMS",
    "WEIGHTS",
    "canonical",
    "check_base",
    "check_settings",
    "check_tensors",
    "describe",
    "digest_of",
    "weight_files",
    "weights_at",
]
