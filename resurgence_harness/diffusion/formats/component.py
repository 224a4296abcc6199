"""A U-Net or a text encoder alone, in diffusers' or transformers' layout: one file, or a directory with its config.

down_blocks.0.… · mid_block.… · conv_in.weight        a U-Net, with or without "unet." in front
text_model.encoder.layers.0.… · embeddings.…          a text encoder, with or without "text_model."
… · text_projection.weight                            the second text encoder of SDXL
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from resurgence_harness.diffusion.formats.contract import Changes, Format, covered, pieces_of, replaced
from resurgence_harness.diffusion.formats.kinship import check_family
from resurgence_harness.diffusion.formats.predicting import check_prediction
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.settings import differing, resolved
from resurgence_harness.diffusion.tensor_files import TensorFile
from resurgence_harness.errors import UserError, sentence, shown


@final
@dataclass(frozen=True, kw_only=True)
class Component(Format):
    """Weights of one part, in place of the base's."""

    label: ClassVar[str] = "weights of one part, diffusers' layout"
    order: ClassVar[int] = 0

    part: str
    """ "unet" or a text encoder's."""
    opened: tuple[TensorFile, ...]
    """One file, or the shards."""
    settings: Mapping[str, Any] | None = None
    """Its resolved config; None for a file without one."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files."""
        return tuple(file.path for file in self.opened)

    def changes(self, parent: ModelFiles) -> Changes:
        """Every weight is replaced; UserError if its config differs from the parent's, which would be used with it."""
        for file in self.opened:
            check_family(file, parent)
        self._check_settings(parent)
        for file in self.opened:
            check_prediction(file, parent)
        return replaced(self.part, pieces_of(self.part, self.opened), parent, self.source)

    def remarks(self, parent: ModelFiles) -> tuple[str, ...]:
        """A remark on tensors that are taken from the parent."""
        return covered(self.part, pieces_of(self.part, self.opened), parent, self.source)

    def _check_settings(self, parent: ModelFiles) -> None:
        if self.settings is None or self.part not in parent.description.family.weights:
            return  # a part that the base lacks is refused by its tensors
        theirs = resolved(self.part, parent.description.config(self.part), parent.directory / self.part / "config.json")
        for name in differing(self.part, self.settings, theirs):
            raise UserError(
                sentence(
                    f"The {self.part} at {self.source.path} has a setting that differs from the base's.",
                    setting=name,
                    candidate=shown(str(self.settings[name])),
                    base=shown(str(theirs[name])),
                    do="Give the whole model's directory, whose configs count, or the base that it was made from.",
                )
            )
