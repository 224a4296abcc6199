"""All evidence of one cell, checked for consistency."""

from __future__ import annotations

import math
from dataclasses import dataclass

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.statistics.evidence import (
    Evidence,
    check_drawn_apart,
    check_paired,
    check_same_grid,
    check_same_means,
)
from resurgence_harness.statistics.judge_error import JudgeAccuracy, observed_delta


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Held-out benign denoising loss per image, before and after fine-tuning, paired by image, noise and timestep."""

    before: tuple[float, ...]
    after: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after) or len(self.before) < 2:
            raise HarnessError(
                sentence(
                    "The benign losses cannot be paired.",
                    before=len(self.before),
                    after=len(self.after),
                    do="Measure the same held-out images before and after, at least two.",
                )
            )
        for loss in (*self.before, *self.after):
            if not math.isfinite(loss) or loss < 0:
                raise HarnessError(
                    sentence(f"A benign loss is {loss}.", do="The fine-tuning went wrong; check its training loss.")
                )

    @property
    def fell(self) -> float:
        """Mean fall of the loss."""
        return (math.fsum(self.before) - math.fsum(self.after)) / len(self.before)

    def p_value(self) -> float:
        """One-sided paired t test of "the loss did not fall"."""
        from scipy.special import stdtr

        falls = [one - other for one, other in zip(self.before, self.after, strict=True)]
        n, mean = len(falls), self.fell
        variance = math.fsum((fall - mean) ** 2 for fall in falls) / (n - 1)
        if variance <= 0:
            return 0.0 if mean > 0 else 1.0
        return float(stdtr(n - 1, -mean / math.sqrt(variance / n)))


@dataclass(frozen=True, kw_only=True)
class Differs:
    """For checkpoints fine-tuned elsewhere: whether weights and images differ from the unlearned model's."""

    weights: bool
    images: bool


@dataclass(frozen=True, kw_only=True)
class FilledTemplate:
    """One prompt template of the erased concepts, filled with retained ones and sampled from the candidate."""

    template: str
    """The prompt with "{}" in place of the name."""
    evidence: Evidence
    """A hit is an image that shows the retained concept filled in."""


