"""What each stage of a model's life did to the concepts: erased, not erased, brought back, still drawn.

A life is a chain of unlearnings and fine-tunings. After every stage the same (prompt, seed) rows are sampled, so the
rates along the life differ by the models alone. The verdict of a cell is about the last stage; what is said here of the
stages is information, at the policy's level limit.

Error rate: of n stages each allows two statements, that concepts which it erases are drawn above the limit, and that
concepts which an earlier stage erased are. Both are tested at α / 2n, so the probability that any of a life's
statements is wrong is at most α. Bounds are those of the sampling design, restricted to the concepts' rows: a uniform
shuffle of a grid is a uniform shuffle of each part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.statistics.designs import Design, Hybrid, Shuffled
from resurgence_harness.statistics.evidence import Evidence, check_same_grid
from resurgence_harness.statistics.intervals import zero_event_floor
from resurgence_harness.statistics.policies import Policy
from resurgence_harness.statistics.rates import Rate

STATEMENTS = 2
"""Statements about each stage that share the error."""


class StageState(StrEnum):
    """The rate of all concepts that were erased so far, compared with the level limit."""

    WITHIN = "within"
    """The upper bound is below the limit."""
    ABOVE = "above"
    """The lower bound is above it."""
    OPEN = "open"
    """Neither is shown."""


@dataclass(frozen=True, kw_only=True)
class StageEvidence:
    """The deciding judge's evidence on the model after one stage. HarnessError without the rows of a named concept."""

    erases: tuple[str, ...]
    """Names of the concepts that the stage erases; empty for a fine-tuning."""
    drawn: Evidence
    """Prompts of every concept that any stage of the life erases."""
    retained: Evidence
    """Prompts of held-out retained concepts."""
    rows: Mapping[str, int]
    """Concept → its rows in the whole grid, drawn or not."""

    def __post_init__(self) -> None:
        if missing := {*self.erases, *self.drawn.concepts} - set(self.rows):
            raise HarnessError(sentence(f"A stage erases {min(missing)!r}, for which its grid has no prompt."))

    def of(self, names: Collection[str]) -> Evidence | None:
        """The evidence on the prompts of some concepts; None if none of these was drawn."""
        judgments = tuple(one for one in self.drawn.judgments if one.concept in names)
        if not judgments:
            return None
        grid = sum(self.rows[name] for name in names)
        return Evidence(
            judgments=judgments,
            planned=len(judgments),
            recipe=self.drawn.recipe,
            judge=self.drawn.judge,
            design=_restricted(self.drawn.design, grid),
            images=self.drawn.images,
            drawn_with=self.drawn.drawn_with,
        )

    def state(self, names: Collection[str], level: float, alpha: float) -> StageState | None:
        """The rate of some concepts, compared with the limit at this alpha; None if none of them was drawn."""
        evidence = self.of(names)
        if evidence is None:
            return None
        rate = Rate.of(evidence)
        if rate.interval(alpha)[0] > level:
            return StageState.ABOVE
        return StageState.WITHIN if rate.cautious_high(alpha) < level else StageState.OPEN


@dataclass(frozen=True, kw_only=True)
class StageAccount:
    """What is known of one stage."""

    erased: Rate | None
    """Of the concepts that this stage and those before it erase; None if there are none yet."""
    waiting: Rate | None
    """Of the concepts that only later stages erase; None if there are none."""
    retained: Rate
    state: StageState | None
    """Of `erased`; None without it."""
    not_erased: bool
    """Whether concepts that this stage erases are demonstrably drawn above the limit."""
    came_back: bool
    """Whether concepts that an earlier stage erased are demonstrably drawn above the limit, which was not shown for
    the same concepts one stage earlier."""
    hits: Mapping[str, tuple[int, int]]
    """Erased concepts that were seen → (images that show it, images)."""


def accounts(stages: Sequence[StageEvidence], *, level: float, alpha: float) -> tuple[StageAccount, ...]:
    """One account for each stage, in order. HarnessError if the stages were sampled with different rows."""
    for one in stages[1:]:
        check_same_grid(stages[0].drawn, one.drawn)
    share = alpha / (STATEMENTS * max(len(stages), 1))
    every = tuple(dict.fromkeys(name for stage in stages for name in stage.erases))
    before: dict[str, None] = {}
    found = []
    for place, stage in enumerate(stages):
        old = [name for name in before if name not in stage.erases]
        before |= dict.fromkeys(stage.erases)
        erased, waiting = stage.of(before), stage.of([name for name in every if name not in before])
        back = stage.state(old, level, share) is StageState.ABOVE
        by_concept = Rate.of(erased).by_concept if erased is not None else {}
        found.append(
            StageAccount(
                erased=Rate.of(erased) if erased is not None else None,
                waiting=Rate.of(waiting) if waiting is not None else None,
                retained=Rate.of(stage.retained),
                state=stage.state(before, level, share),
                not_erased=stage.state(stage.erases, level, share) is StageState.ABOVE,
                came_back=back and stages[place - 1].state(old, level, share) is not StageState.ABOVE,
                hits={name: (rate.hits, rate.images) for name, rate in by_concept.items() if rate.hits},
            )
        )
    return tuple(found)


def check_stages(stages: int, images: int, policy: Policy) -> None:
    """UserError if this number of images per stage cannot show that any of so many stages is within the level limit."""
    needed = zero_event_floor(policy.level, policy.alpha / (STATEMENTS * stages)) if stages else 0
    if images < needed:
        raise UserError(
            sentence(
                f"The recipe has too many stages for its images: {stages} stages need {needed} images each.",
                images=f"{images} of erased concepts at each stage",
                why=f"all stages share the error of {policy.alpha:g}, for a level below {100 * policy.level:g} %",
                do="Sample more seeds (--resurgence-seeds), or shorten the recipe.",
            )
        )


def _restricted(design: Design, rows: int) -> Design:
    """The design of the rows of some concepts of a grid."""
    if isinstance(design, Shuffled):
        return Shuffled(rows)
    return Hybrid(rows) if isinstance(design, Hybrid) else design
