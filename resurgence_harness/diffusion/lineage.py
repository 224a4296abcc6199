"""Distances between the weights of candidate, unlearned model and base, layer by layer, before any image is drawn.

    d(a, b) = ‖a − b‖_F / ‖b‖_F          per layer and in all, float64, one tensor in memory at a time

Tensors are matched by name and compared by value, so two models are found equal whatever their shards, file layout or
number type (if the conversion is exact). Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from resurgence_harness.diffusion.model_files import ModelFiles, Weight, layer_of
from resurgence_harness.errors import UserError, sentence

UNRELATED = 1.0
"""Median of the layers' distances from which a model counts as not derived from its parent.

Two independent models of the same scale are √2 apart in every layer (the squared norms add up), and at 1 the parent
predicts the weights no better than zeros would. Fine-tuned models stay far below: d of 0.01 to 0.3 even after long
training. The median is used so that one re-initialised layer does not decide; only matrices and convolutions count,
since norms start at 1 and biases at 0 in every model and would look related.
"""
ROUNDING = 1e-6
"""Two models count as identical if no layer's relative distance exceeds this: a few units in the last place of float32
(6e-8), as adding and removing a LoRA leaves. A model that moved no further is not shown to have been fine-tuned."""
_CHUNK = 1 << 18
"""How many numbers are widened to float64 at a time."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """The distance between the tensors of one layer, or of a whole model."""

    moved: float
    """‖a − b‖²"""
    scale: float
    """‖b‖²"""
    numbers: int
    """How many numbers were compared."""

    @property
    def relative(self) -> float:
        """‖a − b‖ / ‖b‖; infinite if b is zero and a is not."""
        if self.scale:
            return math.sqrt(self.moved / self.scale)
        return math.inf if self.moved else 0.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of a model a with its parent b."""

    layers: Mapping[str, Distance]
    """Layer, "unet.conv_in" → distance over its weight and bias."""
    matrices: frozenset[str]
    """The layers whose weight has two axes or more: only these enter `median` and `derived`."""
    same: bool
    """Whether every number is equal (rounded to the shorter type if the files have different ones), or every layer is
    within `ROUNDING`."""
    rounded: bool
    """Whether equality needed rounding: one model is the other in half precision."""
    unmatched: tuple[str, ...]
    """Tensors that only one of them has, or whose shapes differ; added rows of the token embedding do not count."""

    @cached_property
    def total(self) -> Distance:
        """Over all layers."""
        found = self.layers.values()
        return Distance(
            moved=math.fsum(one.moved for one in found),
            scale=math.fsum(one.scale for one in found),
            numbers=sum(one.numbers for one in found),
        )

    @cached_property
    def median(self) -> float:
        """The median distance of the layers that have a matrix."""
        return float(np.median([self.layers[name].relative for name in self.matrices])) if self.matrices else math.inf

    @property
    def derived(self) -> bool:
        """Whether a can come from b by training: the same tensors, and a median below `UNRELATED`."""
        return not self.unmatched and self.median < UNRELATED


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Comparisons between two or three models, made before any image is drawn."""

    comparisons: Mapping[tuple[str, str], Comparison]
    """("candidate", "unlearned"), ("candidate", "base"), ("unlearned", "base"): the pairs that were given."""

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """Unexpected relations, in sentences; empty if the lineage is as expected."""
        found = []
        for (child, parent), one in self.comparisons.items():
            if one.same:
                how = ", one in half precision" if one.rounded else ""
                if (child, parent) == ("unlearned", "base"):
                    found.append(f"The unlearned model equals the base{how}: nothing was unlearned.")
                else:
                    found.append(f"The {child} is identical to the {parent}{how}.")
            elif one.unmatched:
                count, first = len(one.unmatched), one.unmatched[0]
                found.append(f"{_unrelated(child, parent)}: {count} tensors differ, first {first}.")
            elif not one.derived:
                found.append(
                    f"{_unrelated(child, parent)}: the relative distance of its layers is "
                    f"{one.median:.2f} (median); that of unrelated weights is 1.41."
                )
        return tuple(found)

    @property
    def unrelated(self) -> tuple[str, str, str] | None:
        """(child, parent, finding) of the first pair whose comparison would mean nothing: a model that is not derived
        from its parent, or an unlearned model that equals the base; None if there is none."""
        for (child, parent), one in self.comparisons.items():
            equal = one.same and (child, parent) == ("unlearned", "base")
            if equal or not (one.same or one.derived):
                start = "The unlearned model equals" if equal else _unrelated(child, parent)
                return child, parent, next(text for text in self.findings if text.startswith(start))
        return None


def _unrelated(child: str, parent: str) -> str:
    """The beginning of a finding."""
    return f"The {'unlearned model' if child == 'unlearned' else child} is not derived from the {parent}"


def lineage(
    candidate: str | Path | ModelFiles | None = None,
    *,
    unlearned: str | Path | ModelFiles | None = None,
    base: str | Path | ModelFiles | None = None,
) -> Lineage:
    """Compare each with each of its parents; directories in diffusers' layout, any number of shards.

    Without a candidate, the unlearned model is compared with the base.
    """
    given = {"candidate": candidate, "unlearned": unlearned, "base": base}
    models = {word: _files(model) for word, model in given.items() if model is not None}
    pairs = [("candidate", "unlearned"), ("candidate", "base"), ("unlearned", "base")]
    return Lineage(comparisons=_compared(models, [(a, b) for a, b in pairs if a in models and b in models]))


def _compared(models: Mapping[str, ModelFiles], pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Comparison]:
    """Every pair, each tensor of each model read once."""
    tallies = {(a, b): _Tally(models[a], models[b]) for a, b in pairs}
    for name in sorted(set().union(*models.values())):
        values = {word: model[name].values() for word, model in models.items() if name in model}
        for (a, b), tally in tallies.items():
            if a in values and b in values:
                tally.add(name, values[a], values[b])
    return {pair: tally.done() for pair, tally in tallies.items()}


class _Tally:
    """Accumulates one comparison, tensor by tensor."""

    def __init__(self, ours: ModelFiles, theirs: ModelFiles) -> None:
        self._ours, self._theirs = ours, theirs
        self._layers: dict[str, Distance] = {}
        self._unmatched = sorted(ours.keys() ^ theirs.keys())
        self._same, self._rounded, self._grown = True, False, False

    def add(self, name: str, a: np.ndarray, b: np.ndarray) -> None:
        """One tensor that both have."""
        if a.shape != b.shape and name.endswith("token_embedding.weight") and a.shape[1:] == b.shape[1:]:
            self._same, self._grown = False, True  # an embedding added tokens; the others are compared
            a, b = a[: len(b)], b[: len(a)]
        if _squeezed(a) != _squeezed(b):
            self._unmatched.append(name)
            return
        a, b = a.reshape(-1), b.reshape(-1)
        if np.array_equal(a, b):
            moved, scale = 0.0, _squares(b)
        else:
            moved, scale = _squares(a, b), _squares(b)
            self._same = self._same and _rounds(self._ours[name], self._theirs[name], a, b)
            self._rounded = True
        before = self._layers.get(layer := layer_of(name), Distance(moved=0, scale=0, numbers=0))
        self._layers[layer] = Distance(
            moved=before.moved + moved, scale=before.scale + scale, numbers=before.numbers + b.size
        )

    def done(self) -> Comparison:
        """The comparison; UserError if nothing was compared."""
        if not self._layers:
            raise UserError(
                sentence(
                    f"The models at {self._ours.directory} and {self._theirs.directory} have no tensor in common.",
                    do="Give models of the same version of Stable Diffusion.",
                )
            )
        axes = {name: len(weight.entry.shape) for name, weight in self._theirs.items()}
        close = not self._grown and all(one.relative <= ROUNDING for one in self._layers.values())
        same = (self._same or close) and not self._unmatched
        return Comparison(
            layers=self._layers,
            matrices=frozenset(layer_of(name) for name in axes if axes[name] >= 2 and layer_of(name) in self._layers),
            same=same,
            rounded=self._rounded and self._same and same,
            unmatched=tuple(self._unmatched),
        )


def same_numbers(mine: Weight, other: Weight) -> bool:
    """Whether two tensors are equal, after rounding to the shorter type if their files have different ones."""
    a, b = mine.values(), other.values()
    if a.shape != b.shape:
        return False
    a, b = a.reshape(-1), b.reshape(-1)
    return bool(np.array_equal(a, b)) or _rounds(mine, other, a, b)


def _files(model: str | Path | ModelFiles) -> ModelFiles:
    return model if isinstance(model, ModelFiles) else ModelFiles(model)


def _squeezed(values: np.ndarray) -> tuple[int, ...]:
    return tuple(length for length in values.shape if length != 1)


def _rounds(mine: Weight, other: Weight, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether one equals the other rounded to its own, shorter type."""
    for short, long, numbers, wide in ((mine, other, a, b), (other, mine, b, a)):
        kind = short.entry.dtype
        if kind in _ROUND and kind != long.entry.dtype:
            with np.errstate(over="ignore"):
                return bool(np.array_equal(_ROUND[kind](wide), numbers))
    return False


def _to_bfloat(values: np.ndarray) -> np.ndarray:
    """Rounded to BF16 (to nearest, ties to even), as float32."""
    bits = values.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.asarray(bits, np.uint32).view(np.float32)


_ROUND: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "F16": lambda values: values.astype(np.float16).astype(np.float32),
    "BF16": _to_bfloat,
}
"""A short type → rounding of longer numbers to it."""


def _squares(a: np.ndarray, b: np.ndarray | None = None) -> float:
    """‖a − b‖² or ‖a‖², accumulated in float64 a few megabytes at a time."""
    total = 0.0
    for low in range(0, len(a), _CHUNK):
        part = np.asarray(a[low : low + _CHUNK], np.float64)
        if b is not None:
            part = part - b[low : low + _CHUNK]
        total += float(part @ part)
    return total
