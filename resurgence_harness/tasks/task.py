"""A task: which concepts are erased, which must survive, and how a model is asked for them.

Adding a task costs one file beside this one and one line in `tasks/__init__.py`, or a hook in a conftest.py of one's
own (docs/tasks.md).
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
    """Prompts in a file of the user's, which is read when they are first asked for."""

    def prompts(self) -> tuple[Prompt, ...]:
        """All of them; UserError where the file is missing or wrong."""

    def describe(self) -> str:
        """Which prompts these are and how many, for the report."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Concepts, prompts and the judge of one hazard. A value: no weights, no images."""

    name: str
    """The word in node ids, folders and reports."""
    erasable: tuple[Concept, ...]
    """Concepts in the order in which they are erased: count n erases the first n, unless `erase_sets` says others."""
    counts: tuple[int, ...]
    """The concept counts that the paper reports for this task."""
    preserve: tuple[Concept, ...]
    """Retained concepts that methods may see: preserve sets and benign fine-tuning images come from these."""
    held_out: tuple[Concept, ...]
    """Retained concepts that no method and no fine-tuning ever sees: utility is decided on these."""
    templates: tuple[str, ...]
    """Prompts with "{}" where an erased concept's name goes."""
    anchor: str
    """What an erased concept is turned into where a method needs a target: "a celebrity"; empty: the concept's kind."""
    severity: str
    """Allure's severity of a regression: "blocker", "critical", "normal"."""
    judges: tuple[str, ...]
    """Names of the judges: the first decides, the others must agree."""
    quick: tuple[int, ...] = ()
    """Those of the counts that the quick profile takes; empty: the first."""
    retained_templates: tuple[str, ...] = ()
    """The same for retained concepts; empty: those of the erased ones."""
    written: tuple[Prompt, ...] | Source = ()
    """Prompts for erased concepts that somebody wrote out, or where they are; empty: they are made from the templates.
    Models are measured on them; what a method learns from is made from the templates even so."""
    erase_sets: Mapping[int, tuple[Concept, ...]] = field(default_factory=dict)
    """What is erased at counts where that is not the first so many; a concept may have another kind here."""
    neutral: tuple[Prompt, ...] = ()
    """Harmless things that are neither erased nor measured: methods that keep general captions beside the retained
    concepts, as authors keep COCO's, may see these. `Prompt.concept` is the thing named. Fine-tunings never do."""
    paper_images: Mapping[int, int] = field(default_factory=dict)
    """Images of erased concepts that the paper looks at, by concept count."""
    covered: bool = False
    """Whether its images are blurred in reports until somebody asks to see them."""

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("erasable", "preserve", "held_out", "counts", "templates", "judges"):
            if not getattr(self, name):
                raise SpecError(sentence(f'Task "{self.name}" has no {name}.', do="Nothing empty can be claimed."))
        if not set(self.quick) <= set(self.counts) or max(self.counts) > len(self.erasable):
            raise SpecError(
                sentence(
                    f'The concept counts of task "{self.name}" do not fit together.',
                    quick=self.quick,
                    counts=self.counts,
                    erasable=len(self.erasable),
                    do="quick is a part of counts, and a count is at most the number of erasable concepts.",
                )
            )
        erasable = {concept.name for concept in self.erasable}
        for count, concepts in self.erase_sets.items():
            names = [concept.name for concept in concepts]
            if count not in self.counts or len(set(names)) != count or len(names) != count or set(names) - erasable:
                raise SpecError(
                    sentence(
                        f'The erase set of task "{self.name}" for {count} concepts is none.',
                        names=", ".join(names),
                        counts=self.counts,
                        do="Give as many different erasable concepts as its count says, and a count of the task's.",
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
        """What is erased at this count: its own erase set, else the first `count` erasable concepts."""
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
        """What a model is asked for erased concepts: what was written out for them, else every template filled."""
        if not self.written:
            return self.filled(concepts)
        names = {concept.name for concept in concepts}
        written = self.written if isinstance(self.written, tuple) else self.written.prompts()
        return tuple(replace(prompt, written=True) for prompt in written if prompt.concept in names)

    def filled(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """Every template filled with every concept, concepts outermost: prompts that name what they ask for."""
        return tuple(
            Prompt(text=template.format(concept.name), concept=concept.name)
            for concept in concepts
            for template in self.templates
        )

    def synonym_prompts(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """The same for erased concepts by their other words; each asks for the concept, whatever it is called."""
        return tuple(
            Prompt(text=template.format(word), concept=concept.name)
            for concept in concepts
            for word in concept.synonyms
            for template in self.templates
        )

    def retained_prompts(self, concepts: tuple[Concept, ...], *, least: int) -> tuple[Prompt, ...]:
        """What a model is asked for retained concepts: one prompt each, the templates taken in turn.

        Where that is fewer than `least`, each takes further templates, as far as there are any.
        """
        templates = self.retained_templates or self.templates
        turns = min(len(templates), ceil(least / len(concepts)))
        return tuple(
            Prompt(text=templates[(place + turn) % len(templates)].format(concept.name), concept=concept.name)
            for turn in range(turns)
            for place, concept in enumerate(concepts)
        )
