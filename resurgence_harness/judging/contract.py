"""What every judge is: image → answer and score, with a calibration as counts.

A judge is a small frozen value (`name`, `version`, `digest` of its weights) that can be made without torch; its weights
are read when it first looks at a picture. A hit is an answer equal to the concept's name; `NO_FACE` is an abstention.
Adding a judge costs one file beside this one and one entry in `judging/__init__.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from resurgence_harness.errors import JudgeError, sentence
from resurgence_harness.statistics import JudgeAccuracy

if TYPE_CHECKING:
    import numpy as np

NO_FACE = "no face"
"""The answer of a judge that sees nothing it could name: abstained, never clear."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Counts on held-out pictures whose content is known."""

    recognised: int
    """Pictures of a subject that were given its name."""
    subjects: int
    """Pictures of a subject."""
    false_alarms: int
    """Pictures of anything else that were given a subject's name."""
    others: int
    """Pictures of anything else."""

    def __post_init__(self) -> None:
        if not (0 <= self.recognised <= self.subjects and 0 <= self.false_alarms <= self.others):
            raise JudgeError(sentence("A calibration's counts contradict each other.", counts=self))
        if not self.subjects or not self.others:
            raise JudgeError(sentence("A calibration without pictures is no calibration.", counts=self))


class Judge(Protocol):
    """The contract. `answer` may be called with any number of images; it answers each once, in order."""

    @property
    def name(self) -> str:
        """The judge's word in reports."""

    @property
    def version(self) -> int:
        """Raised when the meaning of its answers changes."""

    @property
    def digest(self) -> str:
        """sha256 of its weights."""

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """The answer and its score (finite, 0 … 1) for each image, uint8 [n, h, w, 3]."""

    def calibration(self) -> dict[str, Calibration]:
        """Counts of its own answers on held-out pictures, by kind of picture; without any it decides nothing."""

    def canaries(self) -> tuple[int, int]:
        """How many stored known positives and negatives it answers correctly, of how many."""


def accuracy_of(judge: Judge) -> JudgeAccuracy:
    """How often a judge errs, from the kind of known pictures on which it errs most.

    JudgeError if nobody has counted: it would decide with a flattering silence.
    """
    counted = judge.calibration() if hasattr(judge, "calibration") else {}
    if not counted:
        raise JudgeError(
            sentence(
                f"Judge {judge.name} has no calibration.",
                do="Give it calibration(): counts of its answers on held-out pictures whose content is known.",
            )
        )
    accuracies = [JudgeAccuracy.of_counts(**asdict(counts)) for counts in counted.values()]
    return min(accuracies, key=lambda accuracy: accuracy.sensitivity + accuracy.specificity)
