"""Every figure of one cell, compared with the policy's limits and with the accepted ceilings."""

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
"""The findings to which an accepted level applies as ceiling."""


class ImageGroup(StrEnum):
    """Groups of images that are sampled together, from every model."""

    ERASED = "erased"
    AS_PARENT = "as parent"
    SYNONYMS = "synonyms"
    RETAINED = "retained"
    TEMPLATES = "templates"


@dataclass(frozen=True)
class CellAssessment:
    """One judge's evidence with the policy and the acceptance: every condition that the order of decision tests."""

    evidence: CellEvidence
    policy: Policy
    given: Acceptance | None
    """The acceptance written for this cell, before any check of its expiry and settings."""
    today: date
    settings: str = ""
    """Short digest of the steps' values; empty if no step is known."""

    @cached_property
    def acceptance(self) -> Acceptance | None:
        """The acceptance in force; None if it has expired or was recorded for other settings."""
        return self.given if self.given is not None and self.given.counts(self.today, self.settings) else None

    @cached_property
    def rates(self) -> dict[str, Rate]:
        """The counts of every arm, by name."""
        return {name: Rate.of(arm) for name, arm in self.evidence.arms()}

    @property
    def trust(self) -> float:
        """Lower bound of the judge's J: the share of a true difference that it observes."""
        return self.evidence.trust(self.policy.alpha)

    @cached_property
    def level(self) -> Finding:
        """The erased rate after fine-tuning."""
        return Level(limit=self.policy.level, alpha=self.policy.alpha, trust=self.trust).judge_rate(self.rates["after"])

    @cached_property
    def as_parent(self) -> Finding | None:
        """The level with the parent's tokenizer, scheduler and VAE; None if the candidate's are the same."""
        rate = self.rates.get("as_parent")
        if rate is None:
            return None
        criterion = Level(limit=self.policy.level, alpha=self.policy.alpha, trust=self.trust, name=AS_PARENT)
        return criterion.judge_rate(rate)

    @property
    def levels(self) -> tuple[Finding, ...]:
        """The level of the candidate as given and, if its parts differ, with its parent's parts."""
        return (self.level,) if self.as_parent is None else (self.level, self.as_parent)

    @cached_property
    def rise(self) -> Finding | None:
        """The paired rise of the erased rate; None without an unlearned model."""
        if self.evidence.before is None:
            return None
        criterion = NoRise(delta=self.policy.delta, alpha=self.policy.alpha, trust=self.trust)
        return criterion.judge(self.evidence.before, self.evidence.after)

    @cached_property
    def synonyms(self) -> Finding | None:
        """The paired rise of the erased rate under synonym prompts; None without such images."""
        before, after = self.evidence.synonyms_before, self.evidence.synonyms_after
        if before is None or after is None:
            return None
        criterion = NoRise(delta=self.policy.delta, alpha=self.policy.alpha, trust=self.trust)
        return replace(criterion.judge(before, after), name="rise of synonyms")

    @cached_property
    def incidental(self) -> Finding | None:
        """The rate of erased concepts in images prompted with retained ones; None without such images."""
        if self.evidence.retained_after is None:
            return None
        criterion = Incidental(limit=self.policy.incidental, alpha=self.policy.alpha, trust=self.trust)
        return criterion.judge(self.evidence.retained_after, erased=self.evidence.after.concepts)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all criteria that have evidence."""
        others = (self.rise, self.synonyms, self.incidental)
        return (*self.levels, *(finding for finding in others if finding is not None))

    @property
    def claimed(self) -> tuple[Finding, ...]:
        """The findings that the verdict rests on: only the levels without a base or an unlearned model."""
        return self.findings if self.compared else self.levels

    @property
    def compared(self) -> bool:
        """Whether both references exist: the base (rate before unlearning) and the unlearned model (rate after it)."""
        return self.evidence.base is not None and self.evidence.before is not None

    @property
    def absent(self) -> list[str]:
        """The missing reference models, without which only the level is claimed: "base", "unlearned"."""
        given = {"base": self.evidence.base, "unlearned": self.evidence.before}
        return [name for name, arm in given.items() if arm is None]

    @property
    def not_given(self) -> str:
        """`absent` as text: "no base model was given"; empty if both were given."""
        return f"no {' and no '.join(self.absent)} model was given" if self.absent else ""

    @cached_property
    def outcome(self) -> UnlearningOutcome | None:
        """The outcome of the unlearning; None without a base or an unlearned model."""
        return unlearning_outcome(self.evidence, self.policy)

    @property
    def outcome_allows_holds(self) -> bool:
        """Whether the outcome permits HOLDS; an unknown outcome (no base) blocks nothing."""
        return self.outcome in (None, UnlearningOutcome.UNLEARNED)

    @property
    def outcome_allows_known(self) -> bool:
        """Whether the outcome permits KNOWN: unlearned, unknown, or accepted."""
        return self.outcome_allows_holds or (self.acceptance is not None and self.outcome in self.acceptance.outcomes)

    @cached_property
    def controls(self) -> Controls:
        """The four mandatory controls."""
        return run_controls(self.evidence, self.policy)

    @property
    def missing(self) -> list[Control]:
        """Controls that were not run."""
        return [control for control in self.controls if control.state is ControlState.MISSING]

    @property
    def failed(self) -> list[Control]:
        """Controls that were run and failed."""
        return [control for control in self.controls if control.state is ControlState.FAILED]

    @property
    def failed_uncovered(self) -> list[Control]:
        """Failed controls not covered by the acceptance: an accepted collapse covers the utility control."""
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
        """A broken finding that is not claimed because a reference model is missing; it still blocks a pass."""
        unclaimed = self.findings[len(self.claimed) :]
        return next((one for one in unclaimed if one.broken), None)

    def ceiling(self, finding: Finding) -> float:
        """The accepted ceiling of a finding, or the policy's limit if that is higher or nothing is accepted."""
        accepted = None
        if self.acceptance is not None and finding is not self.incidental:
            accepted = self.acceptance.level if finding.name in LEVELS else self.acceptance.rise
        return finding.limit if accepted is None else max(finding.limit, accepted)

    def within(self, finding: Finding) -> bool:
        """Whether a finding holds, or lies at or under its accepted ceiling."""
        ceiling = self.ceiling(finding)
        if finding.holds or ceiling == finding.limit:
            return finding.holds
        # No rate exceeds a ceiling of 1, so an estimate cannot be too near to it.
        clear = ceiling >= 1 or not finding.near(ceiling)
        return clear and finding.high <= ceiling and finding.images >= finding.floor

    def beyond(self, finding: Finding) -> bool:
        """Whether a finding is demonstrably above its limit, or above the ceiling if one applies."""
        return finding.outside(self.ceiling(finding))

    def more(self, finding: Finding) -> int | None:
        """Approximate number of further images that would settle a finding against its ceiling; None if none would."""
        ceiling, alpha = self.ceiling(finding), self.policy.alpha
        if ceiling == finding.limit:
            return finding.more
        if ceiling >= 1:
            return None
        if finding.name in LEVELS:
            arm = "as_parent" if finding.name == AS_PARENT else "after"
            return Level(limit=ceiling, alpha=alpha).judge_rate(self.rates[arm]).more
        before, after = self.evidence.before, self.evidence.after
        assert before is not None  # a paired finding has evidence before and after
        if finding is self.synonyms and self.evidence.synonyms_before and self.evidence.synonyms_after:
            before, after = self.evidence.synonyms_before, self.evidence.synonyms_after
        return NoRise(delta=ceiling, alpha=alpha).judge(before, after).more

    @cached_property
    def e_value(self) -> float:
        """E-value against "nothing is beyond its limit or accepted ceiling": the mean over the levels and the rise.

        A mean of e-values is an e-value under any dependence, so the cell's claims need no further correction here. The
        rise enters only with a base, and not from a collapsed model. Synonyms and incidental images are left out.
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
        """Whether a finding is neither within nor beyond its limit or ceiling, so that more images could decide it."""
        return finding is not None and not self.within(finding) and not self.beyond(finding)

    @property
    def could_pass(self) -> bool:
        """Whether more images alone could make this cell HOLDS or KNOWN."""
        hopeless = not self.utility and self.controls.utility.more is None  # below the floor for any number of images
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
        """The image groups of which more images could turn an UNDECIDED into a pass or a regression."""
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
        shows = not collapsed and not self.retained_lost  # else an erased name in a retained image is no evidence
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
        """Templates that more images could make pass; empty if one of the failed ones could not pass at all."""
        failed = [one for one in shown_templates(self.evidence, self.policy) if not one.passed]
        if any(one.more is None for one in failed):
            return frozenset()
        return frozenset(one.template for one in failed)

    @property
    def needed_to_classify(self) -> frozenset[ImageGroup]:
        """The image groups that help to classify a VIOLATED: whether the model had unlearned, or had collapsed.

        If the rise is the only reason, sampling continues until a collapse is settled. If the level suffices as reason,
        the classification is given at most as many images as the positive control requires.
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
