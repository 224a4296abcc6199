"""The interface of candidate formats: which tensors of a base a candidate changes, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np

from resurgence_harness.diffusion.model_files import ModelFiles, canonical
from resurgence_harness.diffusion.tensor_files import TensorFile, is_index, shown
from resurgence_harness.errors import UserError, sentence

_KINDS = {
    ".attn2.": "cross-attention",
    ".attn1.": "self-attention",
    ".self_attn.": "attention",
    ".ff.": "feed-forward layers",
    ".mlp.": "feed-forward layers",
    ".norm": "normalisations of the transformers",
    "layer_norm": "normalisations",
    ".attentions.": "the transformers' input and output projections",
    "embedding": "embeddings",
    ".resnets.": "residual blocks",
    "samplers.": "up- and downsampling",
    "conv": "first and last convolutions",
}
"""Part of a tensor's name → the kind of layer that it belongs to, for people; the first match counts."""
OTHER_BASE = "Give the base that it was made from: the text states of v1 are 768 wide, those of v2 1024, of XL 2048."


class Cover(Enum):
    """How much of a part a file of weights must hold."""

    WHOLE = "whole"
    """Every tensor; a missing one means a broken file."""
    SOME = "some"
    """Some tensors; the rest are the base's, as in the files that some unlearning codes save."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file or directory given as a candidate or a part of one."""

    path: Path
    weight: float = 1.0
    """Strength of a LoRA, from -100 to 100; 1 for any other format."""
    cover: Cover = Cover.WHOLE

    def __post_init__(self) -> None:
        if not abs(self.weight) <= 100:
            raise UserError(sentence(f"A LoRA's weight is {self.weight}.", do="Give a number from -100 to 100."))


@dataclass(frozen=True, kw_only=True)
class Edit:
    """How one tensor changes."""

    apply: Callable[[np.ndarray], np.ndarray]
    """The new values from the parent's, float32."""
    rows: int = 0
    """How many rows the tensor gains (or, if negative, loses): tokens added to an embedding."""
    added: bool = False
    """Whether the change is added to the weight, instead of replacing it."""
    alone: bool = False
    """Whether nothing else may be added to the tensor: a DoRA normalises the weight that it is applied to."""


Changes = dict[str, Edit]
"""Name of a weight, as `ModelFiles` spells it → its change."""


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """A candidate of a recognised format, its headers read."""

    label: ClassVar[str]
    """The format's name for people; also in the key of the directory made from it."""
    order: ClassVar[int]
    """Formats that replace weights (0) are applied before those that add to them (1, 2)."""
    source: Source

    @property
    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Every file that affects the candidate's weights."""

    @abstractmethod
    def changes(self, parent: ModelFiles) -> Changes:
        """The weights of the parent that change, and how; UserError if the candidate does not fit the parent."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Added tokens; the candidate differs only for prompts that contain them. Empty for most formats."""
        return ()

    def remarks(self, parent: ModelFiles) -> tuple[str, ...]:
        """Sentences to show beside the verdict: contents of the file that are not judged, and missing ones."""
        return ()

    def settle(self, folder: Path, parent: ModelFiles) -> None:  # noqa: B027  (most formats leave the files beside the weights alone)
        """Change the files beside the weights of a directory in diffusers' layout."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A tensor of a candidate's file, or some of its rows; stands in for a tensor while names are converted.

    diffusers' converters for the original layout only select, slice and rename; applied to pieces instead of tensors,
    they return which rows of which tensor become which weight, and no values are read.
    """

    file: TensorFile
    name: str
    rows: slice | None = None
    turned: bool = False
    """Whether it is a matrix's transpose."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected rows."""
        whole = self.file.entries[self.name].shape
        found = whole if self.rows is None else (len(range(*self.rows.indices(whole[0]))), *whole[1:])
        return found[::-1] if self.turned else found

    @property
    def T(self) -> Piece:
        """A whole matrix's transpose."""
        if self.rows is not None or self.ndim != 2:
            raise TypeError("only a whole matrix is transposed")
        return replace(self, turned=not self.turned)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, place: slice | tuple[slice | int, ...]) -> Piece:
        first = place[0] if isinstance(place, tuple) else place
        if not isinstance(first, slice) or self.turned:
            raise TypeError("a piece is cut by rows")
        return self if first == slice(None) else Piece(file=self.file, name=self.name, rows=first)

    def clone(self) -> Piece:
        """The piece itself, which is never modified."""
        return self

    detach = contiguous = clone

    def values(self) -> np.ndarray:
        """The values of the selected rows, float32."""
        values = self.file.values(self.name)
        found = np.asarray(values if self.rows is None else values[self.rows], np.float32)
        return found.T if self.turned else found


