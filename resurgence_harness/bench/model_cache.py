"""Models in memory: the base, one U-Net whose weights are swapped, and a few with separate U-Nets."""

from __future__ import annotations

import gc
import hashlib
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

from resurgence_harness.bench.files import DELTA, read_tensors
from resurgence_harness.errors import Corrupt, UserError, sentence
from resurgence_harness.specs import Base, Recipe
from resurgence_harness.storing import Artifact

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.half.drawing import Halves
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.replaying import Replays

LOADED = 2
"""Maximum number of models with separate U-Nets kept in memory."""


class ModelCache:
    """The models of one device."""

    def __init__(self, device: str, where: Base | None) -> None:
        """`where` gives the directory of the weights, for recipes whose base has none. Loads no model."""
        self._device, self._where = device, where
        self._base: tuple[str, StableDiffusion] | None = None
        self._swapped: tuple[StableDiffusion, frozenset[str], str] | None = None
        self._loaded: OrderedDict[str, StableDiffusion] = OrderedDict()
        self._replaying: Replays | None = None
        self._halves: Halves | None = None

    def base(self, recipe: Recipe) -> StableDiffusion:
        """The unmodified base, loaded once. UserError if its location is unknown or its files have another digest."""
        wanted = recipe.base
        if self._base is None or self._base[0] != wanted.digest:
            from resurgence_harness.diffusion.loading import Exchanged
            from resurgence_harness.diffusion.model import StableDiffusion

            location = wanted.location
            if self._where is not None and self._where.digest == wanted.digest:
                location = self._where.location or location
            name = wanted.name or wanted.digest[:8]
            if not location:
                raise UserError(sentence(f"The location of the base {name} is unknown.", digest=wanted.digest))
            self.release()
            try:
                loaded = StableDiffusion.load(location, self._device, digest=wanted.digest)
            except Exchanged as problem:
                raise UserError(
                    sentence(
                        f"The base at {location} is not {name}.",
                        wanted=wanted.digest,
                        found=problem.found,
                        do="Its files were changed or replaced; run again with the base as it is now.",
                    )
                ) from None
            self._base = wanted.digest, loaded
        return self._base[1]

    def load(self, recipe: Recipe, chain: list[Artifact]) -> StableDiffusion:
        """The recipe's model, loaded into the U-Net whose weights are swapped; valid until the next call.

        Corrupt if a checkpoint does not fit the base.
        """
        base = self.base(recipe)
        if not chain:
            return base
        place = chain_digest(recipe.base, chain)
        if self._swapped is not None and self._swapped[2] == place:
            return self._swapped[0]  # do not read it again for every block: half a gigabyte at SD's size
        import torch

        from resurgence_harness.diffusion.model import of_texts, tensors

        delta = merged(chain)
        loaded, differing, _ = self._swapped or (base.copy(), frozenset(), "")
        if loaded.text_encoder is base.text_encoder and of_texts(delta):
            loaded = loaded.with_texts_of(base.copy(texts=True))
        self._swapped = None  # invalid until all tensors are copied
        places, original = tensors(loaded), tensors(base)
        with torch.no_grad():
            for name in differing - delta.keys():
                places[name].copy_(original[name])
            for name, value in delta.items():
                if name not in places or places[name].shape != value.shape:
                    raise Corrupt(sentence(f"A checkpoint holds {name}, which the base does not.", model=recipe.label))
                places[name].copy_(value)
        self._swapped = loaded, frozenset(delta), place
        return loaded

    def model(self, recipe: Recipe, chain: list[Artifact]) -> StableDiffusion:
        """The recipe's model with a separate U-Net; the last few are kept."""
        place = chain_digest(recipe.base, chain)
        if place not in self._loaded:
            from resurgence_harness.diffusion.model import load_difference

            delta = merged(chain)
            while len(self._loaded) >= LOADED:
                self._loaded.popitem(last=False)
            self._loaded[place] = load_difference(self.base(recipe), delta)
        self._loaded.move_to_end(place)
        return self._loaded[place]

    def replays(self) -> Replays:
        """CUDA graphs of sampling for the base and the swapped U-Net, whose weights keep their addresses."""
        if self._replaying is None:
            from resurgence_harness.diffusion.replaying import Replays

            self._replaying = Replays()
        return self._replaying

    def halves(self) -> Halves:
        """The float16 weights of the model that was drawn last."""
        if self._halves is None:
            from resurgence_harness.diffusion.half.drawing import Halves

            self._halves = Halves()
        return self._halves

    def release(self) -> None:
        """Release every loaded model and the device's memory."""
        if not (self._base or self._swapped or self._replaying or self._loaded):
            return  # a collection takes a third of a second once torch is imported
        self._base = self._swapped = self._replaying = self._halves = None
        self._loaded.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def merged(chain: list[Artifact]) -> dict[str, Tensor]:
    """The deltas of all checkpoints, applied in order: for each tensor, the last value."""
    merged: dict[str, Tensor] = {}
    for artifact in chain:
        merged |= read_tensors(artifact, DELTA)
    return merged


def chain_digest(base: Base, chain: list[Artifact]) -> str:
    """Digest of the model at the end of a chain; the base's own digest if the chain is empty."""
    if not chain:
        return base.digest
    return hashlib.sha256("\n".join([base.digest, *(artifact.digest for artifact in chain)]).encode()).hexdigest()
