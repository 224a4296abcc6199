"""A model's weights in its files, by current names, for reading them without building the model.

    files = ModelFiles("sd14")
    files["unet.conv_in.weight"].values()      a numpy array, read on each call

Names are those of current releases, whichever release of diffusers or transformers wrote the files: the text encoder's
have no "text_model." prefix, the VAE's attention is to_q, to_k, to_v, to_out.0. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resurgence_harness.diffusion.base_files import canonical
from resurgence_harness.diffusion.description import ModelDescription, describe
from resurgence_harness.diffusion.tensor_files import Entry, TensorFile, is_index


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One tensor of a model: its file, and its name there."""

    file: TensorFile
    raw: str

    @property
    def entry(self) -> Entry:
        """Type, shape and position in the file."""
        return self.file.entries[self.raw]

    def values(self) -> np.ndarray:
        """The values, float32 or float64."""
        return self.file.values(self.raw)


class ModelFiles(Mapping[str, Weight]):
    """Every weight of a directory in diffusers' layout, "unet.…", "vae.…", "text_encoder.…"; no indices."""

    def __init__(self, model: str | Path | ModelDescription) -> None:
        """Read the headers of the described files; `base_files.check_base` checks everything else."""
        self.description = model if isinstance(model, ModelDescription) else describe(model)
        self.directory = self.description.directory
        self.parts = {part: self.description.open_part(part) for part in self.description.family.weights}
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


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name without "weight" or "bias"."""
    return name.rpartition(".")[0]


__all__ = ["ModelFiles", "Weight", "canonical", "layer_of"]
