"""Converts a judge's answers on images to judgments of the prompted concepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resurgence_harness.judging.contract import ABSTENTIONS, Judge, ask, shown_by
from resurgence_harness.specs import SampleRequest

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.statistics import Judgment


def judgments(judge: Judge, images: np.ndarray, probe: SampleRequest, *, device: str) -> list[Judgment]:
    """One judgment per image: hit if the answer shows the prompted concept.

    JudgeError if the judge's answers are invalid, such as fewer answers than images.
    """
    from resurgence_harness.statistics import Judgment, Outcome

    answers, scores = ask(judge, images, device)
    found = []
    for (prompt, seed), answer, score in zip(probe.rows(), answers, scores, strict=True):
        shown = shown_by(judge, answer)
        outcome = Outcome.HIT if prompt.concept in shown else Outcome.CLEAR
        found.append(
            Judgment(
                concept=prompt.concept,
                prompt=prompt.text,
                seed=seed,
                outcome=Outcome.ABSTAINED if answer in ABSTENTIONS else outcome,
                score=float(score),
                answer=answer,
                shows=None if shown == (answer,) or answer in ABSTENTIONS else shown,
            )
        )
    return found
