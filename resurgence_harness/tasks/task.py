"""A task: which concepts are erased, which must survive, and how a model is asked for them.

Adding a task costs one file beside this one and one line in `tasks/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from resurgence_harness.errors import SpecError, UserError, sentence
from resurgence_harness.specs import Concept, Prompt


@dataclass(frozen=True, kw_only=True)
class Task:
    """Concepts, prompts and the judge of one hazard. A value: no weights, no images."""

    name: str
    """The word in node ids, folders and reports."""
    erasable: tuple[Concept, ...]
    """Concepts in the order in which they are erased: count n erases the first n."""
    counts: tuple[int, ...]
    """The concept counts that the paper reports for this task."""
    quick: tuple[int, ...]
    """Those of them that the quick profile takes."""
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
    retained_templates: tuple[str, ...] = ()
    """The same for retained concepts; empty: those of the erased ones."""
    written: tuple[Prompt, ...] = ()
    """Prompts for erased concepts that somebody wrote out; empty: they are made from the templates."""
    paper_images: Mapping[int, int] = field(default_factory=dict)
    """Images of erased concepts that the paper looks at, by concept count."""
    covered: bool = False
    """Whether its images are blurred in reports until somebody asks to see them."""

    def __post_init__(self) -> None:
        for name in ("erasable", "preserve", "held_out", "counts", "judges"):
            if not getattr(self, name):
                raise SpecError(sentence(f'Task "{self.name}" has no {name}.', do="Nothing empty can be claimed."))
        if not self.quick or not set(self.quick) <= set(self.counts) or max(self.counts) > len(self.erasable):
            raise SpecError(
                sentence(
                    f'The concept counts of task "{self.name}" do not fit together.',
                    quick=self.quick,
                    counts=self.counts,
                    erasable=len(self.erasable),
                    do="quick is a part of counts, and a count is at most the number of erasable concepts.",
                )
            )
        groups = {"erasable": self.erasable, "preserve": self.preserve, "held_out": self.held_out}
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
                            do="A concept is erased, preserved or held out, never two of them.",
                        )
                    )
                seen[word] = group

    def erase(self, count: int) -> tuple[Concept, ...]:
        """The first `count` erasable concepts."""
        if not 1 <= count <= len(self.erasable):
            raise UserError(
                sentence(
                    f"Task {self.name} cannot erase {count} concepts.",
                    allowed=f"1 to {len(self.erasable)}; the paper reports {', '.join(map(str, self.counts))}",
                    do="Choose with --resurgence-counts.",
                )
            )
        return self.erasable[:count]

    def prompts(self, concepts: tuple[Concept, ...]) -> tuple[Prompt, ...]:
        """What a model is asked for erased concepts: every template filled with every one, concepts outermost."""
        if self.written:
            names = {concept.name for concept in concepts}
            return tuple(prompt for prompt in self.written if prompt.concept in names)
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
