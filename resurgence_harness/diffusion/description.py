"""One description of a model's files, from which loader, digest, lineage, audit and attestation take everything.

A model is a directory in diffusers' layout. `describe` reads its small files once and keeps their bytes, chooses the
weight files, and refuses whatever would leave open what the libraries load; nothing else in the directory is opened.

    model_index.json                                    classes are checked; changes no image
    unet · vae · text_encoder    config.json            and the weights:
    tokenizer                    tokenizer.json, or vocab.json and merges.txt; tokenizer_config.json,
                                 special_tokens_map.json, added_tokens.json where they are
    scheduler                    scheduler_config.json

**Weights**: <stem>.safetensors, or the shards that <stem>.safetensors.index.json names; without them the same in half
precision (<stem>.fp16.safetensors). Half-precision files beside the plain ones are usual on the hub, and so are pickles
(.bin) and files of further variants (non_ema): the plain ones are the model, the others are never opened.

**Refused** are a single file and an index of the same variant in one folder, shards that no index names, an index that
disagrees with its shards, adapters beside the weights (transformers would load them silently), names that differ from
one of the model's own in case or Unicode form alone, a second vocabulary that differs, and links that lead outside.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Component → stem of its weight files."""
SETTINGS = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": (
        "tokenizer_config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
}
"""Component → files beside the weights that change what the model computes."""
SCHEDULERS = {
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "DEISMultistepScheduler", "LCMScheduler", "TCDScheduler"),
}
"""diffusers' schedulers of discrete diffusion. Each says the same noise schedule, which DDIM is given here; those of
flow matching and of continuous noise say another."""
CLASSES = {
    "unet": ("diffusers", {"UNet2DConditionModel"}),
    "vae": ("diffusers", {"AutoencoderKL"}),
    "text_encoder": ("transformers", {"CLIPTextModel"}),
    "tokenizer": ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"}),
    "scheduler": ("diffusers", SCHEDULERS),
}
"""Component → library and classes that model_index.json may name; another would be the model's own code, or another
model."""
DOWNLOAD = "Give a local directory in diffusers' layout with safetensors weights, e.g. one saved by save_pretrained()."
CONFIG_LIMIT, TOKENIZER_LIMIT = 1_000_000, 20_000_000
"""Bytes of a config, and of a file of the tokenizer; Stable Diffusion's have 2 kB and up to 4 MB."""
_ADAPTERS = frozenset({"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})
_OTHER_VOCABULARIES = re.compile(r"tekken\.json|tokenizer\.model.*|tiktoken\.model|.*\.gguf")


class Role(Enum):
    """What a file is to its model."""

    WEIGHTS = "weights"
    CONFIG = "config"
    TOKENIZER = "tokenizer"
    SCHEDULER = "scheduler"


@dataclass(frozen=True, kw_only=True)
class DescribedFile:
    """One file that can change an image."""

    name: str
    """Its place in the model: "unet/config.json"."""
    role: Role
    path: Path
    data: bytes | None = None
    """What was read, of a small file; None for weights."""

    @property
    def part(self) -> str:
        """The component: "unet", "tokenizer"."""
        return self.name.partition("/")[0]

    @cached_property
    def sha256(self) -> str:
        """Of its bytes, in hexadecimal; weights are read once for it."""
        return sha256_of(self.path) if self.data is None else hashlib.sha256(self.data).hexdigest()


class Weights(NamedTuple):
    """The weight files of one component."""

    files: list[Path]
    """One file, or the shards in the order of their names."""
    places: dict[str, str] | None = None
    """Tensor → shard, as the index says; None for one file."""
    listing: tuple[str, bytes] | None = None
    """Name and bytes of the index, as it was read; None for one file."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Every file of a model that can change an image, as found at one moment."""

    directory: Path
    files: tuple[DescribedFile, ...]
    """In the order of their names."""
    chosen: Mapping[str, Weights]
    """Component → its weight files."""

    def weights(self, part: str) -> list[DescribedFile]:
        """The weight files of "unet", "vae" or "text_encoder"."""
        return [file for file in self.files if file.part == part and file.role is Role.WEIGHTS]

    def data(self, part: str) -> dict[str, bytes]:
        """The small files of a component: name within it → bytes."""
        return {file.path.name: file.data for file in self.files if file.part == part and file.data is not None}

    def config(self, part: str) -> dict[str, Any]:
        """The parsed config of "unet", "vae", "text_encoder" or "scheduler"; read anew, so it may be changed."""
        name = SETTINGS[part][0]
        return parse_json(self.data(part)[name], self.directory / part / name)

    @property
    def hashes(self) -> dict[str, str]:
        """Name of a file → its sha256: what lineage, attestation and digest are made of."""
        return {file.name: file.sha256 for file in self.files}

    @property
    def digest(self) -> str:
        """What this model is."""
        return digest_of_files(self.hashes)

    def open_part(self, part: str) -> list[TensorFile]:
        """The weight files of a component, their headers read and checked; no tensor lies in two of them."""
        return open_weights(self.chosen[part], self.directory)


def digest_of_files(hashes: Mapping[str, str]) -> str:
    """sha256 over the sorted list of (file, sha256)."""
    total = hashlib.sha256()
    for name in sorted(hashes):
        total.update(f"{name} {hashes[name]}\n".encode())
    return total.hexdigest()


def describe(directory: str | Path) -> ModelDescription:
    """Read what a model's directory holds; a one-sentence UserError where that is not one whole model."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(sentence(f"There is no base model at {directory}.", do=DOWNLOAD))
    _refuse_lookalikes(directory, directory, {*SETTINGS, "model_index.json"})
    _check_index(_json(directory / "model_index.json", directory), directory)
    files: list[DescribedFile] = []
    chosen: dict[str, Weights] = {}
    for part, names in SETTINGS.items():
        folder = directory / part
        _refuse_lookalikes(folder, directory, names)
        role = {"tokenizer": Role.TOKENIZER, "scheduler": Role.SCHEDULER}.get(part, Role.CONFIG)
        if part == "tokenizer":
            small = tokenizer_files(directory)
        else:
            small = {name: _bytes(folder / name, directory, CONFIG_LIMIT) for name in names}
        files += [
            DescribedFile(name=f"{part}/{name}", role=role, path=folder / name, data=data)
            for name, data in small.items()
        ]
        if part in WEIGHTS:
            chosen[part] = weights_at(folder, directory, WEIGHTS[part])
            files += [
                DescribedFile(name=f"{part}/{path.name}", role=Role.WEIGHTS, path=path) for path in chosen[part].files
            ]
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return ModelDescription(directory=directory, files=ordered, chosen=chosen)


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """The files of a model's tokenizer, read: name within tokenizer/ → bytes."""
    folder = directory / "tokenizer"
    for name in _names(folder):
        if _OTHER_VOCABULARIES.fullmatch(name):
            raise _ambiguous(folder, f"{shown(name)}, the vocabulary of another kind of tokenizer")
    # Without tokenizer_config.json the names of the special tokens would be a guess.
    there = [name for name in SETTINGS["tokenizer"] if name == "tokenizer_config.json" or _present(folder / name)]
    return {name: _bytes(folder / name, directory, TOKENIZER_LIMIT) for name in there}


def weights_at(folder: Path, directory: Path, stem: str) -> Weights:
    """The weight files in a folder of a model, by the rule above."""
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
            raise _ambiguous(folder, " and ".join(there) + ": two sets of weights, of which libraries take either")
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
                do=f"Convert it, which reads it with torch's weights_only=True: {conversion(directory)}",
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
    """Names of an index of shards: <stem>.safetensors.index[.fp16].json or <stem>[.fp16].safetensors.index.json."""
    return list(dict.fromkeys([f"{stem}.safetensors.index{dotted}.json", f"{stem}{dotted}.safetensors.index.json"]))


def _shard_of(stem: str, dotted: str) -> re.Pattern[str]:
    numbers = r"-\d+-of-\d+"
    return re.compile(
        rf"{re.escape(stem)}(?:{re.escape(dotted)}{numbers}|{numbers}{re.escape(dotted)})\.safetensors", re.IGNORECASE
    )


def _shards(index: Path, names: set[str], directory: Path) -> list[Path]:
    """The files that a shard index names, sorted: plain names beside it, each there, none leading elsewhere."""
    odd = sorted(name for name in names if not name.isprintable() or name != Path(name).name)
    if odd or not names or any(not name.endswith(".safetensors") for name in names):
        raise UserError(
            sentence(
                f"The shard index {index} names no plain safetensors files.",
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
    """Tensor → shard, as an index says; empty where it says nothing of the kind."""
    places = parse_json(data, path).get("weight_map")
    fits = isinstance(places, dict) and all(isinstance(value, str) for value in places.values())
    return dict(places) if fits and places is not None else {}


def open_weights(weights: Weights, directory: Path) -> list[TensorFile]:
    """Headers of one component's files; shards agree with their index, tensor for tensor."""
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
                f"The shard index in {weights.files[0].parent} does not say what its shards hold.",
                tensor=shown(odd),
                index=shown(weights.places.get(odd, "does not name it")),
                found_in=shown(seen.get(odd, "no shard")),
                do=DOWNLOAD,
            )
        )
    return files


def _check_index(index: Mapping[str, Any], directory: Path) -> None:
    """Raise unless model_index.json names a Stable Diffusion of the libraries' own classes."""
    kind = index.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise UserError(
            sentence(
                f"The base at {directory} is not a Stable Diffusion.",
                model_index=f"_class_name is {shown(repr(kind))}",
                expected="'StableDiffusionPipeline' (v1.x or v2.x)",
                do="Give a Stable Diffusion v1 or v2 model; SDXL, SD 3 and Flux have other text encoders.",
            )
        )
    for component, (library, allowed) in CLASSES.items():
        named = index.get(component, [library, *allowed][:2])
        if not isinstance(named, list) or len(named) != 2 or named[0] != library or named[1] not in allowed:
            raise UserError(
                sentence(
                    f"The base at {directory} has a {component} of another class.",
                    model_index=shown(str(named)),
                    expected=f"{library}'s {' or '.join(sorted(allowed))}",
                    do="Give a Stable Diffusion v1 or v2 model; code that comes with a model is never run.",
                )
            )


def _json(path: Path, directory: Path, limit: int = CONFIG_LIMIT) -> dict[str, Any]:
    """A JSON object of a model, or a UserError that names the file."""
    return parse_json(_bytes(path, directory, limit), path)


def _bytes(path: Path, directory: Path, limit: int) -> bytes:
    check_inside(path, directory)
    name = path.relative_to(directory).as_posix()
    missing = sentence(f"The base at {directory} is not a Stable Diffusion: {name} is missing.", do=DOWNLOAD)
    return read_bytes(path, limit=limit, missing=missing)


def _present(path: Path) -> bool:
    """Whether a name is there, be it a link that leads nowhere."""
    return os.path.lexists(path)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _refuse_lookalikes(folder: Path, directory: Path, wanted: Collection[str]) -> None:
    """Raise where a name is one of the model's own but for case or Unicode form: elsewhere it would be that file."""
    own = {_folded(name): name for name in wanted}
    for name in _names(folder):
        if (meant := own.get(_folded(name))) is not None and name not in wanted:
            raise _ambiguous(folder, f"{shown(name)}, which is {meant} where case does not count")


def _ambiguous(folder: Path, found: str) -> UserError:
    return UserError(
        sentence(
            f"What the model's {folder.name}/ holds can be read in two ways.",
            folder=folder,
            found=found,
            do="Leave the files that save_pretrained() wrote, and remove the others.",
        )
    )


__all__ = [
    "CLASSES",
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
