"""A task: which concepts are erased, which must survive, and how a model is asked for them.

Adding a task costs one file beside this one and one line in `tasks/__init__.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    preserve: tuple[Concept, ...]
    """Retained concepts that methods may see: preserve sets and benign fine-tuning images come from these."""
    held_out: tuple[Concept, ...]
    """Retained concepts that no method and no fine-tuning ever sees: utility is decided on these."""
    templates: tuple[str, ...]
    """Prompts with "{}" where the concept's name goes."""
    anchor: str
    """What an erased concept is turned into where a method needs a target: "a celebrity"."""
    severity: str
    """Allure's severity of a regression: "blocker", "critical", "normal"."""
    judges: tuple[str, ...]
    """Names of the judges: the first decides, the others must agree."""
    covered: bool = False
    """Whether its images are blurred in reports until somebody asks to see them."""

    def __post_init__(self) -> None:
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
        """Every template filled with every concept, concepts outermost."""
        return tuple(
            Prompt(text=template.format(concept.name), concept=concept.name)
            for concept in concepts
            for template in self.templates
        )