def replaced(part: str, found: Mapping[str, Piece], parent: ModelFiles, source: Source) -> Changes:
    """Changes that replace the parent's weights by `found` (name within the part → piece); UserError on a mismatch."""
    have = {name.removeprefix(f"{part}.") for name in parent if name.startswith(f"{part}.")}
    extra, missing = sorted(found.keys() - have), sorted(have - found.keys())
    if extra:
        raise UserError(
            sentence(
                f"{source.path} holds tensors that the base's {part} does not have.",
                extra=f"{len(extra)} of {len(found)}, first {shown(extra[0])}",
                do=OTHER_BASE,
            )
        )
    if missing and source.cover is Cover.WHOLE:
        raise UserError(
            sentence(
                f"{source.path} lacks tensors of the {part}.",
                missing=f"{len(missing)} of {len(have)}, first {missing[0]}",
                do="Copy or download the file again; if it is meant to hold some layers only, give --partial.",
            )
        )
    changes: Changes = {}
    for name, piece in found.items():
        shape = parent[f"{part}.{name}"].entry.shape
        if without_ones(piece.shape) != without_ones(shape):  # a 1 × 1 convolution may be written as a matrix
            raise UserError(
                sentence(
                    f"{source.path} has a tensor of another shape than the base.",
                    tensor=f"{part}.{name}",
                    candidate=piece.shape,
                    base=shape,
                    do=OTHER_BASE,
                )
            )
        changes[f"{part}.{name}"] = Edit(apply=_instead(piece, shape))
    return changes


def pieces_of(part: str, files: Sequence[TensorFile]) -> dict[str, Piece]:
    """The current name of every weight → its piece; UserError if two tensors are the same weight."""
    found: dict[str, Piece] = {}
    for file in files:
        for name, entry in file.entries.items():
            if is_index(name):
                continue
            if not entry.floating:
                raise integer_weights(file, name)
            short = canonical(part, name.removeprefix(f"{part}."))
            if short in found:
                raise UserError(
                    sentence(
                        f"{file.path} has two tensors for the same weight, so it is not clear which one is meant.",
                        tensors=f"{shown(found[short].name)} and {shown(name)}",
                        do="Give a file with one tensor for each weight.",
                    )
                )
            found[short] = Piece(file=file, name=name)
    return found


def integer_weights(file: TensorFile, name: str) -> UserError:
    """The error for weights that are stored as integers."""
    return UserError(
        sentence(
            f"The weights {file.path} are integers, so they are quantised or broken.",
            first_tensor=f"{shown(name)}, {file.entries[name].dtype}",
            do="Give weights in float32, float16, bfloat16 or float8; quantised ones cannot be judged here.",
        )
    )


def covered(part: str, names: Collection[str], parent: ModelFiles, source: Source) -> tuple[str, ...]:
    """A remark on how many tensors of which kind a partial file takes from its parent; empty if none."""
    have = {name.removeprefix(f"{part}.") for name in parent if name.startswith(f"{part}.")}
    left = have - set(names)
    if not left:
        return ()
    kinds = Counter(_kind(name) for name in left)
    listed = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common())
    return (
        f"{shown(source.path.name)} covers {len(have) - len(left)} of the {len(have)} tensors of the {part}; "
        f"the other {len(left)} are its parent's: {listed}.",
    )


def _kind(name: str) -> str:
    """The kind of layer that a tensor of a U-Net or a text encoder belongs to, for people."""
    return next((kind for sign, kind in _KINDS.items() if sign in name), "other layers")


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its trailing axes of length 1."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _instead(piece: Piece, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda _: piece.values().reshape(shape)
