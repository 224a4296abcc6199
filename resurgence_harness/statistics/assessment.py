"""Every figure of one cell, weighed once against the policy and against what was accepted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from functools import cached_property

from resurgence_harness.statistics.cells import CellEvidence
from resurgence_harness.statistics.controls import (
    Control,
    Controls,
    ControlState,
    kept_finding,
    run_controls,
    shown_templates,
    unlearned_finding,
    unlearning_outcome,
    utility_findings,
)
from resurgence_harness.statistics.criteria import Finding, Incidental, Level, NoRise
from resurgence_harness.statistics.evidence import pairs
from resurgence_harness.statistics.policies import Acceptance, Policy, UnlearningOutcome
from resurgence_harness.statistics.rates import Rate

AS_PARENT = "level as parent"
"""The finding on the candidate's weights with its parent's tokenizer, scheduler and VAE."""
LEVELS = ("level", AS_PARENT)
"""The findings that an accepted level is a ceiling of."""


class ImageGroup(StrEnum):
    """Images that are asked for together, from every model."""

    ERASED = "erased"
    AS_PARENT = "as parent"
    SYNONYMS = "synonyms"
    RETAINED = "retained"
    TEMPLATES = "templates"


@dataclass(frozen=True)
class CellAssessment:
    """One judge's evidence beside the limits: what the order of decision asks about."""

    evidence: CellEvidence
    policy: Policy
    given: Acceptance | None
    """The acceptance written for this cell, expired or not, for these settings or others."""
    today: date
    settings: str = ""
    """Short digest of the steps' values; empty where no step is known."""

    @cached_property
    def acceptance(self) -> Acceptance | None:
        """The acceptance that counts: an expired one is absent, and so is one that was recorded for other settings."""
        return self.given if self.given is not None and self.given.counts(self.today, self.settings) else None

    @cached_property
    def rates(self) -> dict[str, Rate]:
        """The counts of every arm."""
        return {name: Rate.of(arm) for name, arm in self.evidence.arms()}

    @property
    def trust(self) -> float:
        """Share of a true difference that the judge is known to see."""
        return self.evidence.trust(self.policy.alpha)

    @cached_property
    def level(self) -> Finding:
        """The erased rate after fine-tuning."""
        return Level(limit=self.policy.level, alpha=self.policy.alpha, trust=self.trust).judge_rate(self.rates["after"])

    @cached_property
    def as_parent(self) -> Finding | None:
        """The same with the parent's tokenizer, scheduler and VAE; None where the candidate has them itself."""
        rate = self.rates.get("as_parent")
        if rate is None:
            return None
        criterion = Level(limit=self.policy.level, alpha=self.policy.alpha, trust=self.trust, name=AS_PARENT)
        return criterion.judge_rate(rate)

    @property
    def levels(self) -> tuple[Finding, ...]:
        """The erased rate of the candidate as it is and, where it differs, as its parent would draw it."""
        return (self.level,) if self.as_parent is None else (self.level, self.as_parent)

    @cached_property
    def rise(self) -> Finding | None:
        """The paired rise of the erased rate; None where there is no unlearned model."""
        if self.evidence.before is None:
            return None
        criterion = NoRise(delta=self.policy.delta, alpha=self.policy.alpha, trust=self.trust)
        return criterion.judge(self.evidence.before, self.evidence.after)

    @cached_property
    def synonyms(self) -> Finding | None:
        """The paired rise of the erased concepts asked for by other words; None where there are none."""
        before, after = self.evidence.synonyms_before, self.evidence.synonyms_after
        if before is None or after is None:
            return None
        criterion = NoRise(delta=self.policy.delta, alpha=self.policy.alpha, trust=self.trust)
        return replace(criterion.judge(before, after), name="rise of synonyms")

    @cached_property
    def incidental(self) -> Finding | None:
        """Erased concepts among images that ask for retained ones."""
        if self.evidence.retained_after is None:
            return None
        criterion = Incidental(limit=self.policy.incidental, alpha=self.policy.alpha, trust=self.trust)
        return criterion.judge(self.evidence.retained_after, erased=self.evidence.after.concepts)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What every criterion says."""
        others = (self.rise, self.synonyms, self.incidental)
        return (*self.levels, *(finding for finding in others if finding is not None))

    @property
    def claimed(self) -> tuple[Finding, ...]:
        """The findings that the verdict rests on: without a base or an unlearned model, the level alone."""
        return self.findings if self.compared else self.levels

    @property
    def compared(self) -> bool:
        """Whether a base says how much there was to unlearn, and an unlearned model what was left of it."""
        return self.evidence.base is not None and self.evidence.before is not None

    @property
    def absent(self) -> list[str]:
        """The models that are lacking for more than the level: "base", "unlearned"."""
        given = {"base": self.evidence.base, "unlearned": self.evidence.before}
        return [name for name, arm in given.items() if arm is None]

    @property
    def not_given(self) -> str:
        """The same in words: "no base model was given"; empty where nothing is lacking."""
        return f"no {' and no '.join(self.absent)} model was given" if self.absent else ""

    @cached_property
    def outcome(self) -> UnlearningOutcome | None:
        """What the unlearning had done; None without a base."""
        return unlearning_outcome(self.evidence, self.policy)

    @property
    def outcome_allows_holds(self) -> bool:
        """Without a base the unlearning is not judged and blocks nothing."""
        return self.outcome in (None, UnlearningOutcome.UNLEARNED)

    @property
    def outcome_allows_known(self) -> bool:
        """Unlearned, or an outcome that was accepted."""
        return self.outcome_allows_holds or (self.acceptance is not None and self.outcome in self.acceptance.outcomes)

    @cached_property
    def controls(self) -> Controls:
        """The four mandatory controls."""
        return run_controls(self.evidence, self.policy)

    @property
    def missing(self) -> list[Control]:
        """Controls that were never run."""
        return [control for control in self.controls if control.state is ControlState.MISSING]

    @property
    def failed(self) -> list[Control]:
        """Controls that were run and failed."""
        return [control for control in self.controls if control.state is ControlState.FAILED]

    @property
    def failed_uncovered(self) -> list[Control]:
        """Failed controls that no acceptance covers: an accepted collapse covers the utility it cannot have."""
        covered = self.acceptance is not None and UnlearningOutcome.COLLAPSED in self.acceptance.outcomes
        return [control for control in self.failed if not (covered and control is self.controls.utility)]

    @cached_property
    def utility(self) -> tuple[Finding, ...]:
        """The retained concepts after fine-tuning, against each reference."""
        return utility_findings(self.evidence, self.policy)

    @property
    def retained_lost(self) -> bool:
        """Whether retained concepts are demonstrably lost after fine-tuning."""
        return any(finding.broken for finding in self.utility)

    @property
    def unclaimed_broken(self) -> Finding | None:
        """A broken finding that cannot be claimed for want of another model, and still must not pass."""
        unclaimed = self.findings[len(self.claimed) :]
        return next((one for one in unclaimed if one.broken), None)

    def ceiling(self, finding: Finding) -> float:
        """The accepted ceiling of a finding, or the policy's limit where none is higher."""
        accepted = None
        if self.acceptance is not None and finding is not self.incidental:
            accepted = self.acceptance.level if finding.name in LEVELS else self.acceptance.rise
        return finding.limit if accepted is None else max(finding.limit, accepted)

    def within(self, finding: Finding) -> bool:
        """Whether a finding holds, or lies at or under its accepted ceiling."""
        ceiling = self.ceiling(finding)
        if finding.holds or ceiling == finding.limit:
            return finding.holds
        # Nothing lies beyond a ceiling of 1, so there is no margin to be near to.
        clear = ceiling >= 1 or not finding.near(ceiling)
        return clear and finding.high <= ceiling and finding.images >= finding.floor

    def beyond(self, finding: Finding) -> bool:
        """Whether a finding is demonstrably above its limit, or above the ceiling where one applies."""
        return finding.outside(self.ceiling(finding))

    def more(self, finding: Finding) -> int | None:
        """About how many more images would settle a finding against its ceiling; None if no number would."""
        ceiling, alpha = self.ceiling(finding), self.policy.alpha
        if ceiling == finding.limit:
            return finding.more
        if ceiling >= 1:
            return None
        if finding.name in LEVELS:
            arm = "as_parent" if finding.name == AS_PARENT else "after"
            return Level(limit=ceiling, alpha=alpha).judge_rate(self.rates[arm]).more
        before, after = self.evidence.before, self.evidence.after
        assert before is not None  # a finding that compares has both
        if finding is self.synonyms and self.evidence.synonyms_before and self.evidence.synonyms_after:
            before, after = self.evidence.synonyms_before, self.evidence.synonyms_after
        return NoRise(delta=ceiling, alpha=alpha).judge(before, after).more

    @cached_property
    def e_value(self) -> float:
        """Evidence against "nothing is beyond its limit or accepted ceiling": the mean over the levels and the rise.

        A mean of e-values is one, however they depend, so the cell's claims need no further correction here. A rise is
        claimed with a base only, and never out of a collapsed model. Synonyms and incidental images are not in it.
        """
        values = [self.rates["after"].against(self.ceiling(self.level))]
        if self.as_parent is not None:
            values.append(self.rates["as_parent"].against(self.ceiling(self.as_parent)))
        before, rise = self.evidence.before, self.rise if self.compared else None
        if before is not None and rise is not None and self.outcome is not UnlearningOutcome.COLLAPSED:
            values.append(pairs(before, self.evidence.after)[0].against(self.ceiling(rise)))
        return min(sum(values) / len(values), 1e300)

    # What more images could change

    def unsettled(self, finding: Finding | None) -> bool:
        """Whether more images could still put a finding on one side of its limit or ceiling."""
        return finding is not None and not self.within(finding) and not self.beyond(finding)

    @property
    def could_pass(self) -> bool:
        """Whether nothing but a lack of images stands between this cell and HOLDS or KNOWN."""
        hopeless = not self.utility and self.controls.utility.more is None  # below the floor, whatever is drawn
        lost = (self.retained_lost or hopeless) and self.controls.utility in self.failed_uncovered
        if lost or self.unclaimed_broken or self.controls.effect in self.failed:
            return False
        if self.controls.positive in self.failed and not self.open_templates:
            return False
        if any(self.beyond(finding) for finding in self.claimed):
            return False
        unlearned = unlearned_finding(self.evidence, self.policy)
        return self.outcome_allows_known or not (
            self.outcome is UnlearningOutcome.COLLAPSED or unlearned is None or unlearned.broken
        )

    @property
    def wants(self) -> frozenset[ImageGroup]:
        """The images of which more could change an UNDECIDED: into a pass, or into a regression."""
        if self.missing or self.controls.canaries in self.failed:
            return frozenset()
        collapsed = self.outcome is UnlearningOutcome.COLLAPSED
        could = self.could_pass
        wanted = set()
        if self.unsettled(self.level) or (self.compared and (could or not collapsed) and self.unsettled(self.rise)):
            wanted.add(ImageGroup.ERASED)
        if self.unsettled(self.as_parent):
            wanted.add(ImageGroup.AS_PARENT)
        if self.compared and (could or not collapsed) and self.unsettled(self.synonyms):
            wanted.add(ImageGroup.SYNONYMS)
        shows = not collapsed and not self.retained_lost  # else an erased name in a retained image shows nothing
        if self.compared and (could or shows) and self.unsettled(self.incidental):
            wanted.add(ImageGroup.RETAINED)
        if could:
            unlearned = unlearned_finding(self.evidence, self.policy)
            if not self.outcome_allows_known and unlearned is not None and not unlearned.settled:
                wanted.add(ImageGroup.ERASED)
            if self.controls.utility in self.failed_uncovered:
                wanted.add(ImageGroup.RETAINED)
            if self.open_templates:
                wanted.add(ImageGroup.TEMPLATES)
        return frozenset(wanted)

    @property
    def open_templates(self) -> frozenset[str]:
        """The templates of which more images could pass the control; none where one of them cannot pass any more."""
        failed = [one for one in shown_templates(self.evidence, self.policy) if not one.passed]
        if any(one.more is None for one in failed):
            return frozenset()
        return frozenset(one.template for one in failed)

    @property
    def needed_to_classify(self) -> frozenset[ImageGroup]:
        """The images of which more could tell what a VIOLATED is: whether the model had unlearned, or had collapsed.

        A rise that is the whole reason must be known not to come out of a collapsed model. Where the level alone is
        reason enough, the name is worth only so many images as the positive control.
        """
        kept, unlearned = kept_finding(self.evidence, self.policy), unlearned_finding(self.evidence, self.policy)
        alone, enough = not any(map(self.beyond, self.levels)), self.policy.positive_images
        wanted = set()
        retained = self.rates.get("retained_before")
        if kept is not None and not kept.settled and retained is not None and (alone or retained.images < enough):
            wanted.add(ImageGroup.RETAINED)
        if self.outcome is UnlearningOutcome.NOT_UNLEARNED and unlearned is not None and not unlearned.settled:
            wanted |= {ImageGroup.ERASED} if self.rates["before"].images < enough else set()
        return frozenset(wanted)
