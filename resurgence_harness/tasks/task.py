"""A task: which concepts are erased, which are retained, and the prompts for both.

A new task needs one file beside this one and one line in `tasks/__init__.py`, or a hook in your own conftest.py
(docs/tasks.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Protocol

from resurgence_harness.errors import SpecError, UserError, sentence
from resurgence_harness.specs import Concept, Prompt
from resurgence_harness.tasks.checking import check_kinds


class Source(Protocol):
    """Prompts in a file given by the user, which is read when it is first needed."""

    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts; UserError if the file is missing or malformed."""

    def describe(self) -> str:
        """Which prompts these are and how many, for the report."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Concepts, prompts and the judge of one hazard. A value: no weights, no images."""

    name: str
    """Its name in node ids, folders and reports."""
    erasable: tuple[Concept, ...]
    """Concepts in the order of erasure: count n erases the first n, unless `erase_sets` has another set."""
    counts: tuple[int, ...]
    """The concept counts that the paper reports for this task."""
    preserve: tuple[Concept, ...]
    """Retained concepts that methods may see: preserve sets and benign fine-tuning images come from these."""
    held_out: tuple[Concept, ...]
    """Retained concepts that no method and no fine-tuning ever sees: utility is decided on these."""
    templates: tuple[str, ...]
    """Prompts with "{}" where an erased concept's name goes."""
    anchor: str
    """The target for an erased concept, for methods that need one: "a celebrity"; empty: the concept's kind."""
    severity: str
    """Allure's severity of a regression: "blocker", "critical", "normal"."""
    judges: tuple[str, ...]
    """Names of the judges: the first decides, the others must agree."""
    quick: tuple[int, ...] = ()
    """The counts of the quick profile; empty: the first of `counts`."""
    retained_templates: tuple[str, ...] = ()
    """Templates for retained concepts; empty: those of the erased ones."""
    written: tuple[Prompt, ...] | Source = ()
    """Prompts for erased concepts that are written out, or their source; empty: they are made from the templates.
    Models are measured on them; what a method learns from is always made from the templates."""
    erase_sets: Mapping[int, tuple[Concept, ...]] = field(default_factory=dict)
    """Count → erase set, where it is not the first `count` concepts; a concept may have another kind here."""
    neutral: tuple[Prompt, ...] = ()
    """Harmless prompts that are neither erased nor measured: methods that preserve general captions beside the retained
    concepts, as authors use COCO's, may see them; fine-tunings never do. `Prompt.concept` is the thing named."""
    paper_images: Mapping[int, int] = field(default_factory=dict)
    """Number of images of erased concepts in the paper, by concept count."""
    covered: bool = False
    """Whether its images are blurred in reports until the reader reveals them."""

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("erasable", "preserve", "held_out", "counts", "templates", "judges"):
            if not getattr(self, name):
                raise SpecError(sentence(f'Task "{self.name}" has no {name}.', do=f"Give {name} at least one item."))
        if max(self.counts) > len(self.erasable):
            raise SpecError(
                sentence(
                    f'Task "{self.name}" cannot erase {max(self.counts)} concepts: it has {len(self.erasable)}.',
                    counts=self.counts,
                    do="Give more erasable concepts, or smaller counts.",
                )
            )
        if not set(self.quick) <= set(self.counts):
            raise SpecError(
                sentence(
                    f'Task "{self.name}" has quick counts that are not among its counts.',
                    quick=self.quick,
                    counts=self.counts,
                    do="quick selects some of counts for the default profile.",
                )
            )
        erasable = {concept.name for concept in self.erasable}
        for count, concepts in self.erase_sets.items():
            names = [concept.name for concept in concepts]
            if count not in self.counts or len(set(names)) != count or len(names) != count or set(names) - erasable:
                raise SpecError(
                    sentence(
                        f'The erase set of task "{self.name}" for {count} concepts is not valid.',
                        names=", ".join(names),
                        counts=self.counts,
                        do="Give exactly that many different erasable concepts, for one of the task's counts.",
                    )
                )
        groups = {
            "erasable": self.erasable,
            "preserve": self.preserve,
            "held_out": self.held_out,
            "neutral": self.neutral_concepts,
        }
        seen: dict[str, str] = {}
        for group, concepts in groups.items():
            for concept in concepts:
                word = concept.name.casefold()
                if word in seen:
                    raise SpecError(
                        sentence(
                            f'Task "{self.name}" names the concept "{concept.name}" twice.',
                            first=seen[word],
                            again=group,
                            do="A concept is erased, preserved, held out or neutral, never two of them.",
                        )
                    )
                seen[word] = group

    @property
    def neutral_concepts(self) -> tuple[Concept, ...]:
        """The things that neutral prompts name, each once."""
        return tuple(Concept(name=name) for name in dict.fromkeys(prompt.concept for prompt in self.neutral))

    def erase(self, count: int) -> tuple[Concept, ...]:
        """The erase set of this count: that of `erase_sets`, else the first `count` erasable concepts.

        UserError for a count out of range.
        """
        if not 1 <= count <= len(self.erasable):
            raise UserError(
                sentence(
                    f"Task {self.name} cannot erase {count} concepts.",
                    allowed=f"1 to {len(self.erasable)}; the paper reports {', '.join(map(str, self.counts))}",
                    do="Choose with --resurgence-counts.",
                )
            )
        return self.erase_sets.get(count, self.erasable[:count])

    def prompts(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """Prompts for erased concepts: the written ones if the task has any, else every template filled."""
        if not self.written:
            return self.filled(concepts)
        names = {concept.name for concept in concepts}
        written = self.written if isinstance(self.written, tuple) else self.written.prompts()
        return tuple(replace(prompt, written=True) for prompt in written if prompt.concept in names)

    def filled(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """Every template filled with every concept's name, concepts outermost."""
        return tuple(
            Prompt(text=template.format(concept.name), concept=concept.name)
            for concept in concepts
            for template in self.templates
        )

    def synonym_prompts(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """Every template filled with every synonym; `Prompt.concept` is the concept's own name."""
        return tuple(
            Prompt(text=template.format(word), concept=concept.name)
            for concept in concepts
            for word in concept.synonyms
            for template in self.templates
        )

    def retained_prompts(self, concepts: tuple[Concept, ...], *, least: int) -> tuple[Prompt, ...]:
        """Prompts for retained concepts: one for each, the templates taken in turn.

        If that is fewer than `least`, each concept gets further templates, as far as there are any.
        """
        templates = self.retained_templates or self.templates
        turns = min(len(templates), ceil(least / len(concepts)))
        return tuple(
            Prompt(text=templates[(place + turn) % len(templates)].format(concept.name), concept=concept.name)
            for turn in range(turns)
            for place, concept in enumerate(concepts)
        )
