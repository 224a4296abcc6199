"""Asked × drawn: what a judge saw in the images that ask for each concept.

Incidental resurgence is its corner: an erased concept drawn where a retained one was asked for (paper, section 4.3).
Rows ask, columns answer; every image is in exactly one place, an abstained one under the judge's word for it.
"""

from __future__ import annotations

from collections import Counter

from resurgence_harness.statistics.evidence import Evidence

Confusion = dict[str, dict[str, int]]
"""Concept asked for → the judge's answer → images, the most frequent answer first."""


def confusion(evidence: Evidence) -> Confusion:
    """The answers by concept asked for; concepts in the order in which they were first asked."""
    counts: dict[str, Counter[str]] = {concept: Counter() for concept in evidence.concepts}
    for judgment in evidence.judgments:
        counts[judgment.concept][judgment.answer] += 1
    return {concept: dict(answers.most_common()) for concept, answers in counts.items()}
