"""Writes a candidate as a directory in diffusers' layout, which all other modules can load, compare and judge.

A whole directory is checked and used in place. Anything else is applied to its base, one tensor at a time, and written
under a temporary name that is renamed when complete: <out>/<digest of the inputs>. Changed weights are written in
float32, unchanged ones as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from resurgence_harness.diffusion.base_files import check_base, digest_of
from resurgence_harness.diffusion.description import ModelDescription
from resurgence_harness.diffusion.formats.contract import OTHER_BASE, Changes, Edit, Format, Source
from resurgence_harness.diffusion.formats.lora import Lora
from resurgence_harness.diffusion.formats.recognising import recognise
from resurgence_harness.diffusion.model_files import ModelFiles, canonical
from resurgence_harness.diffusion.tensor_files import (
    Described,
    TensorFile,
    is_finite,
    read_json,
    sha256_of,
    shown,
    write_tensors,
)
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.specs import Base
from resurgence_harness.storing.sealing import counts, seal_of, sealed

VERSION = 2
"""Raised when the same inputs give other weights."""
NOTE = "candidate.json"
"""The file in a written directory that records its inputs."""
PURPOSE = "candidate"
"""The purpose of that file's keyed seal."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that can be loaded, and where it came from."""

    base: Base
    """Its directory and digest; a `Recipe` can start here."""
    label: str
    """For people: "a LoRA × 0.8 on sd14"."""
    tokens: tuple[str, ...] = ()
    """Tokens of its embeddings; only prompts that contain them are affected."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The given files that can change an image, by path relative to what was given → sha256 of the bytes read."""
    notes: tuple[str, ...] = ()
    """Remarks to show beside a verdict: what was not judged, or not covered."""


def materialise(sources: Sequence[Source], base: str | Path | None, out: str | Path, *, run: str = "") -> Candidate:
    """Apply these sources to a base, as a directory; one made earlier from the same inputs is reused.

    A fresh run, identified by `run`, reuses only directories that it made itself; with RESURGENCE_STORE_KEY set, only
    those sealed with that key are reused. Any other is made again.
    `base` may be None only if the first source is a whole model. UserError if the sources cannot be read or do not fit.
    """
    if not sources:
        raise UserError(sentence("No candidate was given.", do="Give a file or a directory."))
    formats = [recognise(source) for source in sources]
    first, rest = formats[0], formats[1:]
    whole = check_base(first) if isinstance(first, Path) else None
    below = check_base(base) if base is not None else None
    given: list[tuple[str, str]] = []
    if isinstance(first, Path) and whole is not None:
        if below is not None:
            check_same_shape(ModelFiles(whole), ModelFiles(below))
        given = list(whole.hashes.items())
        if not rest:
            _check_weights(sources)
            return Candidate(
                base=located(first, first.name, whole.digest),
                label="a directory in diffusers' layout",
                files=named(given),
            )
        below, formats, sources = whole, rest, sources[1:]
    if below is None:
        raise UserError(
            sentence(
                f"{sources[0].path} is not a whole model, so its base is needed.",
                do="Give the base that it was made from.",
            )
        )
    steps = _ordered(formats, sources)
    return _made(steps, below, Path(out), given, run)


def named(files: Sequence[tuple[str, str]]) -> dict[str, str]:
    """(name, sha256) pairs as a mapping; a name that occurs again gets the first digits of its sha256 appended."""
    found: dict[str, str] = {}
    for name, digest in files:
        found[f"{shown(name)} ({digest[:8]})" if shown(name) in found else shown(name)] = digest
    return found


