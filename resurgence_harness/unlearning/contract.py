"""What every unlearning method is: a frozen value that turns a model into one that should not draw some concepts.

A concrete method is one file: a docstring with the paper, the formula, the notation and the departures from the
authors' code; one final dataclass; a little pure tensor mathematics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    erased = {word.casefold() for concept in concepts for word in concept.words}
    for concept in preserve:
        for word in concept.words:
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
        if own.casefold().strip() in {word.casefold() for word in concept.words}:
            raise SpecError(
                sentence(
                    f'{method}\'s anchor for "{concept.name}" is the concept itself.',
                    anchor=own,
                    do='Give a more abstract anchor, such as "a celebrity".',
                )
            )


def check_forget(method: str, concepts: Sequence[Concept], forget: Probe) -> None:
    """Raise a SpecError unless the forget images show every erased concept, and nothing else."""
    names = {concept.name for concept in concepts}
    for prompt in forget.prompts:
        if prompt.concept not in names:
            raise SpecError(
                sentence(
                    f'{method}\'s forget images show "{prompt.concept}", which is not erased.',
                    prompt=prompt.text,
                    do="Ask for erased concepts alone; Prompt.concept is the concept's name.",
                )
            )
        if prompt.concept.casefold() not in prompt.text.casefold():
            raise SpecError(
                sentence(
                    f'A forget prompt of {method} does not ask for its concept "{prompt.concept}".',
                    prompt=prompt.text,
                    do="Write the concept's name into the prompt.",
                )
            )
    for name in names - {prompt.concept for prompt in forget.prompts}:
        raise SpecError(
            sentence(f'{method} has no forget image of "{name}".', do="Add a prompt for it to the forget probe.")
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
