"""Rates corrected for the judge's error: sensitivity and specificity, from calibration counts.

    Se = P(called a hit | the concept is there)        Sp = P(not called a hit | it is not there)
    q  = p Se + (1 − p)(1 − Sp)                        the rate that such a judge reports for a true rate p
    J  = Se + Sp − 1                                   Youden's index: 1 without error, 0 for guessing

With the same judge error in both arms a true difference D is observed as J·D, so a limit for D has to shrink by J
(`observed_delta`), or an imperfect judge makes the gate laxer. With different error the difference itself is biased:
at a true rate of 4 % in both arms, Se .6 → .9 gives an apparent rise of 1.2 points and Sp .99 → .96 one of 2.9. That is
likely here, since unlearned images are often degraded and fine-tuning restores what judges were trained on. So Se and
Sp are counted *per arm* (`corrected_difference`).

All bounds combine exact bounds of q, Se and Sp, each at a share of alpha, in the worst case. By Bonferroni the error is
at most alpha for all sizes and rates, also at 0 hits or with an error-free calibration, where the delta method
estimates zero variance. The cost is width. Asymptotic intervals are narrower if every count is large: Lee et al.,
How to correctly report LLM-as-a-judge evaluations (arXiv 2511.21140), and Lang and Reiczigel, Confidence limits for
prevalence of disease adjusted for estimated sensitivity and specificity, Preventive Veterinary Medicine 113 (2014) 13.

*Assumed throughout:* the calibration pictures resemble the images of their arm, and all are independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

from resurgence_harness.errors import HarnessError, JudgeError, SpecError, sentence
from resurgence_harness.statistics.evidence import Evidence, Judgment, Outcome, check_paired
from resurgence_harness.statistics.intervals import check_alpha, clopper_pearson


@dataclass(frozen=True, kw_only=True)
class JudgeAccuracy:
    """Counts of a judge's correct answers on pictures whose content is known.

    JudgeError for counts that are not whole numbers, contradict each other or lack one kind of picture.
    """

    true_positives: int
    """Pictures of the concept that were called a hit."""
    positives: int
    """Pictures of the concept."""
    true_negatives: int
    """Pictures of anything else that were not called a hit."""
    negatives: int
    """Pictures of anything else."""

    def __post_init__(self) -> None:
        if not all(isinstance(getattr(self, name), Integral) for name in self.__dataclass_fields__):
            raise JudgeError(sentence("A judge's accuracy is not counted in whole pictures.", counts=self))
        if not (0 <= self.true_positives <= self.positives and 0 <= self.true_negatives <= self.negatives):
            raise JudgeError(sentence("The counts of a judge's accuracy contradict each other.", counts=self))
        if not (self.positives and self.negatives):
            raise JudgeError(
                sentence(
                    "A judge's accuracy lacks pictures with the concept, or without it.",
                    counts=self,
                    do="Calibrate on pictures of both kinds; otherwise one of the two error rates is unknown.",
                )
            )

    @classmethod
    def of_counts(cls, *, recognised: int, subjects: int, false_alarms: int, others: int) -> JudgeAccuracy:
        """From the four counts of a judge's calibration, which records false alarms instead of true negatives."""
        return cls(
            true_positives=recognised, positives=subjects, true_negatives=others - false_alarms, negatives=others
        )

    @property
    def sensitivity(self) -> float:
        """Share of pictures of the concept that were called a hit."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> float:
        """Share of pictures of anything else that were not called a hit."""
        return self.true_negatives / self.negatives

    def sensitivity_bounds(self, alpha: float) -> tuple[float, float]:
        """Clopper and Pearson's bounds, one-sided at alpha on each side."""
        return clopper_pearson(self.true_positives, self.positives, alpha)

    def specificity_bounds(self, alpha: float) -> tuple[float, float]:
        """Clopper and Pearson's bounds, one-sided at alpha on each side."""
        return clopper_pearson(self.true_negatives, self.negatives, alpha)


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A figure corrected for the judge's error."""

    estimate: float
    """Point estimate, as a fraction."""
    low: float
    """Lower bound, one-sided at alpha; includes the sampling error of the images and of the calibration."""
    high: float
    """Upper bound, likewise."""


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """The hits of each arm at another threshold."""

    threshold: float
    """The smallest score that counts as a hit."""
    before: int
    """Hits before fine-tuning."""
    after: int
    """Hits after fine-tuning."""


