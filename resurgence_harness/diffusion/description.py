"""One description of a model's files, which loader, digest, lineage, audit and attestation all use.

A model is a directory in diffusers' layout. `describe` reads its small files once and keeps their bytes, chooses the
weight files, and refuses a directory that libraries could load in different ways; no other file is opened.

    model_index.json                                    the family; classes are checked. Changes images of SDXL alone
    unet · vae · text_encoder(s) config.json            and the weights:
    tokenizer(s)                 tokenizer.json, or vocab.json and merges.txt; tokenizer_config.json,
                                 special_tokens_map.json, added_tokens.json if present
    scheduler                    scheduler_config.json

**Weights**: <stem>.safetensors, or the shards that <stem>.safetensors.index.json names; without them the same in half
precision (<stem>.fp16.safetensors). Half-precision files beside the plain ones are common on the hub, and so are
pickles (.bin) and other variants (non_ema): the plain files are the model, the others are never opened.

**Refused** are a single file and an index of the same variant in one folder, shards that no index names, an index that
disagrees with its shards, adapters beside the weights (transformers would load them silently), names that differ from
one of the model's files only in case or Unicode form, a second vocabulary that differs, and links out of the directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.diffusion.families import FAMILIES, SD, TOKENIZER, Family, family_of
from resurgence_harness.diffusion.tensor_files import (
    PICKLES,
    TensorFile,
    check_inside,
    conversion,
    parse_json,
    read_bytes,
    read_header,
    sha256_of,
    shown,
)
from resurgence_harness.errors import UserError, sentence

WEIGHTS = SD.weights
"""Component → stem of its weight files, of Stable Diffusion v1 and v2 (`Family.weights`)."""
SETTINGS = SD.settings
"""Component → files beside the weights that change what the model computes, of the same (`Family.settings`)."""
INDEX = "model_index.json"
DOWNLOAD = "Give a local directory in diffusers' layout with safetensors weights, e.g. one saved by save_pretrained()."
CONFIG_LIMIT, TOKENIZER_LIMIT = 1_000_000, 20_000_000
"""Largest size in bytes of a config and of a tokenizer file; Stable Diffusion's have 2 kB and up to 4 MB."""
_ADAPTERS = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})
_OTHER_VOCABULARIES = re.compile(r"tekken\.json|tokenizer\.model.*|tiktoken\.model|.*\.gguf")


class Role(Enum):
    """The purpose of a model's file."""

    WEIGHTS = "weights"
    CONFIG = "config"
    TOKENIZER = "tokenizer"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, kw_only=True)
class DescribedFile:
    """One file that can change an image."""

    name: str
    """Its path within the model: "unet/config.json"."""
    role: Role
    path: Path
    data: bytes | None = None
    """The bytes of a small file; None for weights."""

    @property
    def part(self) -> str:
        """The component: "unet", "tokenizer"."""
        return self.name.partition("/")[0]

    @cached_property
    def sha256(self) -> str:
        """sha256 of its bytes, in hexadecimal; weights are read once for it."""
        return sha256_of(self.path) if self.data is None else hashlib.sha256(self.data).hexdigest()


class Weights(NamedTuple):
    """The weight files of one component."""

    files: list[Path]
    """One file, or the shards in the order of their names."""
    places: dict[str, str] | None = None
    """Tensor → shard, from the index; None for one file."""
    listing: tuple[str, bytes] | None = None
    """Name and bytes of the index; None for one file."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Every file of a model that can change an image, as found by one call of `describe`."""

    directory: Path
    files: tuple[DescribedFile, ...]
    """In the order of their names."""
    chosen: Mapping[str, Weights]
    """Component → its weight files."""
    family: Family = SD
    """Which components there are, and how they are read."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """The family's settings in model_index.json."""

    def weights(self, part: str) -> list[DescribedFile]:
        """The weight files of "unet", "vae" or a text encoder."""
        return [file for file in self.files if file.part == part and file.role is Role.WEIGHTS]

    def data(self, part: str) -> dict[str, bytes]:
        """The small files of a component: name within it → bytes."""
        return {file.path.name: file.data for file in self.files if file.part == part and file.data is not None}

    def config(self, part: str) -> dict[str, Any]:
        """The parsed config of "unet", "vae", a text encoder or "scheduler"; a new dict, so it may be changed."""
        name = self.family.settings[part][0]
        return parse_json(self.data(part)[name], self.directory / part / name)

    @property
    def hashes(self) -> dict[str, str]:
        """Name of a file → its sha256; used by lineage, attestation and digest."""
        return {file.name: file.sha256 for file in self.files}

    @property
    def digest(self) -> str:
        """The model's digest, see `digest_of_files`."""
        return digest_of_files(self.hashes)

    def open_part(self, part: str) -> list[TensorFile]:
        """The weight files of a component, their headers read and checked; UserError if a tensor is in two of them."""
        return open_weights(self.chosen[part], self.directory)


