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
from resurgence_harness.specs import Concept, Step

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


def check_templates(method: str, templates: Sequence[str]) -> None:
    """Raise a SpecError unless every template has exactly one place for a name."""
    if not templates or len(set(templates)) < len(templates):
        raise SpecError(sentence(f"{method} needs at least one template, each once.", templates=templates))
    for template in templates:
        if template.count("{}") != 1:
            raise SpecError(
                sentence(f'{method}\'s template "{template}" must hold "{{}}" once.', do='"{}" is where the name goes.')
            )
