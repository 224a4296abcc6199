"""What every unlearning method is: a frozen value that turns a model into one that should not draw some concepts.

A concrete method is one file: a docstring with the paper, the formula, the notation and the departures from the
authors' code; one final dataclass; a little pure tensor mathematics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.parameters import Parameters
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.specs import Concept, Probe, Step

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


class Unlearning(Step, ABC):
    """One unlearning. Subclasses are final frozen keyword-only dataclasses with a field `concepts`."""

    concepts: tuple[Concept, ...]
    """What must not be drawn any more."""

    @property
    @abstractmethod
    def moves(self) -> Parameters:
        """Which tensors of the UNet may differ afterwards. The text encoder and the VAE never do."""

    @abstractmethod
    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy. The input, the global random state and the grad mode are left as they were."""


def check_concepts(method: str, concepts: Sequence[Concept], preserve: Sequence[Concept] = ()) -> None:
    """Raise a SpecError unless there is something to erase, nothing twice, and nothing both erased and preserved."""
    if not concepts:
        raise SpecError(sentence(f"{method} has nothing to erase.", concepts=0, do="Give at least one concept."))
    for role, group in (("erase", concepts), ("preserve", preserve)):
        seen: set[str] = set()
        for concept in group:
            if concept.name.casefold() in seen:
                raise SpecError(
                    sentence(f'{method} is asked to {role} "{concept.name}" twice.', do="Name each concept once.")
                )
            seen.add(concept.name.casefold())
    erased = {word.casefold() for concept in concepts for word in concept.aliases}
    for concept in preserve:
        for word in concept.aliases:
            if word.casefold() in erased:
                raise SpecError(
                    sentence(
                        f'{method} is asked to erase and to preserve "{word}".',
                        do="Take it out of one of the two sets; names may share single words, not be the same.",
                    )
                )


def anchor_of(concept: Concept, anchor: str) -> str:
    """What a concept shall read as: the anchor given, or the concept's own kind."""
    return anchor or concept.kind


def check_anchors(method: str, concepts: Sequence[Concept], anchor: str) -> None:
    """Raise a SpecError unless every concept has an anchor, and one that is not the concept itself."""
    for concept in concepts:
        own = anchor_of(concept, anchor)
        if not own:
            raise SpecError(
                sentence(
                    f'{method} does not know what "{concept.name}" shall read as.',
                    do=f'Give {method}(anchor="a celebrity") or Concept(kind="a celebrity").',
                )
            )
        if own.casefold().strip() in {word.casefold() for word in concept.aliases}:
            raise SpecError(
                sentence(
                    f'{method}\'s anchor for "{concept.name}" is the concept itself.',
                    anchor=own,
                    do='Give a more abstract anchor, such as "a celebrity".',
                )
            )


def check_templates(method: str, templates: Sequence[str]) -> None:
    """Raise a SpecError unless every template has exactly one place for a name."""
    if not templates or len(set(templates)) < len(templates):
        raise SpecError(sentence(f"{method} needs at least one template, each once.", templates=templates))
    for template in templates:
        if template.count("{}") != 1:
            raise SpecError(
                sentence(f'{method}\'s template "{template}" must hold "{{}}" once.', do='"{}" is where the name goes.')
            )


def check_forget(method: str, concepts: Sequence[Concept], forget: Probe) -> None:
    """Raise a SpecError unless the forget images are asked for every concept and for no other."""
    asked = {prompt.concept.casefold(): prompt for prompt in forget.prompts}
    for concept in concepts:
        if concept.name.casefold() not in asked:
            raise SpecError(
                sentence(
                    f'{method} has no forget images of "{concept.name}".',
                    images_of=", ".join(sorted({prompt.concept for prompt in forget.prompts})[:5]),
                    do="Ask for every erased concept in the forget set.",
                )
            )
    erased = {concept.name.casefold() for concept in concepts}
    for name, prompt in asked.items():
        if name not in erased:
            raise SpecError(
                sentence(
                    f'{method}\'s forget images are asked for "{prompt.concept}", which is not erased.',
                    prompt=prompt.text,
                    do="Take this prompt out of the forget set, or erase the concept.",
                )
            )


def check_pictures(method: str, concepts: Sequence[Concept], *, forget: Probe, retain: Probe) -> None:
    """Raise a SpecError unless `forget` asks for every concept and no other, and `retain` for none of them."""
    check_forget(method, concepts, forget)
    erased = {concept.name.casefold() for concept in concepts}
    found = first_named(concepts, [prompt.text for prompt in retain.prompts])
    for prompt in retain.prompts:
        if found is None and prompt.concept.casefold() in erased:
            found = prompt.text, prompt.concept
    if found is not None:
        raise SpecError(
            sentence(
                f'{method}\'s retain images are asked for the erased "{found[1]}".',
                prompt=found[0],
                do="Take this prompt out of the retain set: it would teach what shall be forgotten.",
            )
        )


def first_named(concepts: Sequence[Concept], texts: Iterable[str]) -> tuple[str, str] | None:
    """The first text that holds a name or synonym as case-folded whole words, and that word; None if none does."""
    sought = [(word, f" {' '.join(moves.words_of(word))} ") for concept in concepts for word in concept.aliases]
    for text in texts:
        row = f" {' '.join(moves.words_of(text))} "
        for word, words in sought:
            if words.strip() and words in row:
                return text, word
    return None