def check_same_shape(directory: str | Path | ModelFiles, base: str | Path | ModelFiles) -> None:
    """UserError unless a model has exactly the base's tensors, in the base's shapes.

    A text encoder may have more tokens than the base's.
    """
    ours, theirs = (one if isinstance(one, ModelFiles) else ModelFiles(one) for one in (directory, base))
    odd = sorted(ours.keys() ^ theirs.keys())
    if odd:
        raise UserError(
            sentence(
                f"The candidate at {ours.directory} has other tensors than its base.",
                missing=len(theirs.keys() - ours.keys()),
                extra=len(ours.keys() - theirs.keys()),
                first=odd[0],
                do="Give the base that it was made from, or copy the candidate again.",
            )
        )
    for name, weight in ours.items():
        mine, shape = weight.entry.shape, theirs[name].entry.shape
        longer = name.endswith("token_embedding.weight") and mine[1:] == shape[1:] and mine[0] >= shape[0]
        if _squeezed(mine) != _squeezed(shape) and not longer:
            raise UserError(
                sentence(
                    f"The candidate at {ours.directory} has a tensor of another shape than its base.",
                    tensor=name,
                    candidate=mine,
                    base=shape,
                    do=OTHER_BASE,
                )
            )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _ordered(formats: Sequence[Format | Path], sources: Sequence[Source]) -> list[Format]:
    """The formats; UserError unless those that replace weights come before those that add to them."""
    _check_weights([source for found, source in zip(formats, sources, strict=True) if not isinstance(found, Lora)])
    steps = [found for found in formats if isinstance(found, Format)]
    if len(steps) < len(formats) or [step.order for step in steps] != sorted(step.order for step in steps):
        raise UserError(
            sentence(
                "The parts of the candidate are given in an order that would undo some of them.",
                order=", ".join(source.path.name for source in sources),
                do="Give a whole model first, then a U-Net or text encoder, then LoRAs, then embeddings.",
            )
        )
    return steps


