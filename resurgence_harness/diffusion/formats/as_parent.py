"""A model of a candidate's U-Net and its parent's other components: what the candidate draws with the parent's
tokenizer, scheduler and autoencoder.

Exchanged rows of an embedding can hide a concept just as exchanged ids in a tokenizer can. So if the parent is the
unlearned model, the text encoder is the parent's as well, and what was erased in it stays erased. If the parent is the
base, the text encoder may be what erases a concept: it is the candidate's, bit for bit, without the rows of added
tokens, which the parent's tokenizer never produces. A component whose weights do not have the shapes of the parent's
config keeps its own config.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from resurgence_harness.diffusion.base_files import check_settings, check_tensors
from resurgence_harness.diffusion.formats.contract import Edit
from resurgence_harness.diffusion.formats.materialising import (
    copy_settings,
    copy_weights,
    key_of,
    located,
    published,
    write_index,
    write_part,
)
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError
from resurgence_harness.specs import Base

VERSION = 2
"""Raised when the same two models give another result."""
EMBEDDING = "embeddings.token_embedding.weight"


def as_parent(
    child: ModelFiles, parent: ModelFiles, out: Path, *, own: Collection[str] | None = None, run: str = ""
) -> Base:
    """The combined model's directory, written below `out` unless it exists. UserError if it cannot be written.

    `own`: the parts whose weights are the candidate's; None: the U-Net and the text encoders.
    """
    family = parent.description.family
    own = ("unet", *family.encoders) if own is None else own
    inputs = {
        "as_parent": VERSION,
        "child": child.description.digest,
        "parent": parent.description.digest,
        "own": sorted(own),
    }
    place = out / key_of(inputs)

    def write(folder: Path) -> None:
        write_index(folder, parent.description)
        kept = [part for part in family.weights if part not in own]
        for part in (*family.tokenizers, "scheduler", *kept):
            copy_settings(folder, part, parent.description)
        for part in kept:
            copy_weights(folder, part, parent.description)
        for part in own:
            cut = _rows(part, child, parent)
            copy_settings(folder, part, parent.description if _fits(part, child, parent) else child.description)
            if cut:
                write_part(folder / part / f"{family.weights[part]}.safetensors", part, child.parts[part], cut)
            else:
                copy_weights(folder, part, child.description)

    digest = published(place, inputs, write, run=run)
    return located(place, f"{child.directory.name} with the settings of {parent.directory.name}", digest)


def _rows(part: str, child: ModelFiles, parent: ModelFiles) -> dict[str, list[Edit]]:
    """The edit that drops embedding rows which the parent does not have; empty if there are none."""
    if (name := _embedding(part, parent)) is None:
        return {}
    mine, rows = child[name].entry.shape[0], parent[name].entry.shape[0]
    return {name: [Edit(apply=_first(rows), rows=rows - mine)]} if mine > rows else {}


def _embedding(part: str, model: ModelFiles) -> str | None:
    """The name of a text encoder's table of tokens; None for another part."""
    reader = model.description.family.reader(part)
    return None if reader is None else f"{part}.{reader.prefix}{EMBEDDING}"


def _first(rows: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda table: table[:rows]


def _fits(part: str, child: ModelFiles, parent: ModelFiles) -> bool:
    """Whether the parent's config describes the child's weights, apart from added tokens."""
    settings = dict(check_settings(parent.description)[part])
    if (name := _embedding(part, parent)) is not None:
        settings["vocab_size"] = max(settings["vocab_size"], child[name].entry.shape[0])
    try:
        check_tensors(part, child.parts[part], settings, child.directory)
    except UserError:
        return False
    return True
