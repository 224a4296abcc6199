"""The agreement of two labellers beyond chance.

    κ = (p_o − p_e) / (1 − p_e)        p_o: share of equal labels; p_e: expected share, from both labellers' frequencies

Source: Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960) 37.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from resurgence_harness.errors import SpecError, sentence


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two labellers agree."""

    same: int
    """Pictures with equal labels."""
    pictures: int
    """Pictures that both labelled."""
    kappa: float | None
    """Cohen's kappa; None if both gave all pictures one and the same label, where it is undefined."""


def agreement(labels: Sequence[tuple[str, str]]) -> Agreement:
    """Cohen's kappa of pairs of labels, one pair for each picture; SpecError without any."""
    if not labels:
        raise SpecError(sentence("Two labellers have no picture in common.", do="Let both label the same pictures."))
    n = len(labels)
    same = sum(one == other for one, other in labels)
    first, second = Counter(one for one, _ in labels), Counter(other for _, other in labels)
    expected = sum(first[label] * second[label] for label in first) / n**2
    kappa = None if expected == 1 else (same / n - expected) / (1 - expected)
    return Agreement(same=same, pictures=n, kappa=kappa)
