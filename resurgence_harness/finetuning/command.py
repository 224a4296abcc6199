"""A fine-tuning by the user's own trainer, a command that the settings file declares (docs/trainers.md).

Besides {model} and {out} the command is given {data}: the training images as this package's own fine-tunings see them,
PNGs at the model's size with their captions in metadata.jsonl, held-out images left out. Its steps, learning rate and
randomness are its own: the key holds the command, its declared files, the images and the seed.
"""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.commands import DATA, MOVES, Command, declared
from resurgence_harness.diffusion.parameters import Parameters
from resurgence_harness.finetuning.benign import check_tokens
from resurgence_harness.finetuning.contract import FineTuning, TrainingData
from resurgence_harness.finetuning.given import GivenSet
from resurgence_harness.specs import Arithmetic, not_in_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@dataclass(frozen=True, kw_only=True)
class CommandFineTuning(FineTuning, ABC):
    """A fine-tuning by a command; `finetuning_of` makes the class of one."""

    version: ClassVar[int] = 1
    settable: ClassVar[tuple[str, ...]] = ()
    """No field can be set: the command has its own settings."""

    command: Command
    """The declared command."""
    steps: int = not_in_key(1)
    """Not used, nor are the next two: the command's own."""
    learning_rate: float = not_in_key(1.0)
    """Not used."""
    batch: int = not_in_key(1)
    """Not used."""
    arithmetic: Arithmetic = field(default="float32", compare=False, metadata={"key": False})
    """Not used."""

    @property
    def moves(self) -> Parameters:
        """U-Net and text encoder."""
        return MOVES

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model that the command makes; BuildError if it fails."""
        from resurgence_harness.diffusion.trainer import trained

        def prepare(folder: Path) -> Mapping[str, Path]:
            return {DATA: write_data(folder / DATA, self.data, model, run)}

        return trained(self.command, f'fine-tuning "{self.name}"', model, run, seed=self.seed, prepare=prepare)


def finetuning_of(name: str, command: Command) -> type[CommandFineTuning]:
    """The class of a declared fine-tuning, called `name`."""
    return declared(CommandFineTuning, "DeclaredFineTuning", name, command)


def write_data(folder: Path, data: TrainingData, model: StableDiffusion, run: Run) -> Path:
    """Write the training images as an image-folder; SpecError for a caption with an erased name's tokens."""
    from PIL import Image

    folder.mkdir()
    captions = list(data.captions)
    given = isinstance(data, GivenSet)
    moves.check_texts(model.tokenizer, captions, may_be_cut=frozenset(captions if given else ()))
    check_tokens(model.tokenizer, captions, data.forbidden)
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as rows:
        for number, (image, caption) in enumerate(_images(data, run)):
            name = f"{number:06d}.png"
            Image.fromarray(image).save(folder / name)
            rows.write(json.dumps({"file_name": name, "text": caption}) + "\n")
    return folder


def _images(data: TrainingData, run: Run) -> Iterator[tuple[np.ndarray, str]]:
    """Every training image, uint8 [height, width, 3], with its caption."""
    if isinstance(data, GivenSet):
        rows = data.folder.training
        images: Iterable[np.ndarray] = (image for batch in data.images(rows) for image in batch)
        yield from zip(images, (row.caption for row in rows), strict=True)
        return
    drawn, captions = run.images(data.probe)
    yield from zip(drawn, captions, strict=True)