def digest_of_files(hashes: Mapping[str, str]) -> str:
    """sha256 over the sorted list of (file, sha256)."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(f"{name} {hashes[name]}\n".encode())
    return total.hexdigest()


def describe(directory: str | Path) -> ModelDescription:
    """Describe a model's directory; UserError unless it holds exactly one complete model."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(sentence(f"There is no base model at {directory}.", do=DOWNLOAD))
    raw = _bytes(directory / INDEX, directory, CONFIG_LIMIT)
    index = parse_json(raw, directory / INDEX)
    family = _checked_family(index, directory)
    _refuse_lookalikes(directory, directory, {*family.settings, INDEX})
    files: list[DescribedFile] = []
    chosen: dict[str, Weights] = {}
    if family.index:  # it has settings that change images
        files.append(DescribedFile(name=INDEX, role=Role.CONFIG, path=directory / INDEX, data=raw))
    roles = {**dict.fromkeys(family.tokenizers, Role.TOKENIZER), "scheduler": Role.SCHEDULER}
    for part, names in family.settings.items():
        folder = directory / part
        _refuse_lookalikes(folder, directory, names)
        role = roles.get(part, Role.CONFIG)
        if part in family.tokenizers:
            small = tokenizer_files(directory, part)
        else:
            small = {name: _bytes(folder / name, directory, CONFIG_LIMIT) for name in names}
        files += [
            DescribedFile(name=f"{part}/{name}", role=role, path=folder / name, data=data)
            for name, data in small.items()
        ]
        if part in family.weights:
            chosen[part] = weights_at(folder, directory, family.weights[part])
            files += [
                DescribedFile(name=f"{part}/{path.name}", role=Role.WEIGHTS, path=path) for path in chosen[part].files
            ]
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return ModelDescription(
        directory=directory, files=ordered, chosen=chosen, family=family, index=family.written(index)
    )


def tokenizer_files(directory: Path, part: str = "tokenizer") -> dict[str, bytes]:
    """The contents of a model's tokenizer files: name within its folder → bytes."""
    folder = directory / part
    for name in _names(folder):
        if _OTHER_VOCABULARIES.fullmatch(name):
            raise _ambiguous(folder, f"{shown(name)}, the vocabulary of another kind of tokenizer")
    # Without tokenizer_config.json the names of the special tokens would be a guess.
    there = [name for name in TOKENIZER if name == "tokenizer_config.json" or _present(folder / name)]
    return {name: _bytes(folder / name, directory, TOKENIZER_LIMIT) for name in there}


