"""Models as a user gives them on a command line: found, made into loadable directories, compared with their base.

    ./erased                  a directory in diffusers' layout         owner/name@<commit>     from the hub's cache
    ./erased.safetensors      a U-Net, a text encoder, a whole model   ./lora.safetensors=0.8     a LoRA and its weight

The release gate uses it for candidates, suites and `resurgence stress` for unlearned models. Needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.diffusion.differences import settings_difference
from resurgence_harness.diffusion.formats import Candidate, Cover, Source, materialise
from resurgence_harness.diffusion.hub import is_name, locate
from resurgence_harness.diffusion.lineage import lineage
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.selection import resolve_base
from resurgence_harness.specs import EMBEDDED, Base
from resurgence_harness.unlearning import GivenModel

MADE = "candidates"
"""The folder below the store's root in which given models are made into directories."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", re.ASCII)
"""Names of given models: they become part of node ids."""


class Named(NamedTuple):
    """An unlearned model as given: its name, and a directory, file or name of the hub."""

    name: str
    model: str


def named(word: str) -> Named:
    """ "mine=./erased" as its two parts; UserError for a word without a name."""
    name, equals, model = word.partition("=")
    name, model = name.strip(), model.strip()
    if not equals or not model or not NAME.fullmatch(name):
        raise UserError(
            sentence(
                f'"{shown(word)}" does not name an unlearned model.',
                name="letters, digits, hyphens and underscores, at most 40",
                do="Write NAME=MODEL, for example mine=./my-erased.",
            )
        )
    return Named(name, model)


def check_names(given: Sequence[Named], taken: Collection[str]) -> None:
    """UserError for a name that occurs twice, or that a method has."""
    seen: set[str] = set()
    for one in given:
        if one.name in seen or one.name in taken:
            what = "Two unlearned models are" if one.name in seen else "A method is"
            raise UserError(
                sentence(
                    f'{what} called "{one.name}".',
                    model=shown(one.model),
                    do=f"Give it a name of its own: {one.name}-2={shown(one.model)}.",
                )
            )
        seen.add(one.name)


def read_unlearned(
    given: Sequence[Named],
    *,
    base: Base,
    folder: Path,
    store: Path,
    cover: Cover = Cover.WHOLE,
    run: str = "",
) -> tuple[GivenModel, ...]:
    """The given unlearned models, as directories that can be loaded. Paths are relative to `folder`.

    `cover`: whether files may hold some layers only; the others are the base's. A fresh run, identified by `run`, uses
    no directory that another run made.

    UserError for a model that cannot be read, is not derived from the base or equals it, and for one whose tokenizer,
    scheduler, VAE or configuration is not the base's: a step of a recipe changes the U-Net and the text encoder alone.
    """
    return tuple(_read(one, base, folder, store / MADE, cover, run) for one in given)


def _read(given: Named, base: Base, folder: Path, made: Path, cover: Cover, run: str) -> GivenModel:
    found = materialised([given.model], base, folder, made, cover, run)
    ours, theirs = ModelFiles(found.base.location), ModelFiles(base.location)
    known = lineage(unlearned=ours, base=theirs)
    if known.unrelated is not None:
        same = known.comparisons["unlearned", "base"].same
        raise UserError(
            sentence(
                known.unrelated[2],
                model=f"{given.name}={shown(given.model)}",
                do="Give the model that was unlearned." if same else "Give the base that it was made from.",
            )
        )
    if odd := settings_difference(ours, theirs):
        raise UserError(
            sentence(
                f'The unlearned model "{given.name}" differs from the base in more than its U-Net and text encoder.',
                first=odd[0],
                differences=len(odd),
                do="Give the base with the same files as --resurgence-base; `resurgence gate` judges such a model.",
            )
        )
    moved = known.comparisons["unlearned", "base"].total.relative
    notes = [f"relative distance of its weights from the base {moved:.3g}", *(note.rstrip(".") for note in found.notes)]
    return GivenModel(
        digest=found.base.digest,
        name=given.name,
        location=found.base.location,
        label=f"{found.label.removesuffix(f' on {theirs.directory.name}')} on {shown(base.name)}",
        notes=tuple(notes),
    )


def read_word(model: str, folder: Path) -> tuple[Path, float]:
    """A model as given by the user: its path, and the weight of a LoRA after "="."""
    name, equals, number = model.rpartition("=")
    weight = 1.0
    if equals and not _there(model, folder):
        try:
            model, weight = name, float(number)
        except ValueError:
            raise UserError(
                sentence(f"The weight of {shown(name)} is {shown(number)!r}.", do="Write style.safetensors=0.8.")
            ) from None
        if not math.isfinite(weight):
            raise UserError(sentence(f"The weight of {shown(name)} is {number}.", do="Give a number such as 0.8."))
    try:
        (folder / model).exists()
        odd = not model.strip()
    except (OSError, ValueError):  # not a valid file name
        odd = True
    if odd:
        raise UserError(sentence(f'There is no model at "{shown(model)}".', do="Give a file, a directory or a name."))
    if model in EMBEDDED:
        return Path(resolve_base(model).location), weight
    if is_name(model, folder):
        return locate(model).directory, weight
    return folder / Path(model).expanduser(), weight


def _there(model: str, folder: Path) -> bool:
    try:
        return (folder / model).exists()
    except (OSError, ValueError):
        return False


def published(model: str, folder: Path) -> Base:
    """The published model."""
    if model in EMBEDDED or is_name(model, folder):
        return resolve_base(model)
    found = resolve_base(str(read_word(model, folder)[0]))
    return replace(found, name=shown(Path(model).name or model))


def materialised(
    parts: Sequence[str], parent: Base | None, folder: Path, made: Path, cover: Cover, run: str
) -> Candidate:
    """The parts applied to `parent` as a loadable directory below `made`; a whole model is used in place."""
    sources = [
        Source(path=path, weight=weight, cover=cover) for path, weight in (read_word(part, folder) for part in parts)
    ]
    return materialise(sources, parent.location if parent is not None else None, made, run=run)