def _check_weights(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.weight != 1:
            raise UserError(
                sentence(f"{source.path} was given the weight {source.weight}.", do="Only a LoRA can have a weight.")
            )


def _made(steps: list[Format], base: ModelDescription, out: Path, given: list[tuple[str, str]], run: str) -> Candidate:
    """The candidate for these inputs, written unless it exists. `given`: further given files, as (name, sha256)."""
    hashes = [[(path, sha256_of(path)) for path in step.files] for step in steps]
    inputs = {
        "version": VERSION,
        "base": base.digest,
        "sources": [
            {
                "kind": step.label,
                "files": [digest for _, digest in files],
                "names": [path.name for path in step.files] if step.tokens else [],  # its token
                "weight": step.source.weight,
                "cover": step.source.cover.value,
            }
            for step, files in zip(steps, hashes, strict=True)
        ],
    }
    place = out / key_of(inputs)
    label = " + ".join(step.label + (f" × {step.source.weight:g}" if isinstance(step, Lora) else "") for step in steps)
    tokens = tuple(token for step in steps for token in step.tokens)
    parent = ModelFiles(base)
    notes = tuple(remark for step in steps for remark in step.remarks(parent))

    def write(folder: Path) -> None:
        _write(folder, parent, _merged(steps, parent), steps)
        for files in hashes:
            for path, digest in files:
                if sha256_of(path) != digest:
                    raise UserError(sentence(f"{path} was changed while it was read.", do="Give it again."))

    made = published(place, inputs, write, run=run)
    for step, files in zip(steps, hashes, strict=True):
        folder = step.source.path if step.source.path.is_dir() else step.source.path.parent
        given = given + [(path.relative_to(folder).as_posix(), digest) for path, digest in files]
    label = f"{label} on {base.directory.name}"
    return Candidate(base=located(place, label, made), label=label, tokens=tokens, files=named(given), notes=notes)


def published(place: Path, inputs: dict[str, Any], write: Callable[[Path], None], *, run: str = "") -> str:
    """The digest of the directory `place`, which is written unless it can be reused: complete and made from `inputs`.

    It is written under another name and then renamed. `run`: a fresh run reuses only what it made itself.
    """
    if (made := _whole(place, inputs, run)) is not None:
        return made
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{place.name[:16]}-", dir=place.parent))
        try:
            write(folder)
            made = digest_of(folder)
            note = sealed({"made_from": inputs, "digest": made, "run": run}, purpose=PURPOSE)
            (folder / NOTE).write_text(json.dumps(note, indent=2), encoding="utf-8")
            if place.exists() and _whole(place, inputs, run) is None:
                shutil.rmtree(place)
            folder.chmod(0o755)
            try:
                os.replace(folder, place)
            except OSError:
                if _whole(place, inputs, run) is None:  # otherwise another process wrote the same first
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as problem:
        raise UserError(
            sentence(
                f"The candidate cannot be written to {place.parent}.",
                problem=problem,
                do="Give a directory that can be written, with room for a whole model.",
            )
        ) from None
    return made


def _whole(place: Path, inputs: dict[str, Any], run: str) -> str | None:
    """Digest of a directory made from `inputs` and unchanged since; None if there is none that may be reused."""
    if not (place / NOTE).is_file():
        return None
    try:
        digest, note = digest_of(place), read_json(place / NOTE)
    except UserError:
        return None
    ours = counts(seal_of(note, purpose=PURPOSE)) and run in ("", note.get("run"))
    return digest if ours and note.get("digest") == digest and key_of(note.get("made_from")) == key_of(inputs) else None


def key_of(inputs: object) -> str:
    """The name of the directory for these inputs: sha256 of their JSON."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _merged(steps: list[Format], parent: ModelFiles) -> dict[str, list[Edit]]:
    """Every weight that changes → its changes in order."""
    merged: dict[str, list[Edit]] = {}
    replacing: dict[str, Path] = {}
    for step in steps:
        changes: Changes = step.changes(parent)
        if step.order == 0:
            twice = next((replacing[name] for name in changes if name in replacing), None)
            if twice is not None:
                raise UserError(
                    sentence(
                        f"{step.source.path} and {twice} both replace the same weights.",
                        do="Give one of them.",
                    )
                )
            replacing |= dict.fromkeys(changes, step.source.path)
        for name, edit in changes.items():
            before = [one for one in merged.get(name, []) if one.added]
            if edit.added and before and (edit.alone or any(one.alone for one in before)):
                raise UserError(
                    sentence(
                        f"{step.source.path} and another LoRA change the same layer, and one of them is a DoRA.",
                        layer=name,
                        do="Give one of them, or the merged model: programs differ on how to combine them.",
                    )
                )
            merged.setdefault(name, []).append(edit)
    return merged


def _write(folder: Path, parent: ModelFiles, edits: dict[str, list[Edit]], steps: list[Format]) -> None:
    """Write a whole directory: the parent's files with these edits."""
    write_index(folder, parent.description)
    family = parent.description.family
    for part in family.parts:
        copy_settings(folder, part, parent.description)
    for part, stem in family.weights.items():
        if any(name.startswith(f"{part}.") for name in edits):
            write_part(folder / part / f"{stem}.safetensors", part, parent.parts[part], edits)
        else:
            copy_weights(folder, part, parent.description)
    for step in steps:
        step.settle(folder, parent)


def write_index(folder: Path, model: ModelDescription) -> None:
    """Write the model's model_index.json, without a safety checker."""
    index = read_json(model.directory / "model_index.json")
    index |= model.family.optional
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def copy_settings(folder: Path, part: str, model: ModelDescription) -> None:
    """Write a component's files other than its weights, with the bytes that were read."""
    (folder / part).mkdir()
    for name, data in model.data(part).items():
        (folder / part / name).write_bytes(data)


def copy_weights(folder: Path, part: str, model: ModelDescription) -> None:
    """Copy a component's weight files; UserError if their bytes are not those that were hashed."""
    weights = model.chosen[part]
    if weights.listing is not None:
        name, data = weights.listing
        (folder / part / name).write_bytes(data)
    for file in model.weights(part):
        shutil.copyfile(file.path, folder / part / file.path.name)
        if sha256_of(folder / part / file.path.name) != file.sha256:
            raise UserError(sentence(f"{file.path} was changed while it was read.", do="Give it again."))


def write_part(path: Path, part: str, files: list[TensorFile], edits: dict[str, list[Edit]]) -> None:
    """Write the part's weights as one file, even if the parent's are sharded."""
    described: list[Described] = []
    places: list[tuple[TensorFile, str, list[Edit]]] = []
    for file in files:
        for raw, entry in file.entries.items():
            changes = edits.get(f"{part}.{canonical(part, raw)}", []) if entry.floating else []
            rows = sum(edit.rows for edit in changes)
            shape = (entry.shape[0] + rows, *entry.shape[1:]) if rows else entry.shape
            described.append((raw, "F32" if changes else entry.dtype, shape))
            places.append((file, raw, changes))
    write_tensors(path, described, _values(part, places))


def _values(part: str, places: list[tuple[TensorFile, str, list[Edit]]]) -> Iterator[np.ndarray]:
    for file, raw, changes in places:
        if not changes:
            yield file.raw(raw)
            continue
        start = np.asarray(file.values(raw), np.float32)
        values = reduce(lambda found, edit: edit.apply(found), changes, start)
        if not is_finite(values):
            raise UserError(
                sentence(
                    "The candidate's weights become NaN or infinite when they are merged.",
                    first_tensor=f"{part}.{canonical(part, raw)}",
                    do="Give a LoRA whose numbers are finite in float32, or a smaller weight.",
                )
            )
        yield np.asarray(values, np.float32)


def located(directory: Path, name: str, digest: str) -> Base:
    """A directory as a Base, the start of a recipe."""
    return Base(digest=digest, name=name, location=str(directory.absolute()))
