"""A textual-inversion embedding: new tokens for the tokenizer, each with a vector for the text encoder.

    {"<token>": [d] or [n, d]}         diffusers
    {"emb_params": [n, d]}             web interfaces: the token is the file's name

Only prompts that contain the token are affected; with n vectors it is written "token token_1 … token_(n-1)", as
diffusers expands it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from resurgence_harness.diffusion.formats.contract import OTHER_BASE, Changes, Edit, Format
from resurgence_harness.diffusion.formats.predicting import check_prediction
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

PLACE = "text_encoder.embeddings.token_embedding.weight"
VECTORS, LETTERS = 75, 64
"""Most vectors of one token (a prompt has 75 positions), and most characters of its name."""


@final
@dataclass(frozen=True, kw_only=True)
class Embedding(Format):
    """One new token, with one or several vectors."""

    label: ClassVar[str] = "a textual-inversion embedding"
    order: ClassVar[int] = 2

    file: TensorFile

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file.path,)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The token, and token_1, … if it has several vectors."""
        (name, entry), *_ = self.file.entries.items()
        word = self.file.path.stem if name == "emb_params" else name
        if not 0 < len(word) <= LETTERS or not word.isprintable() or any(c.isspace() for c in word):
            raise UserError(
                sentence(
                    f"The embedding {self.file.path} has a token that no prompt can contain.",
                    token=shown(word),
                    do=f"Rename it: one word of at most {LETTERS} characters without spaces.",
                )
            )
        count = entry.shape[0] if len(entry.shape) == 2 else 1
        return (word, *(f"{word}_{number}" for number in range(1, count)))

    def changes(self, parent: ModelFiles) -> Changes:
        """Appends the vectors to the text encoder's embedding; UserError if they do not fit it."""
        check_prediction(self.file, parent)
        if len(parent.description.family.readers) > 1:
            raise UserError(
                sentence(
                    f"The embedding {self.file.path} is for one text encoder, and the base has two.",
                    base=parent.description.family.name,
                    do="Give a model without it: embeddings of two text encoders cannot be judged here.",
                )
            )
        ((name, entry),) = self.file.entries.items()
        width = parent[PLACE].entry.shape[1]
        vectors = entry.shape[0] if len(entry.shape) == 2 else 1
        if entry.shape[-1] != width or not 0 < vectors <= VECTORS:
            raise UserError(
                sentence(
                    f"The embedding {self.file.path} does not fit the base's text encoder.",
                    embedding=f"{vectors} vectors of {entry.shape[-1]} numbers",
                    base=f"vectors of {width}",
                    do=OTHER_BASE,
                )
            )
        _ = self.tokens

        def apply(table: np.ndarray) -> np.ndarray:
            rows = np.asarray(self.file.values(name), np.float32).reshape(-1, width)
            return np.concatenate([table, rows])

        return {PLACE: Edit(apply=apply, rows=vectors)}

    def settle(self, folder: Path, parent: ModelFiles) -> None:
        """Add the tokens to the tokenizer, and set the new vocabulary size in the text encoder's config."""
        from transformers import CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(str(folder), subfolder="tokenizer", local_files_only=True)
        before = len(tokenizer)
        known = tokenizer.get_vocab().keys() & set(self.tokens)
        if known or tokenizer.add_tokens(list(self.tokens)) != len(self.tokens):
            raise UserError(
                sentence(
                    f"The embedding {self.file.path} has a token that the base's tokenizer already has.",
                    token=shown(", ".join(sorted(known)) or self.tokens[0]),
                    do="Rename the file, or the tensor in it; its present name already has a meaning in prompts.",
                )
            )
        config = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        if config["vocab_size"] != before:
            raise UserError(
                sentence(
                    "The base's tokenizer and text encoder have different sizes, so no token can be added.",
                    tokenizer=f"{before:,} tokens",
                    text_encoder=f"{config['vocab_size']:,} vectors",
                    do="Give the base that the embedding was made for.",
                )
            )
        for path in (folder / "tokenizer").iterdir():
            path.unlink()
        tokenizer.save_pretrained(str(folder / "tokenizer"))
        config["vocab_size"] = len(tokenizer)
        (folder / "text_encoder" / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
