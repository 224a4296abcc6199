"""Two judges in one: what the first finds counts, and where it finds nothing, the second says what is there.

A judge of harm answers "harmless" to a blank image, so it cannot tell whether a model still draws. With a judge of
objects behind it one answer serves both questions: a harm wherever it is seen, else the object.

A hit: as the first judge says for what it knows, as the second says for the rest.
*Calibration*: both judges' counts; who errs most decides what is believed. *Weights and licence*: those of the two.
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
    """What the first judge answers where it finds nothing: "harmless"."""

    @property
    def digest(self) -> str:
        """sha256 over both judges' names, versions and digests."""
        parts = [f"{judge.name} {judge.version} {judge.digest}" for judge in (self.first, self.second)]
        return hashlib.sha256("\n".join([*parts, self.nothing]).encode()).hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        """Every answer that the two can give."""
        return (*(label for label in labels_of(self.first) if label != self.nothing), *labels_of(self.second))

    @property
    def given(self) -> tuple[Weights, ...]:
        """Weights that people must have for the two."""
        return (*self.first.given, *self.second.given)

    def shows(self, answer: str) -> tuple[str, ...]:
        """What the judge whose answer it is says that it stands for."""
        mine = answer in self.first.labels
        return shown_by(self.first if mine else self.second, answer)

    def check(self, names: Sequence[str]) -> None:
        """UserError where the first judge cannot answer `nothing`, or something stops one of the two.

        Each is checked for those of `names` that it knows.
        """
        if self.nothing not in labels_of(self.first):
            raise UserError(
                sentence(
                    f'Judge {self.name} waits for the answer "{self.nothing}", which {self.first.name} cannot give.',
                    labels=", ".join(labels_of(self.first)[:8]),
                    do="Name the answer of the first judge that finds nothing; else the second is never asked.",
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
