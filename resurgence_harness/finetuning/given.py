"""Given training images of a fine-tuning: a folder of the user's own images and captions.

They replace the images that the base draws (`benign.BenignSet`). A caption that names an erased concept is refused as
in a drawn set: on words when the set is created, on tokens when the tokenizer is known. Some images are held out from
training; they measure the fine-tuning's effect. Captions longer than the text encoder's limit are truncated, as in
diffusers' scripts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.examples import Examples
from resurgence_harness.errors import SpecError, sentence, shown
from resurgence_harness.finetuning.benign import check_tokens
from resurgence_harness.finetuning.image_folder import ImageFolder, Row
from resurgence_harness.specs import not_in_key

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

LISTED = 20
"""Maximum number of rows that a message lists."""
PREDICTIONS = 400
"""Minimum number of predictions from which a held-out loss is measured: as many as for 100 drawn images."""


@final
@dataclass(frozen=True, kw_only=True)
class GivenSet:
    """Training images: those of a folder, resized and centre-cropped. Its key contains their content, never a path."""

    name: ClassVar[str] = "given"
    version: ClassVar[int] = 1

    folder: ImageFolder
    """The captioned images, by their digest."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    forbidden: tuple[str, ...] = not_in_key(())
    """Erased names and their synonyms. Not in the key: they only reject a set, never change it."""

    def __post_init__(self) -> None:
        """SpecError for captions that contain a forbidden name; it lists their rows."""
        by_first: dict[str, list[tuple[str, list[str]]]] = {}  # a set may have many captions, a task many names
        for name in self.forbidden:
            if sought := _words(name):
                by_first.setdefault(sought[0], []).append((name, sought))
        found = [
            (row, name)
            for row in self.folder.rows
            for words in [_words(row.caption)]
            for word in dict.fromkeys(words)
            for name, sought in by_first.get(word, ())
            if moves.holds(words, sought)
        ]
        if found:
            row, name = found[0]
            raise SpecError(
                sentence(
                    f'The fine-tuning data have a caption with the erased name "{name}".',
                    caption=shown(row.caption),
                    rows=listed([f"{one.place} ({name})" for one, name in found]),
                    do="Remove these rows: a fine-tuning that shows the erased concept again is not benign.",
                )
            )

    def __len__(self) -> int:
        return len(self.folder.training)

    @property
    def captions(self) -> tuple[str, ...]:
        """The different captions of the training images, in the order of the rows of `Examples.states`."""
        return tuple(dict.fromkeys(row.caption for row in self.folder.training))

    @property
    def label(self) -> str:
        """The set in one line, for reports."""
        return (
            f"{len(self)} of {len(self.folder)} given images (digest {self.folder.digest}), resized and centre-cropped "
            f"to {self.width} × {self.height} pixels; the other {len(self.folder.held_out)} measure the effect"
        )

    def images(self, rows: Sequence[Row]) -> Iterator[np.ndarray]:
        """The images of some of its rows in batches, uint8 [n, height, width, 3]."""
        return self.folder.images(rows, height=self.height, width=self.width)


@final
@dataclass(frozen=True, kw_only=True)
class GivenLatents:
    """Cache key of the VAE moments of a given set's training images."""

    name: ClassVar[str] = "given-latents"
    version: ClassVar[int] = 1

    base: str
    """Digest of the base, whose VAE encodes the images."""
    data: GivenSet
    side: str
    """ "original", or "mirrored" left to right."""


def given_examples(model: StableDiffusion, run: Run, data: GivenSet, *, mirrored: bool = False) -> Examples:
    """The training images as latents and text states, after the token check; `mirrored` appends the mirrored images.

    Latents are computed by the base's VAE, text states by `model`'s text encoder.
    """
    import torch

    captions = [row.caption for row in data.folder.rows]
    moves.check_texts(model.tokenizer, captions, may_be_cut=frozenset(captions))
    check_tokens(model.tokenizer, captions, data.forbidden)
    rows = data.folder.training
    texts = data.captions
    place = {text: index for index, text in enumerate(texts)}

    def encode(side: str) -> dict[str, Tensor]:
        parts = [
            moves.latent_moments(run.base, images[:, :, ::-1] if side == "mirrored" else images)
            for images in data.images(rows)
        ]
        mean, deviation = (torch.cat([part[kind].cpu() for part in parts]) for kind in (0, 1))
        return {"mean": mean, "deviation": deviation}

    moments = []
    for side in ("original", "mirrored") if mirrored else ("original",):
        spec = GivenLatents(base=run.base_digest, data=data, side=side)
        moments.append(run.cached("latents", spec, partial(encode, side)))
    return Examples(
        mean=torch.cat([part["mean"] for part in moments]).to(model.device),
        deviation=torch.cat([part["deviation"] for part in moments]).to(model.device),
        states=moves.conditions(model, texts, may_be_cut=frozenset(texts)),
        text=torch.tensor([place[row.caption] for row in rows] * len(moments), device=model.device),
    )


def given_held_out(model: StableDiffusion, data: GivenSet) -> tuple[Tensor, Conditions]:
    """(latents [n, 4, h, w], states c) of the held-out images, as `benign_losses` takes them."""
    import torch

    rows = data.folder.held_out
    captions = [row.caption for row in rows]
    latents = torch.cat([moves.latent_moments(model, images)[0] for images in data.images(rows)])
    return latents, moves.conditions(model, captions, may_be_cut=frozenset(captions))


def draws_for(images: int) -> int:
    """Timesteps per held-out image: 4 as for drawn images, more for few images, `PREDICTIONS` in all."""
    return max(4, -(-PREDICTIONS // images))


def listed(names: Sequence[str]) -> str:
    """At most `LISTED` names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more:,} more" if more > 0 else "")


def _words(text: str) -> list[str]:
    """Case-folded words, after Unicode normalisation: accents and full-width letters have several encodings."""
    return moves.words_of(unicodedata.normalize("NFKC", text))
