"""What is asked, as frozen values: no torch, no files, no side effects.

    Recipe ──build──▶ Checkpoint ──sample──▶ Images ──judge──▶ Judgments ──count──▶ Rate ──decide──▶ Verdict

Every field that changes the bytes of the product is a field here; the device, progress bars and logging cannot be.
`storing.keys` turns these values into canonical JSON and that into a key. A field made with `not_in_key()` tells
where something lies, never what it is.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from resurgence_harness.errors import SpecError, sentence


def not_in_key(default: Any) -> Any:
    """A dataclass field that is left out of keys and comparisons: a place or a label, not a meaning."""
    return field(default=default, compare=False, metadata={"key": False})


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What must not come back (or, retained, must survive).

    `name` is the text the model is asked for, e.g. "Ada Quill"; `synonyms` are further words for the same thing,
    `kind` is the abstract noun that the concept is an instance of ("a celebrity"), which UCE uses as its anchor.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise SpecError(sentence("A concept has an empty name.", do="Give the text that names the concept."))

    @property
    def words(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True, kw_only=True)
class Base:
    """A published model: what its weights are (`digest`), and where this machine has them (`location`)."""

    digest: str
    """sha256 over the sorted list of (file, sha256) of all weight files."""
    name: str = not_in_key("")
    """How people call it: "micro", "sd14", a path."""
    location: str = not_in_key("")
    """A local directory in diffusers layout."""


class Step(ABC):
    """One change of a model. Concrete steps are frozen keyword-only dataclasses with `apply(model, run) -> model`.

    `name` is the stable word in node ids and keys; `version` is raised when the step's meaning changes.
    """

    name: ClassVar[str]
    version: ClassVar[int]


@dataclass(frozen=True)
class Recipe:
    """A base model followed by any number of steps."""

    base: Base
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Recipe:
        """This recipe with one more step."""
        return replace(self, steps=(*self.steps, step))

    @property
    def before(self) -> Recipe:
        """This recipe without its last step."""
        if not self.steps:
            raise SpecError(sentence("A base model has nothing before it.", base=self.base.name))
        return replace(self, steps=self.steps[:-1])

    @property
    def words(self) -> str:
        """For people: "micro → esd → lora"."""
        return " → ".join([self.base.name or self.base.digest[:8], *(step.name for step in self.steps)])


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One text to ask for, and the name of the concept it asks for."""

    text: str
    concept: str


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How images are drawn. DDIM, eta = 0, so the initial noise is the only randomness."""

    steps: int = 10
    guidance: float = 7.5
    """Classifier-free guidance scale: prediction = empty + guidance · (prompt − empty)."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    batch: int = 32
    """Images per forward pass; fixed (the last batch is padded) because a batch's shape changes rounding."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a model is asked: prompts × seeds × sampler. Row k is (prompts[k // n], seeds[k % n]) with n seeds."""

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        if not self.prompts or not self.seeds:
            raise SpecError(
                sentence(
                    "A probe asks nothing.",
                    prompts=len(self.prompts),
                    seeds=len(self.seeds),
                    do="Give at least one prompt and one seed; an empty probe can never support a verdict.",
                )
            )
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.prompts)) < len(self.prompts):
            raise SpecError(sentence("A probe asks the same question twice.", do="Remove repeated prompts or seeds."))

    def __len__(self) -> int:
        return len(self.prompts) * len(self.seeds)

    def rows(self) -> Iterator[tuple[Prompt, int]]:
        """Every (prompt, seed), prompts outermost."""
        return ((prompt, seed) for prompt in self.prompts for seed in self.seeds)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One claim of a suite: task × method × concept count × fine-tuning × run."""

    task: str
    method: str
    count: int
    finetuning: str
    run: int = 0
    """Which repetition of unlearning and fine-tuning: their training seed."""

    @property
    def id(self) -> str:
        """The stable words of the node id: "esd-10-lora", and and "-run1" … for the repetitions after the first."""
        return f"{self.method}-{self.count}-{self.finetuning}" + (f"-run{self.run}" if self.run else "")
