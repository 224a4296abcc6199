"""Checks prompts with a base's tokenizer, without torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from resurgence_harness.diffusion.base_files import check_settings
from resurgence_harness.diffusion.description import describe, tokenizer_files
from resurgence_harness.diffusion.tokenizing import check_tokenizer, tokenizer_of
from resurgence_harness.errors import UserError, sentence

PARTS = 256
"""Texts per call of the tokenizer."""


def check_texts(base: Path, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> tuple[int, int]:
    """UserError for a text that the base's tokenizer cannot represent, or that is too long and not in `may_be_cut`.

    `base` is a model's directory, or one that has only a tokenizer. Returns how many texts of `may_be_cut` are too
    long, and how many tokens the base reads.
    """
    if (base / "model_index.json").exists():
        description = describe(base)
        settings, family = check_settings(description), description.family
        # The tokenizers of a model have the same vocabulary (loading.py); the shortest decides.
        room = min(int(settings[part]["max_position_embeddings"]) for part in family.encoders)
        files = description.data("tokenizer")
    else:
        files, room = tokenizer_files(base), None
        check_tokenizer(files, base / "tokenizer")
    tokenizer = tokenizer_of(files, base / "tokenizer")
    longest = tokenizer.model_max_length if room is None else min(room, tokenizer.model_max_length)
    unknown = tokenizer.unk_token_id
    cut = 0
    for low in range(0, len(texts), PARTS):
        some = list(texts[low : low + PARTS])
        # Without begin and end: SD's own unknown token is the end token, which every text has.
        for text, ids in zip(some, tokenizer(some, add_special_tokens=False, verbose=False).input_ids, strict=True):
            if unknown in ids:
                raise UserError(
                    sentence(
                        f'The base\'s tokenizer cannot represent "{text}".',
                        tokens=" ".join(tokenizer.convert_ids_to_tokens(ids)),
                        do="Use names made of letters that the base was trained with, or another base.",
                    )
                )
            length = len(ids) + tokenizer.num_special_tokens_to_add()
            if length <= longest:
                continue
            if text not in may_be_cut:
                raise UserError(
                    sentence(f'"{text}" has {length} tokens; the base reads {longest}.', do="Use shorter names.")
                )
            cut += 1
    return cut, longest
