"""Whether a base can read what it is asked: its tokenizer's file alone tells, without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from resurgence_harness.errors import UserError, sentence


def check_texts(base: Path, texts: Sequence[str]) -> None:
    """UserError for a text that the base's tokenizer cannot represent, or that is too long for it; without torch."""
    file = base / "tokenizer" / "tokenizer.json"
    if not file.is_file():
        return  # vocab.json and merges.txt: SD's byte-level vocabulary represents everything
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    settings = json.loads((base / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    unknown, longest = settings.get("unk_token"), settings.get("model_max_length")
    unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
    special = {settings.get("eos_token"), settings.get("bos_token")} - {unknown}
    tokenizer.no_truncation()
    for text in texts:
        encoded = tokenizer.encode(text)
        if unknown and unknown not in special and unknown in encoded.tokens:
            raise UserError(
                sentence(
                    f'The base\'s tokenizer cannot represent "{text}".',
                    tokens=" ".join(encoded.tokens),
                    do="Use names made of letters that the base was trained with, or another base.",
                )
            )
        if isinstance(longest, int) and len(encoded.ids) > longest:
            raise UserError(
                sentence(f'"{text}" has {len(encoded.ids)} tokens; the base reads {longest}.', do="Use shorter names.")
            )
