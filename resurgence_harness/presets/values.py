"""Values of a preset that a cell fills in: what a task, a concept count or a number of preserved names decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import log
from typing import Any

from resurgence_harness.specs import Concept, Probe, Prompt, Sampler


class FromTask(Enum):
    """A preset value that the task fills in."""

    TEMPLATES = "templates"
    """For a field of templates: the bare name and the templates of erased concepts."""
    ALL_TEMPLATES = "all templates"
    """The same and those of retained concepts, where a task asks for these in other words."""
    WITH_NEUTRAL = "with neutral"
    """For a set of preserved concepts or retain images: the task's, and its neutral things beside them."""

    def __repr__(self) -> str:
        """As it is written in presets and in tables of trials."""
        return f"FromTask.{self.name}"

    def __str__(self) -> str:
        """For tables of settings."""
        return f"the task's {self.value}" if self is not FromTask.WITH_NEUTRAL else "the task's, and neutral things"


@dataclass(frozen=True)
class ByCount:
    """A value for each number of erased concepts that somebody published one for."""

    values: tuple[tuple[int, Any], ...]
    """(count, value), rising."""

    @classmethod
    def of(cls, values: Mapping[int, Any]) -> ByCount:
        """From a table."""
        return cls(tuple(sorted(values.items())))

    def at(self, count: int) -> Any:
        """The value at this count, else that of the count nearest to it by ratio, the smaller of two."""
        return min(self.values, key=lambda pair: (abs(log(pair[0] / count)), pair[0]))[1]

    def __str__(self) -> str:
        """ "8000 for 1, 80000 for 10"."""
        return ", ".join(f"{value:g} for {count}" for count, value in self.values)


@dataclass(frozen=True)
class PerPreserved:
    """max(least, 1 / number of preserved texts), the empty text counted among them: UCE's rule of 2023."""

    least: float = 0.1

    def at(self, names: int) -> float:
        """The value for so many preserved names."""
        return max(self.least, 1 / (1 + names))

    def __str__(self) -> str:
        """The rule."""
        return f"max({self.least:g}, 1 / (1 + preserved names))"


@dataclass(frozen=True)
class OwnPictures:
    """Forget images of a method's own: so many of each concept, asked for in one way."""

    template: str
    """ "{}" is the name."""
    each: int
    """Images of each concept."""

    def at(self, concepts: Iterable[Concept], *, first: int, sampler: Sampler) -> Probe:
        """The probe, with seeds from `first` on."""
        prompts = tuple(Prompt(text=self.template.format(one.name), concept=one.name) for one in concepts)
        return Probe(prompts=prompts, seeds=tuple(range(first, first + self.each)), sampler=sampler)

    def __str__(self) -> str:
        """For tables of settings."""
        return f'{self.each} images of "{self.template}"'


FILLED_IN = (FromTask, ByCount, PerPreserved, OwnPictures)
"""Every kind of value that is none yet."""
