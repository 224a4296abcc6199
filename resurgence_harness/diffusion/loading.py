"""Builds a model's parts from the bytes that are hashed: each described file is read once.

The libraries' own loaders choose which files they open; here they get resolved settings and build empty modules, which
are filled tensor by tensor from the described files, hashed while they are read. So a file that is exchanged between
the check of a model and its loading is noticed: either the bytes read have the requested digest, or no model is
returned. The result is bit for bit what from_pretrained() gives in float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.base_files import canonical, check_settings, check_tensors
from resurgence_harness.diffusion.description import ModelDescription, describe, digest_of_files
from resurgence_harness.diffusion.families import TextReader
from resurgence_harness.diffusion.tensor_files import TensorFile, is_index, reading, shown
from resurgence_harness.diffusion.tokenizing import tokenizer_of
from resurgence_harness.errors import BuildError, UserError, sentence

if TYPE_CHECKING:
    import torch

PLACES = "embeddings.position_ids"
"""The only buffer that no file holds: a text encoder's positions 0, 1, 2, …"""


class Exchanged(UserError):
    """The bytes that were read do not have the requested digest."""

    def __init__(self, directory: Path, *, wanted: str, found: str) -> None:
        self.found = found
        super().__init__(
            sentence(
                f"The files of the base at {directory} are not those that were checked.",
                wanted=wanted,
                found=found,
                do="They were changed or replaced; give the base again.",
            )
        )


def load_parts(directory: Path, digest: str = "") -> dict[str, Any]:
    """unet, vae and text encoders in float32, frozen, on the CPU; tokenizers; family; index; scheduler (DDIM, whatever
    the model names).

    UserError if the files are not a Stable Diffusion, or do not have `digest` where one is given.
    """
    import torch

    description = describe(directory)
    settings, family = check_settings(description), description.family
    hashes = {file.name: file.sha256 for file in description.files if file.data is not None}
    parts: dict[str, Any] = {}
    with _reading(directory), torch.random.fork_rng(devices=[]):
        for part in family.weights:
            files = description.open_part(part)
            check_tensors(part, files, settings[part], directory)
            parts[part] = _empty(part, settings[part], family.reader(part))
            hashes |= _fill(parts[part], part, files)
        parts["scheduler"] = _scheduler(settings["scheduler"])
    if digest and (found := digest_of_files(hashes)) != digest:
        raise Exchanged(directory, wanted=digest, found=found)
    tokenizers = {one.tokenizer: _tokenizer(description, settings, one) for one in family.readers}
    _check_alike(tokenizers, directory)
    return {**parts, **tokenizers, "family": family, "index": description.index}


def _check_alike(tokenizers: Mapping[str, Any], directory: Path) -> None:
    """UserError unless all tokenizers split a text into the same tokens: places of a name are counted once."""
    (first, one), *others = tokenizers.items()
    for name, other in others:
        if one.get_vocab() != other.get_vocab() or one.model_max_length != other.model_max_length:
            raise UserError(
                sentence(
                    f"The tokenizers of the base at {directory} split texts in different ways.",
                    **{
                        part: f"{len(found):,} tokens, {found.model_max_length} per text"
                        for part, found in ((first, one), (name, other))
                    },
                    do="Give a model whose tokenizers have the same vocabulary, as those of Stable Diffusion XL.",
                )
            )


def _empty(part: str, settings: Mapping[str, Any], reader: TextReader | None = None) -> Any:
    """A module with these settings, its memory allocated but not initialised."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        if reader is not None:
            import transformers

            named = transformers.CLIPTextConfig(**settings, dtype="float32", architectures=[reader.kind])
            module: Any = getattr(transformers, reader.kind)(named)
        else:
            kind: Any = UNet2DConditionModel if part == "unet" else AutoencoderKL
            module = kind.from_config({**settings, "_class_name": kind.__name__})
    module = module.to_empty(device="cpu").float()
    for name, buffer in module.named_buffers():
        if name != (reader.prefix if reader else "") + PLACES:
            raise BuildError(sentence(f"The {part} has a buffer that no file holds.", buffer=name))
        buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return module.requires_grad_(False).eval()


def _fill(module: Any, part: str, files: list[TensorFile]) -> dict[str, str]:
    """Copy every tensor of the files into the module; returns name of each file → sha256 of the bytes read.

    The module's memory is torch's own and contiguous. In a memory-mapped file numbers may lie at any address, and
    kernels may round differently there, so a model and its copy would differ in the last bit.
    """
    import torch

    places = module.state_dict()
    hashes, filled = {}, set()
    for file in files:
        total = hashlib.sha256()
        for entry, data in reading(file, total):
            name = canonical(part, entry.name)
            if is_index(entry.name):
                continue
            place = places.get(name)
            if place is None or tuple(place.shape) != entry.shape:
                raise BuildError(sentence(f"The {part} was built without a place for {shown(name)}.", file=file.path))
            with torch.no_grad():
                place.copy_(_tensor(data, entry.dtype).reshape(entry.shape))
            filled.add(name)
        hashes[f"{part}/{file.path.name}"] = total.hexdigest()
    if missing := sorted(places.keys() - filled):
        raise BuildError(sentence(f"The {part} was built with tensors that no file holds.", first=missing[0]))
    return hashes


def _tensor(data: bytearray, dtype: str) -> torch.Tensor:
    """The values of a tensor, flat, in the file's type."""
    import torch

    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    kinds |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    if dtype not in kinds:
        raise UserError(
            sentence(
                f"Weights of the type {dtype} cannot be loaded.",
                do="Give weights in float32, float16 or bfloat16; quantised ones cannot be judged here.",
            )
        )
    return torch.frombuffer(data, dtype=kinds[dtype]) if data else torch.empty(0)


def _scheduler(settings: Mapping[str, Any]) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    # SD's latents must not be clipped to [-1, 1]; that is DDIM's default if a file, as PNDM's, does not set it.
    return DDIMScheduler.from_config({**settings, "clip_sample": False, "_class_name": "DDIMScheduler"})


def _tokenizer(description: ModelDescription, settings: Mapping[str, Mapping[str, Any]], reader: TextReader) -> Any:
    folder = description.directory / reader.tokenizer
    tokenizer = tokenizer_of(description.data(reader.tokenizer), folder)
    size, places = len(tokenizer), settings[reader.encoder]["vocab_size"]
    # transformers can build a tokenizer that maps every word to <unk> without an error; this check notices it.
    if not places // 2 < size <= places:
        raise UserError(
            sentence(
                f"The {reader.tokenizer} of the base at {description.directory} does not belong to its text encoder.",
                tokenizer=f"{size:,} tokens",
                text_encoder=f"{places:,} embeddings",
                do="Give the tokenizer's vocab.json and merges.txt, or its tokenizer.json, of the same model.",
            )
        )
    length = settings[reader.encoder]["max_position_embeddings"]
    tokenizer.model_max_length = min(tokenizer.model_max_length, length)
    return tokenizer


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """Any error that a library raises for settings that passed the checks becomes a UserError."""
    try:
        yield
    except (UserError, BuildError, MemoryError):
        raise
    except Exception as problem:
        raise UserError(
            sentence(
                f"The base at {directory} cannot be loaded.",
                problem=shown(next(iter(str(problem).strip().splitlines()), type(problem).__name__), limit=300),
                do="Give a Stable Diffusion in diffusers' layout; check it with its pipeline in diffusers.",
            )
        ) from problem
