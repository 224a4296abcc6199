"""All judgments of one model's images for one probe by one judge.

An image is a hit (the concept is there), clear (it is not), or abstained (the judge could not decide). Abstained is
never clear. An Evidence must be complete: an empty set, a missing or repeated row and a NaN are errors, since each of
them could otherwise pass as safe.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from resurgence_harness.errors import HarnessError, JudgeError, sentence
from resurgence_harness.statistics.designs import FIXED, Design, Limits


class Outcome(StrEnum):
    """A judge's decision on one image."""

    HIT = "hit"
    CLEAR = "clear"
    ABSTAINED = "abstained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One judge's result for one image."""

    concept: str
    """Name of the prompted concept."""
    prompt: str
    """Text of the prompt."""
    seed: int
    """Seed of the initial noise."""
    outcome: Outcome
    """Whether the concept was detected."""
    score: float
    """The judge's score of its answer; stored so that another threshold can be applied without judging again."""
    answer: str
    """The judge's answer, for example the name it recognised."""
    shows: tuple[str, ...] | None = None
    """Concepts that the answer stands for; None if the answer is itself the concept's name."""

    def __post_init__(self) -> None:
        if not isinstance(self.outcome, Outcome):
            raise JudgeError(
                sentence(
                    f"A judgment has the outcome {self.outcome!r}.",
                    prompt=self.prompt,
                    seed=self.seed,
                    do="Give an Outcome: HIT, CLEAR or ABSTAINED.",
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

    @property
    def seen(self) -> tuple[str, ...]:
        """The concepts that the judge detected in the image."""
        return (self.answer,) if self.shows is None else self.shows


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All judgments of (recipe, probe, judge), in the probe's order.

    HarnessError if it is empty, lacks rows or repeats one.
    """

    judgments: tuple[Judgment, ...]
    """One per image, in the order drawn."""
    planned: int
    """Number of requested images."""
    recipe: str
    """Label of the model, for example "micro → esd → lora"."""
    judge: str
    """Name of the judge."""
    design: Design = FIXED
    """How these images were chosen."""
    images: tuple[str, ...] = ()
    """sha256 of every set of judged images, in the order drawn; empty if not recorded."""
    drawn_with: frozenset[str] = frozenset()
    """Device and library versions with which they were drawn: one text per combination."""
    stored: tuple[str, ...] = ()
    """Keys of the stored judgments, in the order drawn; empty if they are not read from one artifact per block."""
    judge_version: str = ""
    """Version and weights of the judge, as text."""

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
        self.design.check(len(self.judgments))

    @classmethod
    def joined(cls, parts: Sequence[Evidence], design: Design) -> Evidence:
        """Parts drawn one after another as one evidence; HarnessError for parts of different models or judges."""
        first = parts[0]
        if {(part.recipe, part.judge) for part in parts} != {(first.recipe, first.judge)}:
            raise HarnessError(
                sentence(
                    "Evidence of several models or judges cannot be joined.",
                    models=", ".join(dict.fromkeys(part.recipe for part in parts)),
                    judges=", ".join(dict.fromkeys(part.judge for part in parts)),
                )
            )
        judgments = tuple(judgment for part in parts for judgment in part.judgments)
        return cls(
            judgments=judgments,
            planned=sum(part.planned for part in parts),
            recipe=first.recipe,
            judge=first.judge,
            design=design,
            images=tuple(digest for part in parts for digest in part.images),
            drawn_with=frozenset[str]().union(*(part.drawn_with for part in parts)),
            stored=tuple(place for part in parts for place in part.stored)
            if all(part.stored for part in parts)
            else (),
            judge_version=first.judge_version,
        )

    def __len__(self) -> int:
        return len(self.judgments)

    @cached_property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """The (prompt, seed) of every judgment, in order."""
        return tuple((judgment.prompt, judgment.seed) for judgment in self.judgments)

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The prompted concept of every judgment, in order."""
        return tuple(judgment.concept for judgment in self.judgments)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The outcome of every judgment, in order."""
        return tuple(judgment.outcome for judgment in self.judgments)

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        """Names of the prompted concepts, in order of first appearance."""
        return tuple(dict.fromkeys(self.asked))


class DrawnDifferently(HarnessError):
    """Images of two models were drawn with other devices, libraries or kernels, so they cannot be compared."""


def judgments_digest(judgments: Sequence[Judgment]) -> str:
    """sha256 over what was judged and decided, in the order drawn: a record of judgments that can be checked."""
    rows = [[one.concept, one.prompt, one.seed, one.outcome.value, one.answer] for one in judgments]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()


def check_same_means(first: Evidence, second: Evidence) -> None:
    """Raise DrawnDifferently if images are known to be drawn on different devices or with different libraries.

    A difference between two models could then be one between two machines.
    """
    ways = first.drawn_with | second.drawn_with
    if first.drawn_with and second.drawn_with and len(ways) > 1:
        raise DrawnDifferently(
            sentence(
                "Two models cannot be compared: their images were drawn with different devices or libraries.",
                models=f"{first.recipe}; {second.recipe}",
                **{f"drawn{' ' * place}": way for place, way in enumerate(sorted(ways))},
                do="Draw both in one environment, with a separate store: --resurgence-store DIR.",
            )
        )


def check_paired(first: Evidence, second: Evidence) -> None:
    """Raise HarnessError unless both hold the same rows in the same order: same prompt, concept and initial noise."""
    check_same_means(first, second)
    if first.design != second.design:
        raise HarnessError(
            sentence(
                "Two evidences cannot be paired: their images were chosen in different ways.",
                **{first.recipe: first.design.description, f"{second.recipe} ": second.design.description},
                do="Sample both models with the same rows, in the same order.",
            )
        )
    if len(first) != len(second):
        raise HarnessError(
            sentence(
                "Two evidences cannot be paired: they differ in length.",
                **{first.recipe: len(first), f"{second.recipe} ": len(second)},
                do="Sample both models with the same probe.",
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
            do="Sample both models with the same probe and keep its order.",
        )
    )


def check_same_grid(first: Evidence, second: Evidence) -> None:
    """Raise HarnessError unless one holds the first rows of the other: the same grid, drawn to different lengths."""
    check_same_means(first, second)
    both = min(len(first), len(second))
    same = first.rows[:both] == second.rows[:both] and first.asked[:both] == second.asked[:both]
    if first.design == second.design and same:
        return
    raise HarnessError(
        sentence(
            "Two models of one claim were sampled with different rows.",
            **{first.recipe: first.design.description, f"{second.recipe} ": second.design.description},
            do="Sample both with the rows of one grid, in its order.",
        )
    )


def check_drawn_apart(first: Evidence, second: Evidence) -> None:
    """Raise HarnessError if two models with different weights gave identical images: one was sampled twice."""
    if first.images and first.images == second.images:
        raise HarnessError(
            sentence(
                "Two models with different weights drew identical images, so one of them was never sampled.",
                models=f"{first.recipe}; {second.recipe}",
                images=f"{len(first)}, sha256 {first.images[0][:16]} …",
                do="Check how the second model is loaded; a comparison of a model with itself always holds.",
            )
        )


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """How the images of two models differ, row by row."""

    changes: tuple[int, ...]
    """Per pair, in the order drawn: 1 a hit was gained, −1 one was lost, 0 neither."""
    design: Design
    """How the pairs were chosen."""
    whole: bool = True
    """False if restricted to the pairs whose second image could be judged."""

    @cached_property
    def lost(self) -> int:
        """Hits of the first that the second does not show."""
        return self.changes.count(-1)

    @cached_property
    def gained(self) -> int:
        """Hits of the second that the first does not show."""
        return self.changes.count(1)

    @property
    def total(self) -> int:
        """Pairs compared."""
        return len(self.changes)

    @property
    def difference(self) -> float:
        """Rate of the second minus rate of the first."""
        return (self.gained - self.lost) / self.total

    @property
    def fresh_error(self) -> float:
        """Standard error of the difference over independent fresh seeds, prompts and concepts."""
        return math.sqrt(max((self.gained + self.lost) / self.total - self.difference**2, 0.0) / self.total)

    def against(self, limit: float) -> float:
        """An e-value against "the difference is at most the limit", by the design."""
        return self.design.against(self.changes, limit, paired=True)

    def bounds(self, alpha: float, limits: Limits) -> tuple[float, float]:
        """One-sided bounds of the difference, alpha on each side, by the design, for comparison with `limits`."""
        return self.design.difference(self.changes, alpha, whole=self.whole, limits=limits)


def pairs(first: Evidence, second: Evidence) -> tuple[Pairs, Pairs | None]:
    """All pairs, and those pairs whose second image could be judged (None if there is no such pair).

    In a claim that nothing rose, an abstained *second* image is the one that could hide a hit; an abstained first
    image counts as no hit, which can only make the rise look larger.
    """
    check_paired(first, second)
    hit, abstained = Outcome.HIT, Outcome.ABSTAINED
    changes = [(two is hit) - (one is hit) for one, two in zip(first.outcomes, second.outcomes, strict=True)]
    everything = Pairs(changes=tuple(changes), design=second.design)
    if abstained not in second.outcomes:
        return everything, everything
    seen = tuple(change for change, two in zip(changes, second.outcomes, strict=True) if two is not abstained)
    return everything, Pairs(changes=seen, design=second.design, whole=False) if seen else None


def agreement(first: Evidence, second: Evidence) -> tuple[int, int]:
    """(images with the same outcome, all images) of two judges; HarnessError unless both judged the same rows."""
    check_paired(first, second)
    same = sum(one is other for one, other in zip(first.outcomes, second.outcomes, strict=True))
    return same, len(first)
