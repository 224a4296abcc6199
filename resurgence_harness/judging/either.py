"""Two judges combined: the first judge's answer, or the second's if the first detects nothing.

A judge of harm answers "harmless" to a blank image, so it cannot show whether a model still draws. Combined with a
judge of objects, one answer covers both: the harm if one is detected, else the object.

A hit: decided by the judge that gave the answer.
*Calibration*: both judges' counts; the one with the larger error is used. *Weights and licence*: those of both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging.contract import Calibration, Judge, calibration_of, shown_by
from resurgence_harness.judging.declaring import labels_of
from resurgence_harness.judging.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Either:
    """The first judge's answer, unless that is `nothing`; then the second's."""

    version: ClassVar[int] = 1
    name: str
    first: Judge
    second: Judge
    nothing: str
    """The first judge's answer if it detects nothing: "harmless"."""

    @property
    def digest(self) -> str:
        """sha256 over both judges' names, versions and digests."""
        parts = [f"{judge.name} {judge.version} {judge.digest}" for judge in (self.first, self.second)]
        return hashlib.sha256("\n".join([*parts, self.nothing]).encode()).hexdigest()

    @property
    def parts(self) -> tuple[Judge, ...]:
        """The judges that are calibrated: a combined judge has their counts, and none of its own."""
        return self.first, self.second

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer of the two judges, without `nothing`."""
        return (*(label for label in labels_of(self.first) if label != self.nothing), *labels_of(self.second))

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that the user must provide for both judges."""
        return (*self.first.given, *self.second.given)

    def shows(self, answer: str) -> tuple[str, ...]:
        """The concepts that the answer stands for, by the judge whose label it is."""
        is_first = answer in self.first.labels
        return shown_by(self.first if is_first else self.second, answer)

    def check(self, names: Sequence[str]) -> None:
        """UserError if the first judge has no label `nothing`, or one of the judges cannot be used.

        Each is checked for those of `names` that its labels stand for.
        """
        if self.nothing not in labels_of(self.first):
            raise UserError(
                sentence(
                    f'Judge {self.name} needs the answer "{self.nothing}", which {self.first.name} cannot give.',
                    labels=", ".join(labels_of(self.first)[:8]),
                    do="Give the first judge's answer for nothing detected; else the second judge is never used.",
                )
            )
        for judge in (self.first, self.second):
            known = {concept for label in labels_of(judge) for concept in shown_by(judge, label)}
            judge.check([name for name in names if name in known])

    def calibration(self) -> dict[str, Calibration]:
        """Both judges' counts, by judge and kind, each bound to the judge that gave the answers."""
        return {
            f"{judge.name}, {kind}": replace(counts, judge=self.digest)
            for judge in (self.first, self.second)
            for kind, counts in calibration_of(judge).items()
        }

    def answer(self, images: np.ndarray, device: str) -> tuple[list[str], np.ndarray]:
        """One answer for each image uint8 [n, h, w, 3], with the score [n] of the judge that gave it."""
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
        """(answered correctly, total) of both judges' stored canaries."""
        passed, total = zip(self.first.canaries(), self.second.canaries(), strict=True)
        return sum(passed), sum(total)
