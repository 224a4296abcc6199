"""Redirection: train the model to denoise a forget image as if its text were another one, the pseudo prompt c'.

    L_f = E_{x_0, c, t, ε} ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²     x_0 a forget image, c its own text
    L_r = E_{x_0, c, t, ε} ‖ f_θ(x_t, t, c) − y_t ‖²                       x_0 a retain image, y_t the target ε or v

The target of L_f is the student's own prediction at the same x_t, without guidance. Errors are those of ε for v-models
too (weighted by a_t²). SalUn minimises L_f + α L_r, Scissorhands L_r + λ L_f. Both losses of a step come from one
forward pass if its activations fit (training.PASS).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
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
    """c' is the image's own text with the anchor in place of the name: "A portrait of a celebrity"."""

    name: ClassVar[str] = "name-replaced"

    def text(self, text: str, concept: Concept, anchor: str) -> str:
        """The text with every occurrence of the concept's name and synonyms replaced, the longest first."""
        names = "|".join(re.escape(name) for name in sorted(concept.aliases, key=len, reverse=True))
        return re.sub(rf"(?<!\w)(?:{names})(?!\w)", lambda _: anchor, text, flags=re.IGNORECASE)


@final
@dataclass(frozen=True)
class TextReplaced:
    """c' is the anchor alone, whatever the image's text: "a photo of a person wearing clothes"."""

    name: ClassVar[str] = "text-replaced"

    def text(self, text: str, concept: Concept, anchor: str) -> str:
        """The anchor."""
        return anchor


def pseudo_texts(
    method: str, concepts: Sequence[Concept], forget: Probe, *, anchor: str, pseudo: NameReplaced | TextReplaced
) -> tuple[str, ...]:
    """c' of each forget prompt; SpecError if there is none, or if it still names an erased concept."""
    concept_of = {concept.name.casefold(): concept for concept in concepts}
    texts = []
    for prompt in forget.prompts:
        concept = concept_of[prompt.concept.casefold()]
        replacement = (anchor or concept.kind).strip()
        if not replacement:
            raise SpecError(
                sentence(
                    f'{method} has no anchor for "{concept.name}".',
                    do=f'Give {method}(anchor="a celebrity") or Concept(kind="a celebrity").',
                )
            )
        texts.append(pseudo.text(prompt.text, concept, replacement))
    if found := first_named(concepts, dict.fromkeys(texts)):
        raise SpecError(
            sentence(
                f'{method}\'s pseudo prompt "{found[0]}" still names the erased "{found[1]}".',
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
    """Text states of the distinct pseudo prompts."""

    states: Conditions
    """[m, L, d]."""
    text: Tensor
    """Row of `states` for each forget image, [n]."""


def redirected(model: StableDiffusion, forget: Probe, texts: Sequence[str]) -> Redirected:
    """Text states of c' for each image of `forget`; `texts` are the pseudo prompts of its prompts."""
    import torch

    distinct = list(dict.fromkeys(texts))
    rows = [distinct.index(text) for text in texts for _ in forget.seeds]
    return Redirected(moves.conditions(model, distinct), torch.tensor(rows, device=model.device))


class Weights(NamedTuple):
    """Weights of the two losses."""

    forget: float
    """Weight of L_f or L_u; negative to maximise it."""
    retain: float
    """Weight of L_r."""


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
    """Endless steps, each as the terms of the weighted sum of L_f and L_r on one batch of each set.

    Every image is used once before any repeats.
    """
    import torch

    for rows, f, r in _pairs(model, forget, retain, batch=batch, generator=generator):
        with torch.no_grad():
            aim = moves.predict(model, f.x_t, f.t, pseudo.states[pseudo.text[rows.to(pseudo.text.device)]])
        yield _terms(model, f._replace(aim=aim), r, weights)


def denoising_losses(
    model: StableDiffusion, forget: Examples, retain: Examples, *, weights: Weights, batch: int, generator: Generator
) -> Iterator[Iterable[Tensor]]:
    """As `redirection_losses`, with the denoising loss L_u of the forget images in place of L_f; same batches."""
    for _, f, r in _pairs(model, forget, retain, batch=batch, generator=generator):
        yield _terms(model, f, r, weights)


def _pairs(
    model: StableDiffusion, forget: Examples, retain: Examples, *, batch: int, generator: Generator
) -> Iterator[tuple[Tensor, Noised, Noised]]:
    """Endless batches: rows of the forget set, their noised examples, and as many noised retain examples."""
    forgotten = batches(len(forget.mean), batch, generator=generator)
    retained = batches(len(retain.mean), batch, generator=generator)
    for rows, others in zip(forgotten, retained, strict=True):
        f = noised(model, forget, rows, generator=generator)
        yield rows, f, noised(model, retain, others, generator=generator)


def _terms(model: StableDiffusion, f: Noised, r: Noised, weights: Weights) -> Iterator[Tensor]:
    """The weighted sum of both mean errors: one term from one forward pass if it fits, else one term per pass."""
    import torch

    both = f.and_then(r)
    n, places = len(f.t), f.x_t[0, 0].numel()
    if len(passes(2 * n, places)) == 1:
        errors = _errors(model, both).chunk(2)
        yield weights.forget * errors[0].mean() + weights.retain * errors[1].mean()
        return
    each = torch.tensor([weights.forget / n] * n + [weights.retain / n] * n, device=both.t.device)
    for rows in passes(2 * n, places):
        yield (each[rows] * _errors(model, both.part(rows))).sum()


def _errors(model: StableDiffusion, seen: Noised) -> Tensor:
    """Squared error of the prediction for each image, [n]."""
    return moves.noise_errors(model, moves.predict(model, seen.x_t, seen.t, seen.states), seen.aim, seen.t)
