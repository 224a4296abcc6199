"""Confusion matrix, prompted concept × judge's answer.

Incidental resurgence is one of its blocks: an erased concept drawn for a prompt of a retained one (paper, section 4.3).
Rows are prompted concepts, columns the judge's answers; every image is counted in exactly one cell, an abstained one
under the judge's label for abstaining.
"""

from __future__ import annotations

from collections import Counter

from resurgence_harness.statistics.evidence import Evidence

Confusion = dict[str, dict[str, int]]
"""Prompted concept → the judge's answer → number of images, most frequent answer first."""


def confusion(evidence: Evidence) -> Confusion:
    """The answers by prompted concept; concepts in order of first appearance."""
    counts: dict[str, Counter[str]] = {concept: Counter() for concept in evidence.concepts}
    for judgment in evidence.judgments:
        counts[judgment.concept][judgment.answer] += 1
    return {concept: dict(answers.most_common()) for concept, answers in counts.items()}
