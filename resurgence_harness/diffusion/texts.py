"""Whether a base can read what it is asked: its tokenizer's file alone tells, without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from resurgence_harness.errors import UserError, sentence


def check_texts(base: Path, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> tuple[int, int]:
    """UserError for a text that the base's tokenizer cannot represent, or that is too long for it; without torch.

    Gives how many of those that may be cut are too long, and how many tokens the base reads.
    """
    file = base / "tokenizer" / "tokenizer.json"
    if not file.is_file():  # vocab.json and merges.txt: SD's byte-level vocabulary represents everything
        return _count_cut(file.parent, may_be_cut) if may_be_cut else (0, 0)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    settings = json.loads((base / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    unknown, longest = settings.get("unk_token"), settings.get("model_max_length")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    tokenizer.no_truncation()
    tokenizer.no_padding()
    cut = 0
    for text in texts:
        # Without begin and end: SD's own unknown token is the end token, which every text has.
        tokens = tokenizer.encode(text, add_special_tokens=False).tokens
        if unknown and unknown in tokens:
            raise UserError(
                sentence(
                    f'The base\'s tokenizer cannot represent "{text}".',
                    tokens=" ".join(tokens),
                    do="Use names made of letters that the base was trained with, or another base.",
                )
            )
        length = len(tokens) + tokenizer.num_special_tokens_to_add(is_pair=False)
        if isinstance(longest, int) and length > longest:
            if text in may_be_cut:
                cut += 1
                continue
            raise UserError(
                sentence(f'"{text}" has {length} tokens; the base reads {longest}.', do="Use shorter names.")
            )
    return cut, longest if isinstance(longest, int) else 0


def _count_cut(folder: Path, texts: Collection[str]) -> tuple[int, int]:
    """How many texts are longer than a tokenizer of vocab.json and merges.txt reads, and how long that is."""
    from transformers import CLIPTokenizer  # which imports no torch either

    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    found = tokenizer(sorted(texts), verbose=False).input_ids
    return sum(len(ids) > tokenizer.model_max_length for ids in found), tokenizer.model_max_length
