"""The contract of every unlearning method: a frozen value that turns a model into one that should not draw concepts.

A concrete method is one file: a docstring with the paper, the formula, the notation and the departures from the
authors' code; one final dataclass; a few pure tensor functions.
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
    """The erase set."""

    @property
    @abstractmethod
    def moves(self) -> Parameters:
        """Which tensors of the UNet may differ afterwards. The text encoder and the VAE never do."""

    @abstractmethod
    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy. The input, the global random state and the grad mode are left as they were."""


def check_concepts(method: str, concepts: Sequence[Concept], preserve: Sequence[Concept] = ()) -> None:
    """SpecError unless `concepts` is not empty, no name occurs twice, and none is both erased and preserved."""
    if not concepts:
        raise SpecError(sentence(f"{method} has nothing to erase.", concepts=0, do="Give at least one concept."))
    for role, group in (("erase", concepts), ("preserve", preserve)):
        seen: set[str] = set()
        for concept in group:
            if concept.name.casefold() in seen:
                raise SpecError(
                    sentence(f'{method} has "{concept.name}" twice in its {role} set.', do="Give each concept once.")
                )
            seen.add(concept.name.casefold())
    erased = {word.casefold() for concept in concepts for word in concept.aliases}
    for concept in preserve:
        for word in concept.aliases:
            if word.casefold() in erased:
                raise SpecError(
                    sentence(
                        f'{method} has "{word}" both in its erase set and in its preserve set.',
                        do="Remove it from one of the two; names may share single words, but not be equal.",
                    )
                )


def anchor_of(concept: Concept, anchor: str) -> str:
    """The anchor text for a concept: the anchor given, or the concept's kind."""
    return anchor or concept.kind


def check_anchors(method: str, concepts: Sequence[Concept], anchor: str) -> None:
    """SpecError unless every concept has an anchor that differs from its names."""
    for concept in concepts:
        own = anchor_of(concept, anchor)
        if not own:
            raise SpecError(
                sentence(
                    f'{method} has no anchor for "{concept.name}".',
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
    """SpecError unless there is at least one template, each once and with exactly one "{}"."""
    if not templates or len(set(templates)) < len(templates):
        raise SpecError(sentence(f"{method} needs at least one template, each once.", templates=templates))
    for template in templates:
        if template.count("{}") != 1:
            raise SpecError(
                sentence(f'{method}\'s template "{template}" must hold "{{}}" once.', do='"{}" is where the name goes.')
            )


def check_forget(method: str, concepts: Sequence[Concept], forget: Probe) -> None:
    """SpecError unless the forget prompts cover every concept and no other."""
    prompted = {prompt.concept.casefold(): prompt for prompt in forget.prompts}
    for concept in concepts:
        if concept.name.casefold() not in prompted:
            raise SpecError(
                sentence(
                    f'{method} has no forget images of "{concept.name}".',
                    images_of=", ".join(sorted({prompt.concept for prompt in forget.prompts})[:5]),
                    do="Add prompts for every erased concept to the forget set.",
                )
            )
    erased = {concept.name.casefold() for concept in concepts}
    for name, prompt in prompted.items():
        if name not in erased:
            raise SpecError(
                sentence(
                    f'{method}\'s forget set has a prompt for "{prompt.concept}", which is not erased.',
                    prompt=prompt.text,
                    do="Remove this prompt from the forget set, or erase the concept.",
                )
            )


def check_pictures(method: str, concepts: Sequence[Concept], *, forget: Probe, retain: Probe) -> None:
    """SpecError unless the prompts of `forget` cover every concept and no other, and those of `retain` none of them."""
    check_forget(method, concepts, forget)
    erased = {concept.name.casefold() for concept in concepts}
    found = first_named(concepts, [prompt.text for prompt in retain.prompts])
    for prompt in retain.prompts:
        if found is None and prompt.concept.casefold() in erased:
            found = prompt.text, prompt.concept
    if found is not None:
        raise SpecError(
            sentence(
                f'{method}\'s retain set has a prompt for the erased "{found[1]}".',
                prompt=found[0],
                do="Remove this prompt from the retain set: it would train the concept that must be erased.",
            )
        )


def first_named(concepts: Sequence[Concept], texts: Iterable[str]) -> tuple[str, str] | None:
    """The first text that contains a name or synonym as case-folded whole words, and that name; None if none does."""
    sought = [(word, f" {' '.join(moves.words_of(word))} ") for concept in concepts for word in concept.aliases]
    for text in texts:
        row = f" {' '.join(moves.words_of(text))} "
        for word, words in sought:
            if words.strip() and words in row:
                return text, word
    return None
