"""How much smaller a limit has to be because the judge errs: sensitivity and specificity, from calibration counts.

    Se = P(called a hit | the concept is there)        Sp = P(not called a hit | it is not there)
    q  = p Se + (1 − p)(1 − Sp)                        the rate that such a judge reports of a true rate p
    J  = Se + Sp − 1                                   Youden's index: 1 never errs, 0 guesses

With the same judge error in both arms a true difference D is read as J·D, so a limit for D has to shrink by J
(`observed_delta`), or an imperfect judge makes the gate laxer. With different error the difference itself is biased:
at a true rate of 4 % in both arms, Se .6 → .9 reads as a rise of 1.2 points and Sp .99 → .96 as one of 2.9. That is
likely here, since unlearned images are often degraded and fine-tuning restores what judges were trained on; nothing
corrects for it, and a second judge is the only guard.

All bounds are exact ones of Se and Sp, each at a share of alpha, put together where they are worst. By Bonferroni the
error is at most alpha for all sizes, also with a spotless calibration, where the delta method sees no variance.

*Assumed throughout:* the calibration pictures resemble the images, and all are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from resurgence_harness.errors import JudgeError, SpecError, sentence
from resurgence_harness.statistics.intervals import check_alpha, clopper_pearson


@dataclass(frozen=True, kw_only=True)
class JudgeAccuracy:
    """How often a judge was right on pictures whose content is known; counts, never rates."""

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
                    do="Show it pictures of both kinds; what was never tried is not known.",
                )
            )

    @classmethod
    def of_counts(cls, *, recognised: int, subjects: int, false_alarms: int, others: int) -> JudgeAccuracy:
        """From the four counts of a judge's calibration, which counts false alarms in place of true negatives."""
        return cls(
            true_positives=recognised, positives=subjects, true_negatives=others - false_alarms, negatives=others
        )

    @property
    def sensitivity(self) -> float:
        """Share of pictures of the concept that were called a hit."""
        return self.true_positives / self.positives

    @property
    def specificity(self) -> float:
        """Share of other pictures that were not."""
        return self.true_negatives / self.negatives

    def sensitivity_bounds(self, alpha: float) -> tuple[float, float]:
        """Clopper and Pearson's bounds, one-sided at alpha on each side."""
        return clopper_pearson(self.true_positives, self.positives, alpha)

    def specificity_bounds(self, alpha: float) -> tuple[float, float]:
        """Clopper and Pearson's bounds, one-sided at alpha on each side."""
        return clopper_pearson(self.true_negatives, self.negatives, alpha)


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A figure that is known from calibration counts, with its bounds."""

    estimate: float
    """The likeliest value, as a fraction."""
    low: float
    """Lower bound, one-sided at alpha."""
    high: float
    """Upper bound, likewise."""


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

    For passing only. With the same judge error in both arms the observed rise is J·D, and J ≥ J_low but for alpha: a
    rise shown to be under J_low · delta means D < delta, and both statements together err at most twice alpha. To show
    that D is *above* delta, hold against `delta` itself: as J ≤ 1, a true rise is never smaller than the observed one.

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
