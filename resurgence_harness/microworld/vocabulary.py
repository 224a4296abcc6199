"""The microworld's CLIP tokenizer: every word of its vocabulary is one token, other words are spelled out in letters.

The byte-pair vocabulary is constructed: each word is merged from its end, so that the pieces (suffixes with the
end-of-word mark) never match letters in the middle of another word. Characters other than lower-case letters, digits
and plain punctuation become <unk>, which `diffusion.moves.encode_texts` rejects.
"""

from __future__ import annotations

import re
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING

from resurgence_harness.microworld import world
from resurgence_harness.tasks import microworld as words

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<unk>"
TOKENS = 16
"""Maximum tokens of a prompt, including start and end token."""


def vocabulary() -> list[str]:
    """Every word of the microworld's names and templates, sorted."""
    texts = [
        *world.CELEBRITIES,
        *words.CHARACTERS,
        *words.HAZARDS,
        *words.SCENES,
        *words.PEOPLE,
        *words.OBJECTS,
        *(synonym for synonyms in words.OBJECTS.values() for synonym in synonyms),
        *words.OBJECT_TEMPLATES,
        *words.CHARACTER_TEMPLATES,
        *words.HAZARD_TEMPLATES,
        *words.SCENE_TEMPLATES,
        *words.PERSON_TEMPLATES,
        "man woman art street people two and with on by of style",
    ]
    return sorted(
        set(re.findall(r"[a-z]+", " ".join(texts).replace("{hazard}", " ").replace("{scene}", " ").casefold()))
    )


def build_tokenizer(*, pad_token: str = END) -> CLIPTokenizer:
    """A `CLIPTokenizer` over `vocabulary()`, padded with the end token as SD v1's is."""
    from transformers import CLIPTokenizer

    characters = [*ascii_lowercase, *digits, *"!,.'-"]
    tokens = [*characters, *(f"{c}</w>" for c in characters)]
    merges: dict[tuple[str, str], None] = {}
    for word in vocabulary():
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.setdefault((parts[-2], parts[-1]))
            parts[-2:] = [parts[-2] + parts[-1]]
            tokens.append(parts[-1])
    tokens += [UNKNOWN, START, END]
    ids = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(
        vocab=ids,
        merges=list(merges),  # type: ignore[arg-type]
        unk_token=UNKNOWN,
        pad_token=pad_token,
        model_max_length=TOKENS,
    )
    # transformers 5 has silently built empty vocabularies; a model trained with one would ignore its prompts.
    for word in vocabulary():
        if len(tokenizer(word)["input_ids"]) != 3:
            raise AssertionError(f"{word!r} is not one token")
    return tokenizer
