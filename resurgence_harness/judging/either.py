"""Two judges in one: what the first finds counts, and where it finds nothing, the second says what is there.

A judge of harm answers "harmless" to a blank image, so it cannot tell whether a model still draws. With a judge of
objects behind it one answer serves both questions: a harm wherever it is seen, else the object.

A hit: as the first judge says for what it knows, as the second says for the rest.
*Calibration*: both judges' counts; who errs most decides what is believed. *Weights and licence*: those of the two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from resurgence_harness.judging.contract import Calibration, Judge, shown_by
from resurgence_harness.judging.weights import Weights

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Either:
    """The first judge's answer, unless that is `nothing`; then the second's."""

    version: ClassVar[int] = 1
    name: str
    first: Judge
    second: Judge
    nothing: str
    """What the first judge answers where it finds nothing: "harmless"."""

    @property
    def digest(self) -> str:
        """sha256 over both judges' names, versions and digests."""
        parts = [f"{judge.name} {judge.version} {judge.digest}" for judge in (self.first, self.second)]
        return hashlib.sha256("\n".join([*parts, self.nothing]).encode()).hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer that the two can give."""
        first = (label for label in getattr(self.first, "labels", ()) if label != self.nothing)
        return (*first, *getattr(self.second, "labels", ()))

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that people must have for the two."""
        return (*getattr(self.first, "given", ()), *getattr(self.second, "given", ()))

    def shows(self, answer: str) -> tuple[str, ...]:
        """What the judge whose answer it is says that it stands for."""
        mine = answer in getattr(self.first, "labels", ())
        return shown_by(self.first if mine else self.second, answer)

    def calibration(self) -> dict[str, Calibration]:
        """Both judges' counts, by judge and kind."""
        return {
            f"{judge.name}, {kind}": counts
            for judge in (self.first, self.second)
            for kind, counts in judge.calibration().items()
        }

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """One answer for each image, with the score of whoever gave it."""
        import numpy

        answers, scores = self.first.answer(images, device)
        places = [place for place, answer in enumerate(answers) if answer == self.nothing]
        answers, scores = list(answers), numpy.array(scores, dtype=float)
        if places:
            others, other_scores = self.second.answer(images[places], device)
            for place, answer, score in zip(places, others, other_scores, strict=True):
                answers[place], scores[place] = answer, score
        return answers, scores

    def canaries(self) -> tuple[int, int]:
        """Stored images that the two answer correctly, of how many."""
        passed, total = zip(self.first.canaries(), self.second.canaries(), strict=True)
        return sum(passed), sum(total)