@dataclass(frozen=True, kw_only=True)
class CellEvidence:
    """All evidence of one cell; what was not measured is None and never counts as passed."""

    before: Evidence | None = None
    """Erased concepts, after unlearning; None if a candidate is judged without its unlearned model."""
    after: Evidence
    """Erased concepts, after fine-tuning."""
    as_parent: Evidence | None = None
    """Erased concepts, the candidate's weights with its parent's tokenizer, scheduler and VAE; None if the candidate
    has the same ones. The first rows of the grid of `after`, as many as it took."""
    base: Evidence | None = None
    """Erased concepts, the unmodified base."""
    base_retained: Evidence | None = None
    retained_before: Evidence | None = None
    retained_after: Evidence | None = None
    """Held-out retained concepts."""
    synonyms_before: Evidence | None = None
    synonyms_after: Evidence | None = None
    """Erased concepts under synonym prompts that the unlearning did not use: a rise here is claimed too."""
    insample_before: Evidence | None = None
    """Retained concepts that the unlearning or the fine-tuning trained on: reported, not part of the decision."""
    insample_after: Evidence | None = None
    templates: tuple[FilledTemplate, ...] = ()
    """Without a base: every template of the erased prompts, filled with retained concepts."""
    effect: Losses | Differs | None = None
    """Evidence that the fine-tuning changed the model."""
    canaries: tuple[int, int] | None = None
    """The judge's stored test images: (answered correctly, total)."""
    accuracy: JudgeAccuracy | None = None
    """The judge's error rates from its calibration; None if unknown, and then limits are not tightened for them."""
    second: CellEvidence | None = None
    """The same images, judged by a second judge."""

    def __post_init__(self) -> None:
        given = [arm for arm in (self.base, self.before, self.after, self.as_parent) if arm is not None]
        if len({id(arm) for arm in given}) < len(given):
            raise HarnessError(
                sentence(
                    "The same evidence was given for two models.",
                    model=(self.after if self.base is self.after else self.before or self.after).recipe,
                    do="Draw and judge each model; a model compared with itself never rises.",
                )
            )
        if self.before is not None:
            check_paired(self.before, self.after)
        if self.base is not None:
            check_same_means(self.base, self.after)
        if self.as_parent is not None:
            self._check_as_parent(self.as_parent)
        self._check_templates()
        if (self.synonyms_before is None) is not (self.synonyms_after is None):
            raise HarnessError(
                sentence(
                    "Synonyms were sampled only before or only after fine-tuning.", do="Sample them from both models."
                )
            )
        if self.synonyms_before is not None and self.synonyms_after is not None:
            check_paired(self.synonyms_before, self.synonyms_after)
        if self.before is None and (self.retained_before is not None or self.effect is not None):
            raise HarnessError(
                sentence(
                    "Evidence of an unlearned model was given for a candidate without one.",
                    do="Give the unlearned model.",
                )
            )
        if self.before is not None and not isinstance(self.effect, Differs):  # Differs records this itself
            check_drawn_apart(self.before, self.after)
            if self.retained_before is not None and self.retained_after is not None:
                check_drawn_apart(self.retained_before, self.retained_after)
        retained = [arm for arm in (self.base_retained, self.retained_before, self.retained_after) if arm is not None]
        for arm in retained[1:]:
            check_paired(retained[0], arm)
        if retained and (shared := set(self.after.concepts) & set(retained[0].concepts)):
            raise HarnessError(
                sentence(
                    f"{sorted(shared)[0]!r} is both erased and retained.",
                    do="A concept cannot be its own control; choose other retained concepts.",
                )
            )
        judges = {arm.judge for _, arm in self.arms()}
        if len(judges) > 1:
            raise HarnessError(
                sentence(
                    "The arms of one cell were judged by different judges.",
                    judges=", ".join(sorted(judges)),
                    do="Judge every arm with the same judge; give the other one as `second`.",
                )
            )
        if self.canaries is not None and not 0 <= self.canaries[0] <= self.canaries[1]:
            raise HarnessError(sentence(f"{self.canaries[0]} of {self.canaries[1]} canaries is an impossible count."))
        if self.second is not None:
            self._check_second(self.second)

    def _check_as_parent(self, arm: Evidence) -> None:
        if self.before is None and self.base is None:
            raise HarnessError(
                sentence(
                    "A candidate was sampled with its parent's tokenizer, but no parent was given.",
                    model=arm.recipe,
                    do="Give the unlearned model or the base.",
                )
            )
        check_same_grid(self.after, arm)

    def _check_templates(self) -> None:
        names = [one.template for one in self.templates]
        if len(set(names)) < len(names):
            raise HarnessError(sentence("A template was filled twice.", do="Fill each one once."))
        erased = set(self.after.concepts)
        for one in self.templates:
            check_same_means(self.after, one.evidence)
            shared = erased & set(one.evidence.concepts)
            if shared:
                raise HarnessError(
                    sentence(
                        f"The template {one.template!r} was filled with {min(shared)!r}, which is erased.",
                        do="Fill it with retained concepts: an erased one cannot show that the template works.",
                    )
                )

    def _check_second(self, second: CellEvidence) -> None:
        if second.second is not None or second.after.judge == self.after.judge:
            raise HarnessError(
                sentence(
                    "The second judge must differ from the first.", judge=second.after.judge, do="Give two judges."
                )
            )
        if [name for name, _ in self.arms()] != [name for name, _ in second.arms()]:
            raise HarnessError(sentence("Two judges saw different arms of a cell.", do="Show both the same images."))
        if [one.template for one in self.templates] != [one.template for one in second.templates]:
            raise HarnessError(sentence("Two judges saw different templates.", do="Show both the same images."))
        for (_, one), (_, other) in zip(self.arms(), second.arms(), strict=True):
            check_paired(one, other)

    def trust(self, alpha: float) -> float:
        """Lower bound of J = sensitivity + specificity − 1, the share of a true difference that the judge observes."""
        return 1.0 if self.accuracy is None else observed_delta(0.5, self.accuracy, alpha) / 0.5

    def arms(self) -> tuple[tuple[str, Evidence], ...]:
        """The (name, evidence) of every arm that was measured."""
        names = (
            "base",
            "before",
            "after",
            "as_parent",
            "synonyms_before",
            "synonyms_after",
            "base_retained",
            "retained_before",
            "retained_after",
            "insample_before",
            "insample_after",
        )
        found = tuple((name, arm) for name in names if (arm := getattr(self, name)) is not None)
        filled = enumerate((one.evidence for one in self.templates), start=1)
        return (*found, *((f"template {place}", arm) for place, arm in filled))
