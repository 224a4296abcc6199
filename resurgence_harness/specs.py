"""The specification of models, prompts and cells as frozen values: no torch, no files, no side effects.

    Recipe ──build──▶ Checkpoint ──sample──▶ Images ──judge──▶ Judgments ──count──▶ Rate ──decide──▶ Verdict

Every setting that changes the bytes of the product is a field here; the device, progress bars and logging are not.
`storing.keys` turns these values into canonical JSON and hashes it to a key. A field made with `not_in_key()` holds a
location or a label and is left out of the key; one with the metadata `ADDED` is in the key unless it has its default.
"""

from __future__ import annotations

import hashlib
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any, ClassVar, Literal, get_args

from resurgence_harness.errors import SpecError, sentence


def not_in_key(default: Any) -> Any:
    """A dataclass field that is left out of keys and comparisons, because it is only a location or a label."""
    return field(default=default, compare=False, metadata={"key": False})


ADDED: Mapping[str, str] = {"key": "unless default"}
"""Metadata of a dataclass field added after keys were stored. Its default is the earlier behaviour and is left out of
the key, so existing artifacts keep their keys; every other value changes the key."""

Arithmetic = Literal["float32", "float16"]
"""The arithmetic of the U-Net and the autoencoder's decoder while images are drawn, or of a training's passes. Weights
and what is stored are float32 with both. It is never chosen by the device, so equal specs mean equal arithmetic."""


def check_arithmetic(owner: str, value: object) -> None:
    """SpecError unless the value is one of `Arithmetic`."""
    if value not in get_args(Arithmetic):
        raise SpecError(
            sentence(
                f"{owner}.arithmetic is {value!r}.",
                known=", ".join(get_args(Arithmetic)),
                do='Write arithmetic="float32" or arithmetic="float16".',
            )
        )


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A concept that must stay erased, or that must be retained.

    `name` is the text used in prompts, e.g. "Ada Quill"; `synonyms` are other names of the same concept; `kind` is the
    category that the concept is an instance of ("a celebrity"), which UCE uses as its anchor.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    kind: str = ""

    def __post_init__(self) -> None:
        for name, value in (("name", self.name), ("kind", self.kind)):
            if not isinstance(value, str):
                raise SpecError(
                    sentence(f"The {name} of a concept is {value!r}, which is not a string.", do=f'Write {name}="…".')
                )
        if not self.name.strip():
            raise SpecError(sentence("A concept has an empty name.", do="Give the text that names the concept."))
        if not isinstance(self.synonyms, tuple) or not all(isinstance(one, str) and one for one in self.synonyms):
            raise SpecError(
                sentence(
                    f'The synonyms of the concept "{self.name}" are not a tuple of strings.',
                    synonyms=repr(self.synonyms)[:80],
                    do='Write synonyms=("car", "vehicle"), in round brackets; of one: ("car",), with the comma.',
                )
            )

    @property
    def aliases(self) -> tuple[str, ...]:
        """The name and its synonyms."""
        return (self.name, *self.synonyms)


EMBEDDED = ("micro", "micro-xl")
"""Names of the models that come with this package (`microworld`)."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A published model: the digest of its weights, and their local directory (`location`)."""

    digest: str
    """sha256 over the sorted list of (file, sha256) of all weight files."""
    name: str = not_in_key("")
    """Its name as the user gave it: "micro", "sd14", a path."""
    location: str = not_in_key("")
    """A local directory in diffusers layout."""


