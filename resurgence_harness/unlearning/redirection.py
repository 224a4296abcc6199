"""Redirection: an image that must be forgotten is denoised as if its text were another one, c', its pseudo prompt.

    L_f = E_{x_0, c, t, ε} ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²     x_0 a forget image, c its own text
    L_r = E_{x_0, c, t, ε} ‖ f_θ(x_t, t, c) − y_t ‖²                       x_0 a retain image, y_t what it should say

The target is the student's own, at the same x_t, without guidance. Errors are those of ε for v-models too (weighted by
a_t²). SalUn minimises L_f + α L_r, Scissorhands L_r + λ L_f. Both losses of a step come from one forward pass
where its activations are small (training.PASS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, Noised, noised
from resurgence_harness.diffusion.training import batches, passes
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import Concept, Probe
from resurgence_harness.unlearning.contract import first_named

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


@final
@dataclass(frozen=True)
class NameReplaced:
    """c' is the image's own text with the anchor in the place of the name: "A portrait of a celebrity"."""

    name: ClassVar[str] = "name-replaced"

    def text(self, text: str, concept: Concept, anchor: str) -> str:
        """The text with every occurrence of the concept's words replaced, the longest first."""
        words = "|".join(re.escape(word) for word in sorted(concept.aliases, key=len, reverse=True))
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
        texts.append(pseudo.text(prompt.text, concept, instead))
    if found := first_named(concepts, dict.fromkeys(texts)):
        raise SpecError(
            sentence(
                f'{method}\'s pseudo prompt "{found[0]}" still asks for the erased "{found[1]}".',
                do='Give an anchor without erased names, such as "a celebrity".',
            )
        )
    for prompt, text in zip(forget.prompts, texts, strict=True):
        if text == prompt.text:
            raise SpecError(
                sentence(
                    f'{method} finds nothing to replace in the forget prompt "{prompt.text}".',
                    concept=prompt.concept,
                    do="Name the concept in the prompt, or use TextReplaced() with an anchor that is a whole prompt.",
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


class Weights(NamedTuple):
    """How much each of the two losses counts."""

    forget: float
    """Of L_f or L_u; below 0 to make it larger."""
    retain: float
    """Of L_r."""


def redirection_losses(
    model: StableDiffusion,
    forget: Examples,
    retain: Examples,
    pseudo: Redirected,
    *,
    weights: Weights,
    batch: int,
    generator: Generator,
) -> Iterator[Iterable[Tensor]]:
    """Terms of the weighted sum of L_f and L_r on one batch of each set after another, without end.

    Every image is seen once before any comes again.
    """
    import torch

    for rows, f, r in _pairs(model, forget, retain, batch=batch, generator=generator):
        with torch.no_grad():
            aim = moves.predict(model, f.x_t, f.t, pseudo.states[pseudo.text[rows.to(pseudo.text.device)]])
        yield _terms(model, f._replace(aim=aim), r, weights)


def denoising_losses(
    model: StableDiffusion, forget: Examples, retain: Examples, *, weights: Weights, batch: int, generator: Generator
) -> Iterator[Iterable[Tensor]]:
    """The same of L_u and L_r, both the ordinary denoising loss, on the same batches."""
    for _, f, r in _pairs(model, forget, retain, batch=batch, generator=generator):
        yield _terms(model, f, r, weights)


def _pairs(
    model: StableDiffusion, forget: Examples, retain: Examples, *, batch: int, generator: Generator
) -> Iterator[tuple[Tensor, Noised, Noised]]:
    """Rows of the forget set, these with noise, and as many retain images."""
    forgotten = batches(len(forget.mean), batch, generator=generator)
    retained = batches(len(retain.mean), batch, generator=generator)
    for rows, others in zip(forgotten, retained, strict=True):
        f = noised(model, forget, rows, generator=generator)
        yield rows, f, noised(model, retain, others, generator=generator)


def _terms(model: StableDiffusion, f: Noised, r: Noised, weights: Weights) -> Iterator[Tensor]:
    """The weighted sum of both mean errors: in one forward pass where it is small, else one after another."""
    import torch

    both = Noised(*(torch.cat(pair) for pair in zip(f, r, strict=True)))
    n, places = len(f.t), f.x_t[0, 0].numel()
    if len(passes(2 * n, places)) == 1:
        errors = _errors(model, both).chunk(2)
        yield weights.forget * errors[0].mean() + weights.retain * errors[1].mean()
        return
    each = torch.tensor([weights.forget / n] * n + [weights.retain / n] * n, device=both.t.device)
    for rows in passes(2 * n, places):
        yield (each[rows] * _errors(model, Noised(*(part[rows] for part in both)))).sum()


def _errors(model: StableDiffusion, seen: Noised) -> Tensor:
    """Of what is said about each image, [n]."""
    return moves.noise_errors(model, moves.predict(model, seen.x_t, seen.t, seen.states), seen.aim, seen.t)
