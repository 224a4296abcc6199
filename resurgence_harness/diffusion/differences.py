"""How a model differs from its parent, apart from the U-Net's weights.

    settings_difference("candidate", "unlearned")  →  ("tokenizer: 10 tokens have other ids, first 'alba</w>'", …)

Configs are compared with their defaults filled in, tokenizers as transformers builds them, and the VAE by its weights.
Differences that cannot change an image are ignored: provenance and versions, the scheduler's class (images are always
drawn with DDIM), settings marked so in `settings.SETTINGS`, the number of embedding rows (the tokenizer decides which
are read), rounding of one file to half precision, and how the files spell the vocabulary. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.base_files import Settings, check_settings
from resurgence_harness.diffusion.description import ModelDescription
from resurgence_harness.diffusion.families import TextReader
from resurgence_harness.diffusion.lineage import same_numbers
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.settings import differing
from resurgence_harness.diffusion.tokenizing import tokenizer_of
from resurgence_harness.errors import shown

NAMED = 3
"""How many differing tokens are listed; further ones are only counted."""


def settings_difference(child: str | Path | ModelFiles, parent: str | Path | ModelFiles) -> tuple[str, ...]:
    """The differences, each a phrase that begins with its component; empty if none can change an image."""
    ours, theirs = (one if isinstance(one, ModelFiles) else ModelFiles(one) for one in (child, parent))
    family = ours.description.family
    if family is not theirs.description.family:
        return (f"model_index.json: it is of {family.name}, the parent of {theirs.description.family.name}",)
    mine, other = check_settings(ours.description), check_settings(theirs.description)
    found = [
        phrase
        for reader in family.readers
        for phrase in _tokenizers(reader, ours.description, theirs.description, mine, other)
    ]
    found += [
        f"model_index.json: {name} is {value}, the parent's {theirs.description.index[name]}"
        for name, value in ours.description.index.items()
        if value != theirs.description.index[name]
    ]
    for part in family.settings:
        if part not in family.tokenizers:
            found += [
                f"{part}: {name} is {shown(str(mine[part][name]))}, the parent's {shown(str(other[part][name]))}"
                for name in differing(part, mine[part], other[part])
            ]
    return (*found, *weights_difference(ours, theirs, "vae"))


def weights_difference(child: ModelFiles, parent: ModelFiles, part: str) -> tuple[str, ...]:
    """One phrase if weights of a part differ; empty if they are equal up to rounding to half precision."""
    names = sorted({name for files in (child, parent) for name in files if name.startswith(f"{part}.")})
    moved = [
        name for name in names if not (name in child and name in parent and same_numbers(child[name], parent[name]))
    ]
    first = moved[0].removeprefix(f"{part}.") if moved else ""
    return (f"{part}: {len(moved)} of {len(names)} tensors of its weights, first {first}",) if moved else ()


def _tokenizers(
    reader: TextReader, ours: ModelDescription, theirs: ModelDescription, mine: Settings, other: Settings
) -> Iterator[str]:
    """Differences in how two tokenizers encode text."""
    phrases = _differing_tokenizers(reader, ours, theirs, mine, other)
    yield from (phrase.replace("tokenizer:", f"{reader.tokenizer}:", 1) for phrase in phrases)


def _differing_tokenizers(
    reader: TextReader, ours: ModelDescription, theirs: ModelDescription, mine: Settings, other: Settings
) -> Iterator[str]:
    name = reader.tokenizer
    places = [settings[reader.encoder]["max_position_embeddings"] for settings in (mine, other)]
    if ours.data(name) == theirs.data(name) and places[0] == places[1]:
        return
    built = [tokenizer_of(one.data(name), one.directory / name) for one in (ours, theirs)]
    parsed = [json.loads(one.backend_tokenizer.to_str()) for one in built]
    yield from _vocabularies(*(one["model"] for one in parsed))
    yield from _added(*(one["added_tokens"] for one in parsed))
    rules = ("normalizer", "pre_tokenizer", "post_processor")
    yield from (f"tokenizer: {name}" for name in rules if parsed[0][name] != parsed[1][name])
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        a, b = ((getattr(one, name), getattr(one, f"{name}_id")) for one in built)
        if a != b:
            yield f"tokenizer: {name} is {shown(str(a[0]))!r}, id {a[1]}; the parent's {shown(str(b[0]))!r}, id {b[1]}"
    for name in ("padding_side", "truncation_side", "split_special_tokens"):
        if getattr(built[0], name) != getattr(built[1], name):
            yield f"tokenizer: {name} is {getattr(built[0], name)}, the parent's {getattr(built[1], name)}"
    a, b = (min(one.model_max_length, length) for one, length in zip(built, places, strict=True))
    if a != b:
        yield f"tokenizer: it reads {a} tokens, the parent's {b}"


def _vocabularies(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    mine, other = ours["vocab"], theirs["vocab"]
    moved = [token for token in mine if token in other and mine[token] != other[token]]
    if moved:
        yield f"tokenizer: {len(moved)} tokens have other ids, {_first(moved)}"
    if extra := [token for token in mine if token not in other]:
        yield f"tokenizer: {len(extra)} tokens that are not in the parent's vocabulary, {_first(extra)}"
    if missing := [token for token in other if token not in mine]:
        yield f"tokenizer: {len(missing)} tokens of the parent's vocabulary are missing, {_first(missing)}"
    pairs = list(zip_longest(ours["merges"], theirs["merges"]))
    if odd := [one for one, twin in pairs if one != twin]:
        yield f"tokenizer: {len(odd)} merges differ or are in another order"
    rest = {name for name in ours if name not in ("vocab", "merges") and ours[name] != theirs.get(name)}
    yield from (f"tokenizer: model.{name}" for name in sorted(rest))


def _added(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Iterator[str]:
    mine, other = ({token["content"]: token for token in tokens} for tokens in (ours, theirs))
    if extra := [token for token in mine if token not in other]:
        yield f"tokenizer: {len(extra)} added tokens, {_first(extra)}"
    if missing := [token for token in other if token not in mine]:
        yield f"tokenizer: {len(missing)} of the parent's added tokens are missing, {_first(missing)}"
    if changed := [token for token in mine if token in other and mine[token] != other[token]]:
        yield f"tokenizer: {len(changed)} added tokens have other settings, {_first(changed)}"


def _first(tokens: list[str]) -> str:
    named = ", ".join(repr(shown(token, limit=40)) for token in tokens[:NAMED])
    return f"first {named}" if len(tokens) > NAMED else named