def weights_at(folder: Path, directory: Path, stem: str) -> Weights:
    """The weight files in a folder of a model, chosen by the module's rule; UserError if there are none or several."""
    names = _names(folder)
    if found := sorted(_ADAPTERS & set(names)):
        raise _ambiguous(folder, f"{found[0]}: an adapter beside the weights, which transformers would load silently")
    wanted = [f"{stem}{dotted}.safetensors" for dotted in ("", ".fp16")]
    wanted += [index for dotted in ("", ".fp16") for index in _indices(stem, dotted)]
    _refuse_lookalikes(folder, directory, wanted)
    for dotted in ("", ".fp16"):
        single = f"{stem}{dotted}.safetensors"
        there = [name for name in (single, *_indices(stem, dotted)) if name in names]
        shards = {name for name in names if _shard_of(stem, dotted).fullmatch(name)}
        if len(there) > 1:
            raise _ambiguous(folder, " and ".join(there) + ": two sets of weights; libraries differ in which they load")
        places, files, listing = None, [], None
        if there and there[0] != single:
            listing = there[0], _bytes(folder / there[0], directory, TOKENIZER_LIMIT)
            places = _places(listing[1], folder / there[0])
            files = _shards(folder / there[0], set(places.values()), directory)
        elif there:
            check_inside(folder / single, directory)
            files = [folder / single]
        if left := sorted(shards - {path.name for path in files}):
            raise _ambiguous(folder, f"{shown(left[0])}, a shard that no index names")
        if files:
            return Weights(files, places, listing)
    pickles = sorted(name for name in names if Path(name).suffix.lower() in PICKLES)
    if pickles:
        raise UserError(
            sentence(
                f"The base at {directory} has only pickled weights in {folder.name}/.",
                found=shown(", ".join(pickles)),
                do=f"Convert it, which runs no code in the file: {conversion(directory)}",
            )
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    raise UserError(
        sentence(
            f"The base at {directory} is not a Stable Diffusion: it has no weights in {folder.name}/.",
            wanted=f"{stem}.safetensors",
            **({"found": shown(", ".join(others))} if others else {}),
            do=DOWNLOAD,
        )
    )


def _indices(stem: str, dotted: str) -> list[str]:
    """Names of a shard index: <stem>.safetensors.index[.fp16].json or <stem>[.fp16].safetensors.index.json."""
    return list(dict.fromkeys([f"{stem}.safetensors.index{dotted}.json", f"{stem}{dotted}.safetensors.index.json"]))


def _shard_of(stem: str, dotted: str) -> re.Pattern[str]:
    numbers = r"-\d+-of-\d+"
    return re.compile(
        rf"{re.escape(stem)}(?:{re.escape(dotted)}{numbers}|{numbers}{re.escape(dotted)})\.safetensors", re.IGNORECASE
    )


def _shards(index: Path, names: set[str], directory: Path) -> list[Path]:
    """The files that a shard index names, sorted; UserError unless each is a plain name and exists in its folder."""
    odd = sorted(name for name in names if not name.isprintable() or name != Path(name).name)
    if odd or not names or any(not name.endswith(".safetensors") for name in names):
        raise UserError(
            sentence(
                f"The shard index {index} does not list plain safetensors files.",
                names=shown(", ".join(odd or sorted(names)) or "nothing"),
                do="A shard is a file beside its index, e.g. diffusion_pytorch_model-00001-of-00002.safetensors.",
            )
        )
    _refuse_lookalikes(index.parent, directory, names)
    for name in sorted(names):
        if not (index.parent / name).is_file():
            raise UserError(
                sentence(f"The base at {directory} lacks the shard {index.parent.name}/{name}.", do=DOWNLOAD)
            )
        check_inside(index.parent / name, directory)
    return [index.parent / name for name in sorted(names)]


def _places(data: bytes, path: Path) -> dict[str, str]:
    """Tensor → shard from an index's weight_map; empty if that is missing or malformed."""
    places = parse_json(data, path).get("weight_map")
    fits = isinstance(places, dict) and all(isinstance(value, str) for value in places.values())
    return dict(places) if fits and places is not None else {}


def open_weights(weights: Weights, directory: Path) -> list[TensorFile]:
    """Headers of one component's files; UserError if shards share a tensor or disagree with their index."""
    files = [read_header(path) for path in weights.files]
    seen: dict[str, str] = {}
    for file in files:
        if twice := seen.keys() & file.entries.keys():
            raise UserError(
                sentence(
                    f"The base at {directory} has a tensor of its {file.path.parent.name} twice.",
                    tensor=shown(min(twice)),
                    second_time_in=file.path.name,
                    do=DOWNLOAD,
                )
            )
        seen |= dict.fromkeys(file.entries, file.path.name)
    if weights.places is not None and weights.places != seen:
        odd = min(weights.places.items() ^ seen.items())[0]
        raise UserError(
            sentence(
                f"The shard index in {weights.files[0].parent} does not match its shards.",
                tensor=shown(odd),
                index=shown(weights.places.get(odd, "does not name it")),
                found_in=shown(seen.get(odd, "no shard")),
                do=DOWNLOAD,
            )
        )
    return files


def _checked_family(index: Mapping[str, Any], directory: Path) -> Family:
    """The family of the pipeline that model_index.json names; UserError for another, or for other classes."""
    kind = index.get("_class_name")
    family = family_of(index)
    if family is None:
        raise UserError(
            sentence(
                f"The base at {directory} is not a Stable Diffusion.",
                model_index=f"_class_name is {shown(repr(kind))}",
                expected=" or ".join(f"'{one.pipeline}' ({one.name})" for one in FAMILIES),
                do=_OTHER.get(
                    str(kind), "Give a Stable Diffusion v1, v2 or XL; SD 3 and Flux have other text encoders."
                ),
            )
        )
    for component, (library, allowed) in family.classes.items():
        named = index.get(component, [library, *sorted(allowed)][:2])
        if not isinstance(named, list) or len(named) != 2 or named[0] != library or named[1] not in allowed:
            raise UserError(
                sentence(
                    f"The base at {directory} has a {component} of another class.",
                    model_index=shown(str(named)),
                    expected=f"{library}'s {' or '.join(sorted(allowed))}",
                    do=f"Give a {family.name} model; code that comes with a model is never run.",
                )
            )
    for name in family.index:
        if not isinstance(family.written(index)[name], bool):
            raise UserError(
                sentence(
                    f"The base at {directory} has a setting that no Stable Diffusion has.",
                    model_index=shown(f"{name} = {index[name]!r}"),
                    expected="true or false",
                    do="Give the model_index.json that save_pretrained() wrote.",
                )
            )
    return family


_OTHER = {
    "StableDiffusionXLImg2ImgPipeline": "A refiner finishes another model's images; give Stable Diffusion XL itself.",
    "StableDiffusionXLInpaintPipeline": "An inpainting model reads a mask; give the text-to-image model.",
    "StableDiffusionInpaintPipeline": "An inpainting model reads a mask; give the text-to-image model.",
    "StableDiffusionControlNetPipeline": "A ControlNet reads an image; give the text-to-image model without it.",
    "StableDiffusionXLControlNetPipeline": "A ControlNet reads an image; give the text-to-image model without it.",
}
"""Pipelines of Stable Diffusion that draw from more than a text → what to give instead."""


def _bytes(path: Path, directory: Path, limit: int) -> bytes:
    check_inside(path, directory)
    name = path.relative_to(directory).as_posix()
    missing = sentence(f"The base at {directory} is not a Stable Diffusion: {name} is missing.", do=DOWNLOAD)
    return read_bytes(path, limit=limit, missing=missing)


def _present(path: Path) -> bool:
    """True if the path exists, broken links included."""
    return os.path.lexists(path)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _refuse_lookalikes(folder: Path, directory: Path, wanted: Collection[str]) -> None:
    """UserError if a name differs from a model's file only in case or Unicode form: some file systems confuse them."""
    own = {_folded(name): name for name in wanted}
    for name in _names(folder):
        if (meant := own.get(_folded(name))) is not None and name not in wanted:
            raise _ambiguous(folder, f"{shown(name)}, which some file systems take for {meant}")


def _ambiguous(folder: Path, found: str) -> UserError:
    return UserError(
        sentence(
            f"The contents of the model's {folder.name}/ are ambiguous.",
            folder=folder,
            found=found,
            do="Keep the files that save_pretrained() wrote, and remove the others.",
        )
    )


__all__ = [
    "DOWNLOAD",
    "SETTINGS",
    "WEIGHTS",
    "DescribedFile",
    "ModelDescription",
    "Role",
    "Weights",
    "describe",
    "digest_of_files",
    "open_weights",
    "tokenizer_files",
    "weights_at",
]