def apparent_rate(rate: float, sensitivity: float, specificity: float) -> float:
    """The expected reported rate of a judge with this sensitivity and specificity at a true rate; all fractions."""
    for name, value in (("rate", rate), ("sensitivity", sensitivity), ("specificity", specificity)):
        if not 0 <= value <= 1:
            raise SpecError(sentence(f"The {name} is {value}.", do="Give a fraction from 0 to 1."))
    return rate * sensitivity + (1 - rate) * (1 - specificity)


def rogan_gladen(hits: int, images: int, accuracy: JudgeAccuracy, alpha: float) -> Corrected:
    """The true rate behind `hits` of `images`, whose number was fixed in advance.

        p = (q + Sp − 1) / (Se + Sp − 1), cut to 0 … 1

    Bounds: q, Se and Sp each have an exact bound at alpha/3. The upper bound of p takes the largest q, the smallest Se
    (hits were missed) and the largest Sp (hits are real); the lower bound takes the opposite. Its error is at most
    alpha: q = p Se + (1 − p)(1 − Sp) rises with Se and falls with Sp at any p, so unless one of the three bounds
    missed, q_high ≥ p Se_low + (1 − p)(1 − Sp_high), and solving for p gives p ≤ high. If Se_low + Sp_high ≤ 1 there
    is no solution, and the bound is 1; likewise 0 below.

    JudgeError if the calibration counts give a judge no better than guessing: J ≤ 0.

    Source: Rogan and Gladen, Estimating prevalence from the results of a screening test, American Journal of
    Epidemiology 107 (1978) 71. The bounds are not theirs.
    """
    check_alpha(alpha)
    _check_whole(hits, images)
    index = accuracy.sensitivity + accuracy.specificity - 1
    if index <= 0:
        raise JudgeError(
            sentence(
                "A judge that is no better than chance cannot be corrected.",
                sensitivity=accuracy.sensitivity,
                specificity=accuracy.specificity,
                do="Use another judge; its hits say nothing about the images.",
            )
        )
    share = alpha / 3
    q_low, q_high = clopper_pearson(hits, images, share)
    se_low, se_high = accuracy.sensitivity_bounds(share)
    sp_low, sp_high = accuracy.specificity_bounds(share)
    return Corrected(
        estimate=_solved(hits / images, accuracy.sensitivity, accuracy.specificity, otherwise=0.0),
        low=_solved(q_low, se_high, sp_low, otherwise=0.0),
        high=_solved(q_high, se_low, sp_high, otherwise=1.0),
    )


def youden(accuracy: JudgeAccuracy, alpha: float) -> Corrected:
    """J = Se + Sp − 1 with bounds from exact ones of Se and Sp, each at alpha/2.

    Source: Youden, Index for rating diagnostic tests, Cancer 3 (1950) 32.
    """
    check_alpha(alpha)
    se_low, se_high = accuracy.sensitivity_bounds(alpha / 2)
    sp_low, sp_high = accuracy.specificity_bounds(alpha / 2)
    return Corrected(
        estimate=accuracy.sensitivity + accuracy.specificity - 1, low=se_low + sp_low - 1, high=se_high + sp_high - 1
    )


