"""A model's weights as they lie in its files, under one name each: for looking at them without building the model.

    files = ModelFiles("sd14")
    files["unet.conv_in.weight"].values()      a numpy array, read when it is asked for

Names are those of today's modules, whatever release of diffusers or transformers wrote the files: the text encoder's
have no "text_model." in front, the VAE's attention is to_q, to_k, to_v, to_out.0. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resurgence_harness.diffusion.base_files import WEIGHTS, tensor_files
from resurgence_harness.diffusion.tensor_files import Entry, TensorFile, is_index

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One tensor of a model: its file, and its name there."""

    file: TensorFile
    raw: str

    @property
    def entry(self) -> Entry:
        """Type, shape and place."""
        return self.file.entries[self.raw]

    def values(self) -> np.ndarray:
        """The numbers, float32 or float64."""
        return self.file.values(self.raw)


class ModelFiles(Mapping[str, Weight]):
    """Every weight of a directory in diffusers' layout, "unet.…", "vae.…", "text_encoder.…"; indices are left out."""

    def __init__(self, directory: str | Path) -> None:
        """Read the headers; `base_files.check_base` is for the rest."""
        self.directory = Path(directory)
        self.parts = {part: tensor_files(directory, part) for part in WEIGHTS}
        self._weights = {
            f"{part}.{canonical(part, raw)}": Weight(file=file, raw=raw)
            for part, files in self.parts.items()
            for file in files
            for raw, entry in file.entries.items()
            if entry.floating and not is_index(raw)
        }

    def __getitem__(self, name: str) -> Weight:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def canonical(part: str, raw: str) -> str:
    """Today's name of a tensor of a part."""
    if part == "text_encoder":
        return raw.removeprefix("text_model.")
    if part == "vae" and ".attentions." in raw:
        *before, module, kind = raw.split(".")
        return ".".join([*before, _OLD_ATTENTION.get(module, module), kind])
    return raw


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name without "weight" or "bias"."""
    return name.rpartition(".")[0]