class Step(ABC):
    """One change of a model. Concrete steps are frozen keyword-only dataclasses with `apply(model, run) -> model`.

    `name` is stable, since node ids and keys contain it; `version` is increased when the step's meaning changes.
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
    def label(self) -> str:
        """A readable label: "micro → esd → lora"."""
        return " → ".join([self.base.name or self.base.digest[:8], *(step.name for step in self.steps)])


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt text, and the name of the concept it asks for."""

    text: str
    concept: str
    written: bool = not_in_key(False)
    """Whether it is free text of any length: tokens beyond the text encoder's limit are truncated and counted. Other
    prompts are never truncated, since that could remove the name. Not in the key: it can reject a prompt, but never
    change one."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Sampler settings. DDIM with eta = 0, so the initial noise is the only randomness."""

    steps: int = 10
    guidance: float = 7.5
    """Classifier-free guidance scale: prediction = empty + guidance · (prompt − empty)."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    batch: int = 32
    """Images per forward pass; fixed (the last batch is padded) because a batch's shape changes rounding."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the U-Net and the decoder; text states and the sampler's own sums are float32 with both."""

    def __post_init__(self) -> None:
        """SpecError for an unknown arithmetic."""
        check_arithmetic("Sampler", self.arithmetic)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The images to sample: prompts × seeds × sampler. Row k is (prompts[k // n], seeds[k % n]) with n seeds.

    SpecError if it is empty, or repeats a prompt or a seed.
    """

    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    sampler: Sampler = Sampler()

    def __post_init__(self) -> None:
        if not self.prompts or not self.seeds:
            raise SpecError(
                sentence(
                    "A probe has no prompts or no seeds.",
                    prompts=len(self.prompts),
                    seeds=len(self.seeds),
                    do="Give at least one prompt and one seed; an empty probe can never support a verdict.",
                )
            )
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.prompts)) < len(self.prompts):
            raise SpecError(sentence("A probe repeats a prompt or a seed.", do="Remove repeated prompts or seeds."))

    def __len__(self) -> int:
        return len(self.prompts) * len(self.seeds)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of the concepts that the prompts ask for, in order of first appearance."""
        return tuple(dict.fromkeys(prompt.concept for prompt in self.prompts))

    def rows(self) -> Iterator[tuple[Prompt, int]]:
        """Every (prompt, seed), prompts outermost."""
        return ((prompt, seed) for prompt in self.prompts for seed in self.seeds)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of a grid, sampled together: the images between two looks."""

    asked: tuple[tuple[Prompt, int], ...]
    """The (prompt, seed) of every image, in order."""
    sampler: Sampler

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts of its rows, each once."""
        return tuple(dict.fromkeys(prompt for prompt, _ in self.asked))

    def __len__(self) -> int:
        return len(self.asked)

    def rows(self) -> Iterator[tuple[Prompt, int]]:
        """Every (prompt, seed)."""
        return iter(self.asked)


SampleRequest = Probe | Block
"""Images that are sampled from a model in one call."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All (prompt, seed) rows that a claim covers, in a shuffled order in which they are sampled block by block.

    Rows are sorted by sha256(order, prompt, seed): the same on every machine, and not grouped by concept, since an
    early stop would then miss a resurgence of the concepts that come last.
    """

    probe: Probe
    order: int = 0
    """Seed of the shuffle."""
    block: int = 32
    """Rows between two looks."""

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SpecError(sentence(f"A block of {self.block} rows is empty.", do="Give 1 row or more."))

    def __len__(self) -> int:
        return len(self.probe)

    @cached_property
    def rows(self) -> tuple[tuple[Prompt, int], ...]:
        """The (prompt, seed) of the whole grid, in shuffled order."""

        def place(row: tuple[Prompt, int]) -> bytes:
            prompt, seed = row
            return hashlib.sha256(f"{self.order}\0{prompt.text}\0{prompt.concept}\0{seed}".encode()).digest()

        return tuple(sorted(self.probe.rows(), key=place))

    @property
    def blocks(self) -> int:
        """Number of blocks in the grid; the last may be short."""
        return ceil(len(self) / self.block)

    def part(self, number: int) -> Block:
        """One block, counted from 0."""
        if not 0 <= number < self.blocks:
            raise SpecError(sentence(f"A grid of {self.blocks} blocks has no block {number}."))
        rows = self.rows[number * self.block : (number + 1) * self.block]
        return Block(asked=rows, sampler=self.probe.sampler)

    def blocks_for(self, images: int) -> int:
        """How many blocks give at least `images` images, at most all of them."""
        return min(ceil(images / self.block), self.blocks)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a model's life as the user wrote it: an unlearning with the concepts it erases, or a fine-tuning.

    Of `first`, `more` and `named` at most one is given. An unlearning with none of them erases everything that the
    stages before it erased, once more; as the first unlearning, the concepts of the cell's count.
    """

    name: str
    """Of an unlearning method or a fine-tuning."""
    unlearning: bool
    first: int = 0
    """How many concepts it erases: the task's set of this count."""
    more: int = 0
    """How many it erases of those that no stage before it erased."""
    named: tuple[str, ...] = ()
    """Names of the concepts it erases."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Preset values that are changed for this stage alone: (("uce.erase_scale", 0.1),)."""
    data: Any = None
    """Given images that a fine-tuning trains on, a `finetuning.ImageFolder`; None: the run's."""

    def __str__(self) -> str:
        """ "uce", "uce(2)", "uce(+2)", "lora"; values, data and names of concepts are left out."""
        number = f"({self.first})" if self.first else f"(+{self.more})" if self.more else ""
        return self.name + number


@dataclass(frozen=True, kw_only=True)
class Life:
    """A chain of unlearnings and fine-tunings, in the order in which they change the base; the last is a fine-tuning.

    `presets.lives` parses and checks it.
    """

    name: str
    """The method in the ids of its cells."""
    stages: tuple[Stage, ...]

    def __str__(self) -> str:
        """ "uce(2) > lora > uce(+2) > full"."""
        return " > ".join(map(str, self.stages))

    @property
    def open(self) -> bool:
        """Whether its first unlearning erases as many concepts as the cell's count says."""
        first = next(stage for stage in self.stages if stage.unlearning)
        return not (first.first or first.more or first.named)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One claim of a suite: task × method × concept count × fine-tuning × run."""

    task: str
    method: str
    """Of the unlearning; the name of `life`, if there is one."""
    count: int
    """How many concepts are erased, by all stages together."""
    finetuning: str
    """The last one."""
    run: int = 0
    """Which repetition of unlearning and fine-tuning: their training seed."""
    life: Life | None = None
    """Stages in place of one unlearning and one fine-tuning."""

    @property
    def id(self) -> str:
        """The stable part of the node id: "esd-10-lora", with "-run1" … for the repetitions after the first."""
        return f"{self.method}-{self.count}-{self.finetuning}" + (f"-run{self.run}" if self.run else "")