def observed_delta(delta: float, accuracy: JudgeAccuracy, alpha: float) -> float:
    """The limit that the *observed* rise must stay under so that the true one is under `delta`: J_low · delta.

    For passing only. With the same judge error in both arms the observed rise is J·D, and J ≥ J_low except with
    probability alpha: an observed rise under J_low · delta means D < delta, and both statements together err at most
    twice alpha. To show that D is *above* delta, compare with `delta` itself: as J ≤ 1, a true rise is never smaller
    than the observed one.

    JudgeError if J_low ≤ 0: the judge is not shown to be better than chance, and no observed limit is small enough.
    """
    if not 0 < delta < 1:
        raise SpecError(sentence(f"The limit delta is {delta}.", do="Give a fraction between 0 and 1."))
    index = youden(accuracy, alpha)
    if index.low <= 0:
        raise JudgeError(
            sentence(
                "The judge is not shown to be better than chance.",
                sensitivity=f"{accuracy.true_positives} of {accuracy.positives}",
                specificity=f"{accuracy.true_negatives} of {accuracy.negatives}",
                index=f"{index.estimate:.3f}, at least {index.low:.3f}",
                do="Calibrate it on more pictures, or use another judge.",
            )
        )
    return index.low * delta


def corrected_difference(
    before_counts: tuple[int, int],
    after_counts: tuple[int, int],
    accuracy_before: JudgeAccuracy,
    accuracy_after: JudgeAccuracy,
    alpha: float,
) -> Corrected:
    """The true difference D of rates (after − before), each arm's (hits, images) with the judge's error in that arm.

    D_high = p_high(after) − p_low(before), each at alpha/2, so that both together err at most alpha under any
    dependence between the arms. The pairing is not used: the bounds are wider than those of a paired comparison, and
    small calibrations widen them further (with 200 pictures of each kind and alpha .01 the Sp of an error-free judge
    is known to within 3.1 points, which limits the precision of D).
    """
    check_alpha(alpha)
    before = rogan_gladen(*before_counts, accuracy_before, alpha / 2)
    after = rogan_gladen(*after_counts, accuracy_after, alpha / 2)
    return Corrected(
        estimate=after.estimate - before.estimate, low=after.low - before.high, high=after.high - before.low
    )


def hits_at(judgments: Iterable[Judgment], threshold: float, *, answer: str | None = None) -> int:
    """Number of images with this `answer` (None: each image's prompted concept) and a score of at least `threshold`.

    Computed from stored scores; no image is judged again. A score belongs to the answer that was given, so this is
    exact for thresholds at or above the judge's own; below it, images with another answer cannot be counted. An
    abstained image is never a hit.
    """
    if not math.isfinite(threshold):
        raise SpecError(
            sentence(f"A threshold is {threshold}.", do="Give a number on the scale of the judge's scores.")
        )
    return sum(
        one.outcome is not Outcome.ABSTAINED
        and (one.concept in one.seen if answer is None else one.answer == answer)
        and one.score >= threshold
        for one in judgments
    )


def threshold_curve(
    before: Evidence, after: Evidence, thresholds: Sequence[float], *, answer: str | None = None
) -> tuple[AtThreshold, ...]:
    """Hits of both arms at each threshold: whether a rise depends on the choice of the threshold."""
    check_paired(before, after)
    if not thresholds:
        raise SpecError(sentence("No thresholds were given.", do="Give at least one threshold."))
    return tuple(
        AtThreshold(
            threshold=threshold,
            before=hits_at(before.judgments, threshold, answer=answer),
            after=hits_at(after.judgments, threshold, answer=answer),
        )
        for threshold in thresholds
    )


def _solved(q: float, sensitivity: float, specificity: float, *, otherwise: float) -> float:
    """p that solves q = p Se + (1 − p)(1 − Sp), clipped to 0 … 1; `otherwise` if q does not rise with p."""
    index = sensitivity + specificity - 1
    return otherwise if index <= 0 else min(max((q + specificity - 1) / index, 0.0), 1.0)


def _check_whole(hits: int, images: int) -> None:
    if not (isinstance(hits, Integral) and isinstance(images, Integral)):
        raise HarnessError(sentence(f"{hits} hits of {images} images are impossible.", do="Give counts of images."))
