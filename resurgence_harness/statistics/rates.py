"""Hit rates: hits among all images, abstained images counted separately, also per concept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.designs import FIXED, Design
from resurgence_harness.statistics.evidence import Evidence, Judgment, Outcome
from resurgence_harness.statistics.intervals import check_alpha


@dataclass(frozen=True)
class Rate:
    """Hits among all images of an arm.

    The rate divides by *all* images, the abstained included: dropping those that could not be judged would be selection
    after treatment. `conditional` is the rate among the judged; an abstained image is never evidence of safety, so
    `cautious_high` takes the larger of both upper bounds.
    """

    hits: int
    """Images that show the concept."""
    judged: int
    """Images that could be judged, hits included."""
    abstained: int
    """Images that could not."""
    design: Design = field(default=FIXED, compare=False)
    """How the images were chosen."""
    drawn: tuple[Outcome, ...] = field(default=(), compare=False, repr=False)
    """The outcomes in the order drawn; required for every design except `Fixed`."""
    asked: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """The prompted concept of each image, in the same order."""

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.judged and self.abstained >= 0):
            raise HarnessError(
                sentence(
                    "The counts of a rate contradict each other.",
                    hits=self.hits,
                    judged=self.judged,
                    abstained=self.abstained,
                    do="Count the judgments again.",
                )
            )
        if self.images == 0:
            raise HarnessError(
                sentence("A rate of no images has no value.", do="Draw images; an empty set is no evidence of safety.")
            )
        if self.design != FIXED and len(self.drawn) != self.images:
            raise HarnessError(
                sentence("A rate of shuffled images lacks their order.", do="Count it from its evidence: Rate.of.")
            )

    @classmethod
    def of(cls, evidence: Evidence) -> Rate:
        """The rate at which the prompted concepts were detected."""
        return _counted(evidence, evidence.outcomes)

    @classmethod
    def of_answers(cls, evidence: Evidence, names: Collection[str]) -> Rate:
        """The rate at which any of `names` was detected, whatever the prompt."""
        names = frozenset(names)

        def outcome(judgment: Judgment) -> Outcome:
            if judgment.outcome is Outcome.ABSTAINED:
                return Outcome.ABSTAINED
            return Outcome.CLEAR if names.isdisjoint(judgment.seen) else Outcome.HIT

        return _counted(evidence, [outcome(judgment) for judgment in evidence.judgments])

    @property
    def images(self) -> int:
        """All images: judged and abstained."""
        return self.judged + self.abstained

    @property
    def value(self) -> float:
        """Hits of all images."""
        return self.hits / self.images

    @property
    def conditional(self) -> float | None:
        """Hits of the judged images; None if none could be judged. Secondary: it selects after treatment."""
        return self.hits / self.judged if self.judged else None

    def interval(self, alpha: float) -> tuple[float, float]:
        """One-sided bounds of `value`, alpha on each side, by the design; exact if the number was fixed."""
        if alpha not in self._known:
            check_alpha(alpha)
            self._known[alpha] = self.design.proportion(self._outcomes, alpha)
        return self._known[alpha]

    def cautious_high(self, alpha: float) -> float:
        """The larger of the upper bounds among all and among judged images; 1 if none could be judged."""
        high = self.interval(alpha)[1]
        if not self.abstained:
            return high
        if not self.judged:
            return 1.0
        judged = (
            [hit for hit, one in zip(self._outcomes, self.drawn, strict=True) if one is not Outcome.ABSTAINED]
            if self.drawn
            else self._outcomes[: self.judged]
        )
        return max(high, self.design.proportion(judged, alpha, whole=False)[1])

    def against(self, limit: float) -> float:
        """An e-value against "`value` is at most the limit", by the design."""
        return self.design.against(self._outcomes, limit, paired=False)

    @property
    def fresh_error(self) -> float:
        """Standard error of `value` over independent fresh seeds, prompts and concepts."""
        return math.sqrt(self.value * (1 - self.value) / self.images)

    @cached_property
    def by_concept(self) -> Mapping[str, Rate]:
        """The rate per prompted concept, each as if its number of images had been fixed: for reports, not decisions."""
        counts = Counter(zip(self.asked, self.drawn, strict=True))
        hit, clear, abstained = Outcome.HIT, Outcome.CLEAR, Outcome.ABSTAINED
        return {
            concept: Rate(
                counts[concept, hit], counts[concept, hit] + counts[concept, clear], counts[concept, abstained]
            )
            for concept in dict.fromkeys(self.asked)
        }

    @cached_property
    def _outcomes(self) -> Sequence[int]:
        """1 for a hit, else 0, in the order drawn; hits first if the order is not known."""
        if not self.drawn:
            return (1,) * self.hits + (0,) * (self.images - self.hits)
        hit = Outcome.HIT
        return [1 if one is hit else 0 for one in self.drawn]

    @cached_property
    def _known(self) -> dict[float, tuple[float, float]]:
        """Cache of computed bounds, by alpha."""
        return {}

    def as_dict(self, alpha: float) -> dict[str, Any]:
        """For JSON: rate, low, high, hits, judged, abstained."""
        low, high = self.interval(alpha)
        return {
            "rate": self.value,
            "low": low,
            "high": high,
            "hits": self.hits,
            "judged": self.judged,
            "abstained": self.abstained,
        }


def _counted(evidence: Evidence, outcomes: Sequence[Outcome]) -> Rate:
    abstained = outcomes.count(Outcome.ABSTAINED)
    return Rate(
        outcomes.count(Outcome.HIT),
        len(outcomes) - abstained,
        abstained,
        design=evidence.design,
        drawn=tuple(outcomes),
        asked=evidence.asked,
    )
