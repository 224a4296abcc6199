"""Redirection: an image that must be forgotten is denoised as if its text were another one, c', its pseudo prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import Concept, Probe
from resurgence_harness.unlearning.contract import first_named

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


@final
@dataclass(frozen=True)
class NameReplaced:
    """c' is the image's own text with the anchor in the place of the name: "A portrait of a celebrity"."""

    name: ClassVar[str] = "name-replaced"

    def text(self, text: str, concept: Concept, anchor: str) -> str:
        """The text with every occurrence of the concept's words replaced, the longest first."""
        words = "|".join(re.escape(word) for word in sorted(concept.words, key=len, reverse=True))
        return re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda _: anchor, text, flags=re.IGNORECASE)


@final
@dataclass(frozen=True)
class TextReplaced:
    """c' is the anchor alone, whatever the image's text was: "a photo of a person wearing clothes"."""

    name: ClassVar[str] = "text-replaced"

    def text(self, text: str, concept: Concept, anchor: str) -> str:
        """The anchor."""
        return anchor


def pseudo_texts(
    method: str, concepts: Sequence[Concept], forget: Probe, *, anchor: str, pseudo: NameReplaced | TextReplaced
) -> tuple[str, ...]:
    """c' of each forget prompt; a SpecError where there is none, or where it still asks for an erased concept."""
    concept_of = {concept.name.casefold(): concept for concept in concepts}
    texts = []
    for prompt in forget.prompts:
        concept = concept_of[prompt.concept.casefold()]
        instead = (anchor or concept.kind).strip()
        if not instead:
            raise SpecError(
                sentence(
                    f'{method} does not know what "{concept.name}" shall be taken for.',
                    do=f'Give {method}(anchor="a celebrity") or Concept(kind="a celebrity").',
                )
            )
        text = pseudo.text(prompt.text, concept, instead)
        if text == prompt.text:
            raise SpecError(
                sentence(
                    f'{method} finds nothing to replace in the forget prompt "{prompt.text}".',
                    concept=concept.name,
                    do="Name the concept in the prompt, or use TextReplaced() with an anchor that is a whole prompt.",
                )
            )
        texts.append(text)
    if found := first_named(concepts, dict.fromkeys(texts)):
        raise SpecError(
            sentence(
                f'{method}\'s pseudo prompt "{found[0]}" still asks for the erased "{found[1]}".',
                do='Give an anchor without erased names, such as "a celebrity".',
            )
        )
    return tuple(texts)


class Redirected(NamedTuple):
    """Text states of the pseudo prompts, each once."""

    states: Tensor
    """[m, L, d]."""
    text: Tensor
    """Row of `states` for each forget image, [n]."""


def redirected(model: StableDiffusion, forget: Probe, texts: Sequence[str]) -> Redirected:
    """c' for each image of `forget`, whose prompts have the pseudo prompts `texts`."""
    import torch

    distinct = list(dict.fromkeys(texts))
    rows = [distinct.index(text) for text in texts for _ in forget.seeds]
    return Redirected(moves.encode_texts(model, distinct), torch.tensor(rows, device=model.device))
