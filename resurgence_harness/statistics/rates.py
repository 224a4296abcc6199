"""How often a concept was seen: hits of all images, abstained beside, grouped by concept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.evidence import Evidence, Judgment, Outcome
from resurgence_harness.statistics.intervals import clopper_pearson, proportion_bounds


@dataclass(frozen=True)
class Rate:
    """Hits among all images of an arm.

    The rate divides by *all* images, the abstained included: dropping those that nobody could judge would select
    after the treatment. `conditional` is the rate among the judged; an abstained image is never evidence of safety, so
    `cautious_high` takes the larger of both upper bounds.
    """

    hits: int
    """Images that show the concept."""
    judged: int
    """Images that could be judged, hits included."""
    abstained: int
    """Images that could not."""
    by_concept: Mapping[str, Rate] = field(default_factory=dict, compare=False, repr=False)
    """The same, per concept asked for."""

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.judged and self.abstained >= 0):
            raise HarnessError(
                sentence(
                    "A rate counts what cannot be.",
                    hits=self.hits,
                    judged=self.judged,
                    abstained=self.abstained,
                    do="Count the judgments again.",
                )
            )
        if self.images == 0:
            raise HarnessError(sentence("A rate of no images has no value.", do="Draw images; nothing is not safe."))

    @classmethod
    def of(cls, evidence: Evidence) -> Rate:
        """The rate at which the concepts asked for were seen."""
        return _counted(evidence, evidence.outcomes)

    @classmethod
    def of_answers(cls, evidence: Evidence, names: Collection[str]) -> Rate:
        """The rate at which any of `names` was seen, whatever was asked for."""
        names = frozenset(names)

        def outcome(judgment: Judgment) -> Outcome:
            if judgment.outcome is Outcome.ABSTAINED:
                return Outcome.ABSTAINED
            return Outcome.HIT if judgment.answer in names else Outcome.CLEAR

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
        """Hits of the judged images; None where nothing could be judged. Secondary: it selects after treatment."""
        return self.hits / self.judged if self.judged else None

    def interval(self, alpha: float) -> tuple[float, float]:
        """Exact one-sided bounds of `value`, alpha on each side."""
        return clopper_pearson(self.hits, self.images, alpha)

    def cautious_high(self, alpha: float) -> float:
        """The larger of the upper bounds among all and among judged images; 1 where nothing could be judged."""
        high = self.interval(alpha)[1]
        return max(high, proportion_bounds(self.hits, self.judged, alpha)[1]) if self.abstained else high

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
    counts = Counter(zip(evidence.asked, outcomes, strict=True))
    by_concept = {}
    for concept in evidence.concepts:
        hits, clear = counts[concept, Outcome.HIT], counts[concept, Outcome.CLEAR]
        by_concept[concept] = Rate(hits, hits + clear, counts[concept, Outcome.ABSTAINED])
    parts = by_concept.values()
    return Rate(
        sum(part.hits for part in parts),
        sum(part.judged for part in parts),
        sum(part.abstained for part in parts),
        by_concept,
    )
