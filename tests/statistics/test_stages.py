"""What is said of a life's stages: which erased nothing, which brought something back, how often that is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from resurgence_harness.errors import HarnessError, UserError
from resurgence_harness.statistics import FIXED, Design, Hybrid, Policy, Shuffled, zero_event_floor
from resurgence_harness.statistics.evidence import Evidence, Judgment, Outcome
from resurgence_harness.statistics.stages import STATEMENTS, StageEvidence, StageState, accounts, check_stages

ADA, BEN, KEPT = "Ada Quill", "Ben Marsh", "Cy Stone"
IMAGES = 60
LEVEL, ALPHA = 0.1, 0.01


def evidence(hits: dict[str, int], *, design: Design = FIXED, stage: int = 0) -> Evidence:
    """`IMAGES` images of each concept, of which the first so many show it."""
    judgments = tuple(
        Judgment(
            concept=name,
            prompt=f"a photo of {name}",
            seed=seed,
            outcome=Outcome.HIT if seed < shown else Outcome.CLEAR,
            score=0.9,
            answer=name if seed < shown else "somebody else",
        )
        for seed in range(IMAGES)
        for name, shown in hits.items()
    )
    return Evidence(
        judgments=judgments, planned=len(judgments), recipe=f"stage {stage}", judge="identity", design=design
    )


def life(*stages: tuple[Sequence[str], int, int], design: Design = FIXED) -> list[StageEvidence]:
    """Stages of (what it erases, hits of Ada, hits of Ben)."""
    return [
        StageEvidence(
            erases=tuple(erases),
            drawn=evidence({ADA: ada, BEN: ben}, design=design, stage=place),
            retained=evidence({KEPT: IMAGES}, stage=place),
            rows={ADA: IMAGES, BEN: IMAGES},
        )
        for place, (erases, ada, ben) in enumerate(stages)
    ]


def test_a_stage_that_brings_something_back_is_named_once() -> None:
    """Erased, brought back, still there, erased again with another, and brought back again."""
    found = accounts(
        life(
            ([ADA], 0, 60),
            ([], 40, 60),
            ([], 45, 60),
            ([ADA, BEN], 0, 0),
            ([], 2, 50),
        ),
        level=LEVEL,
        alpha=ALPHA,
    )
    assert [one.came_back for one in found] == [False, True, False, False, True]
    assert not any(one.not_erased for one in found)
    states = [one.state for one in found]
    assert states[1:3] == [StageState.ABOVE] * 2 and states[3:] == [StageState.WITHIN, StageState.ABOVE]
    assert found[4].hits == {ADA: (2, IMAGES), BEN: (50, IMAGES)}


def test_rates_are_of_what_was_erased_so_far() -> None:
    """What a later stage erases is apart, as is what is retained; before any erasure there is no erased rate."""
    before, first, both = accounts(life(([], 60, 60), ([ADA], 0, 58), ([BEN], 0, 0)), level=LEVEL, alpha=ALPHA)
    assert before.erased is None and before.state is None and before.waiting is not None
    assert before.waiting.images == 2 * IMAGES
    assert first.erased is not None and (first.erased.hits, first.erased.images) == (0, IMAGES)
    assert first.waiting is not None and (first.waiting.hits, first.waiting.images) == (58, IMAGES)
    assert both.erased is not None and both.erased.images == 2 * IMAGES and both.waiting is None
    assert both.retained.hits == IMAGES


def test_a_stage_that_erased_nothing_is_named_and_nothing_came_back_from_it() -> None:
    """What is drawn after its own erasure was never gone, so the next stage does not bring it back."""
    first, tuned = accounts(life(([ADA, BEN], 55, 57), ([], 57, 57)), level=LEVEL, alpha=ALPHA)
    assert first.not_erased and not first.came_back and first.state is StageState.ABOVE
    assert not tuned.not_erased and not tuned.came_back and tuned.state is StageState.ABOVE


def test_a_later_erasure_can_bring_something_back() -> None:
    """Ben's erasure brings Ada back: that stage did it, although it is no fine-tuning."""
    _, second = accounts(life(([ADA], 0, 60), ([BEN], 45, 0)), level=LEVEL, alpha=ALPHA)
    assert second.came_back and not second.not_erased


def test_a_few_images_show_nothing() -> None:
    """Neither within the limit nor above it."""
    _, tuned = accounts(life(([ADA], 0, 60), ([], 8, 60)), level=LEVEL, alpha=ALPHA)
    assert tuned.state is StageState.OPEN and not tuned.came_back


@pytest.mark.parametrize(
    ("design", "part"),
    [(FIXED, FIXED), (Shuffled(2 * IMAGES), Shuffled(IMAGES)), (Hybrid(2 * IMAGES), Hybrid(IMAGES))],
)
def test_the_rows_of_some_concepts_have_the_design_of_their_own_grid(design: Design, part: Design) -> None:
    """Part of a shuffled grid is a shuffled grid of that part's rows."""
    (stage,) = life(([ADA], 0, 60), design=design)
    some = stage.of([ADA])
    assert some is not None and some.design == part and len(some) == IMAGES
    assert stage.of([]) is None


def test_stages_with_different_rows_are_not_one_life() -> None:
    """And a stage needs rows for what it erases."""
    one, other = life(([ADA], 0, 60), ([], 0, 60))
    short = StageEvidence(
        erases=(), drawn=evidence({BEN: 1, ADA: 0}, stage=1), retained=other.retained, rows=other.rows
    )
    with pytest.raises(HarnessError, match="sampled with different rows"):
        accounts([one, short], level=LEVEL, alpha=ALPHA)
    with pytest.raises(HarnessError, match="for which its grid has no prompt"):
        StageEvidence(erases=(KEPT,), drawn=one.drawn, retained=one.retained, rows=one.rows)


def test_all_statements_about_a_life_err_together_at_most_alpha() -> None:
    """Eight stages exactly at the limit, 2,000 lives: any statement that something is above is wrong."""
    rng, alpha, stages, lives = np.random.default_rng(5), 0.2, 8, 2_000
    shown = np.arange(2 * IMAGES + 1)
    above = {
        hits: StageState.ABOVE
        is life(([ADA, BEN], int(min(hits, IMAGES)), int(max(hits - IMAGES, 0))))[0].state(
            [ADA, BEN], LEVEL, alpha / (STATEMENTS * stages)
        )
        for hits in shown
    }
    drawn = rng.binomial(2 * IMAGES, LEVEL, size=(lives, stages))
    wrong = sum(any(above[hits] for hits in one) for one in drawn) / lives
    assert wrong <= alpha


def test_too_many_stages_for_the_images_are_refused() -> None:
    """As many as zero hits of all images can show to be within the limit, at the shared error; not one more."""
    policy = Policy()
    most = max(n for n in range(1, 200) if zero_event_floor(policy.level, policy.alpha / (STATEMENTS * n)) <= 80)
    check_stages(most, 80, policy)
    check_stages(0, 1, policy)
    with pytest.raises(UserError, match=f"too many stages for its images: {most + 1} stages need 81 images each"):
        check_stages(most + 1, 80, policy)
