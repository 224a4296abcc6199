"""All judgments of one model, asked by one probe and seen by one judge.

An image is a hit (the concept is there), clear (it is not), or abstained (nobody could say). Abstained is never clear.
An Evidence is complete or it is not made at all: an empty set, a missing or repeated row and a NaN are errors, since
each of them would otherwise read as safety.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from resurgence_harness.errors import HarnessError, JudgeError, sentence


class Outcome(StrEnum):
    """What a judge says of one image."""

    HIT = "hit"
    CLEAR = "clear"
    ABSTAINED = "abstained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """What one judge said of one image."""

    concept: str
    """Name of the concept that the prompt asks for."""
    prompt: str
    """Text of the prompt."""
    seed: int
    """Seed of the initial noise."""
    outcome: Outcome
    """Whether the concept was seen."""
    score: float
    """The judge's own number for its answer; kept so that another threshold needs no new look at the image."""
    answer: str
    """The judge's answer, for example the name it recognised."""

    def __post_init__(self) -> None:
        if not isinstance(self.outcome, Outcome):
            raise JudgeError(
                sentence(
                    f"A judgment has the outcome {self.outcome!r}.",
                    prompt=self.prompt,
                    seed=self.seed,
                    do="A judge says hit, clear or abstained; anything else is not a judgment.",
                )
            )
        if not math.isfinite(self.score):
            raise JudgeError(
                sentence(
                    f"A judge gave the score {self.score}.",
                    prompt=self.prompt,
                    seed=self.seed,
                    answer=self.answer,
                    do="A score that is not a number is no evidence; check the judge's weights and the image.",
                )
            )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Every judgment of (recipe, probe, judge), in the probe's order, complete."""

    judgments: tuple[Judgment, ...]
    """One per image."""
    planned: int
    """How many images the probe asked for."""
    recipe: str
    """The model in words, for example "micro → esd → lora"."""
    judge: str
    """Name of the judge."""

    def __post_init__(self) -> None:
        facts = {"model": self.recipe, "judge": self.judge, "planned": self.planned, "judged": len(self.judgments)}
        if not self.judgments or self.planned < 1:
            raise HarnessError(
                sentence("An evidence holds no image.", **facts, do="An empty set supports no verdict; draw images.")
            )
        if len(self.judgments) != self.planned:
            what = "lacks" if len(self.judgments) < self.planned else "has too many"
            off = abs(self.planned - len(self.judgments))
            raise HarnessError(
                sentence(f"An evidence {what} rows: {off}.", **facts, do="Draw and judge every planned image once.")
            )
        if len(set(self.rows)) < len(self.judgments):
            seen: set[tuple[str, int]] = set()
            repeated = next(row for row in self.rows if row in seen or seen.add(row))  # type: ignore[func-returns-value]
            raise HarnessError(
                sentence(
                    "An evidence judges the same image twice.",
                    **facts,
                    repeated=f"{repeated[0]!r}, seed {repeated[1]}",
                    do="Every (prompt, seed) may appear once; a repeated image is not new evidence.",
                )
            )

    def __len__(self) -> int:
        return len(self.judgments)

    @cached_property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """The (prompt, seed) of every judgment, in order."""
        return tuple((judgment.prompt, judgment.seed) for judgment in self.judgments)

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The concept that every judgment's prompt asks for, in order."""
        return tuple(judgment.concept for judgment in self.judgments)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome of every judgment, in order."""
        return tuple(judgment.outcome for judgment in self.judgments)

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """Names of the concepts asked for, in order of first appearance."""
        return tuple(dict.fromkeys(self.asked))


def check_paired(first: Evidence, second: Evidence) -> None:
    """Raise HarnessError unless both hold the same rows in the same order: same prompt, concept and initial noise."""
    if len(first) != len(second):
        raise HarnessError(
            sentence(
                "Two evidences cannot be paired: they differ in length.",
                **{first.recipe: len(first), f"{second.recipe} ": len(second)},
                do="Ask both models with the same probe.",
            )
        )
    if first.rows == second.rows and first.asked == second.asked:
        return
    both = zip(first.judgments, second.judgments, strict=True)
    place, (one, other) = next(
        (place, (one, other))
        for place, (one, other) in enumerate(both)
        if (one.prompt, one.seed, one.concept) != (other.prompt, other.seed, other.concept)
    )
    raise HarnessError(
        sentence(
            f"Two evidences cannot be paired: row {place} differs.",
            one=f"{one.prompt!r} ({one.concept}), seed {one.seed}; {first.recipe}",
            other=f"{other.prompt!r} ({other.concept}), seed {other.seed}; {second.recipe}",
            do="Ask both models with the same probe and keep its order.",
        )
    )


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """How the images of two models differ, row by row."""

    lost: int
    """Hits of the first that the second does not show."""
    gained: int
    """Hits of the second that the first does not show."""
    total: int
    """Pairs compared."""

    @property
    def difference(self) -> float:
        """Rate of the second minus rate of the first."""
        return (self.gained - self.lost) / self.total


def pairs(first: Evidence, second: Evidence) -> tuple[Pairs, Pairs | None]:
    """All pairs, and those pairs whose second image could be judged (None if there is no such pair).

    In a claim that nothing rose, an abstained *second* image is the one that could hide a hit; an abstained first
    image counts as no hit, which can only make the rise look larger.
    """
    check_paired(first, second)
    counts = Counter(zip(first.outcomes, second.outcomes, strict=True))
    hit, clear, abstained = Outcome.HIT, Outcome.CLEAR, Outcome.ABSTAINED
    gained, unseen = counts[clear, hit] + counts[abstained, hit], counts[hit, abstained]
    seen = len(first) - unseen - counts[clear, abstained] - counts[abstained, abstained]
    everything = Pairs(lost=counts[hit, clear] + unseen, gained=gained, total=len(first))
    return everything, Pairs(lost=counts[hit, clear], gained=gained, total=seen) if seen else None


def agreement(first: Evidence, second: Evidence) -> tuple[int, int]:
    """On how many images two judges say the same, and of how many; both must have seen the same rows."""
    check_paired(first, second)
    same = sum(one is other for one, other in zip(first.outcomes, second.outcomes, strict=True))
    return same, len(first)
