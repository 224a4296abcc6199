"""A release gate's cells, asked look by look: three models, one group of erased concepts, and the policy's answer.

    Plan ──▶ Inquiry ──▶ bench of each model ──▶ decide ──wants more──▶ …            until clear, or the budget is spent

Each model is a base of its own for the bench: its own scheduler, tokenizer and autoencoder are honoured, and its images
are kept in the store under its digest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import Group, ReleasePolicy
from resurgence_harness.inquiry import Inquiry
from resurgence_harness.presets import check_size, image_of, settings_of
from resurgence_harness.selection import BLOCK, CONTROL_IMAGES, PAIRS, RETAINED, Arm
from resurgence_harness.specs import Cell, Grid, Probe, Prompt, Recipe, Sampler
from resurgence_harness.statistics import (
    FIXED,
    Acceptance,
    CellEvidence,
    Differs,
    Shuffled,
    Verdict,
    VerdictKind,
    decide,
)
from resurgence_harness.statistics import Group as Images
from resurgence_harness.storing import Store

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.bench import Bench, Progress
    from resurgence_harness.judging import Judge

ENGINE = "sequential"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything one cell of a gate asks for."""

    cell: Cell
    candidate: Recipe
    unlearned: Recipe | None
    base: Recipe | None
    erased: Grid
    synonyms: Grid | None
    """The erased concepts by other words; a rise there is claimed, so it needs the unlearned model."""
    retained: Grid
    judges: tuple[str, ...]
    control_images: int
    """Images of the base for the positive control."""

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Every model and what it is asked, one model after the other."""

        def compared(recipe: Recipe, grid: Grid, group: Images) -> Arm:
            return Arm(recipe, grid, Shuffled(len(grid)), group, 1)

        arms: dict[str, Arm] = {}
        if self.base is not None:
            arms["base"] = Arm(self.base, self.erased, FIXED, None, min(self.control_images, len(self.erased)))
            arms["base_retained"] = compared(self.base, self.retained, Images.RETAINED)
        if self.unlearned is not None:
            arms["before"] = compared(self.unlearned, self.erased, Images.ERASED)
            arms["retained_before"] = compared(self.unlearned, self.retained, Images.RETAINED)
            if self.synonyms is not None:
                arms["synonyms_before"] = compared(self.unlearned, self.synonyms, Images.SYNONYMS)
                arms["synonyms_after"] = compared(self.candidate, self.synonyms, Images.SYNONYMS)
        arms["after"] = compared(self.candidate, self.erased, Images.ERASED)
        arms["retained_after"] = compared(self.candidate, self.retained, Images.RETAINED)
        return arms


def sampler_of(policy: ReleasePolicy, models: Models) -> Sampler:
    """How images are drawn: the policy's values over the preset's, and the base's own size where it has none."""
    return policy.file.sampler.over(Sampler(**settings_of(models.candidate.base)["sampler"]))


def size_notes(policy: ReleasePolicy, models: Models) -> list[str]:
    """That images have another size than the base was made for, if they do."""
    sampler = sampler_of(policy, models)
    told = check_size(image_of(models.candidate.base), sampler.height, sampler.width)
    return [told] if told else []


def plan(policy: ReleasePolicy, group: Group, models: Models) -> Plan:
    """What is asked of the models about one group."""
    sampler = sampler_of(policy, models)
    block = ceil(BLOCK / sampler.batch) * sampler.batch

    def grid(prompts: tuple[Prompt, ...], images: int) -> Grid:
        seeds = policy.file.seeds or ceil(images / len(prompts))
        return Grid(probe=Probe(prompts=prompts, seeds=tuple(range(1, seeds + 1)), sampler=sampler), block=block)

    synonyms = policy.synonym_prompts(group.concepts)
    return Plan(
        cell=policy.cell(group),
        candidate=models.candidate,
        unlearned=models.unlearned,
        base=models.base,
        erased=grid(policy.prompts(group.concepts), PAIRS),
        synonyms=grid(synonyms, PAIRS) if synonyms else None,
        retained=grid(policy.retained_prompts(), RETAINED),
        judges=policy.judges,
        control_images=max(CONTROL_IMAGES, group.policy.positive_images),
    )


def judges_for(policy: ReleasePolicy, own: Mapping[str, Judge]) -> list[Judge]:
    """The policy's judges, ready; UserError for a concept that one of them cannot name.

    What a judge cannot name is never a hit, which would look like safety.
    """
    from resurgence_harness.judging import check_names, check_ready, judge_by_name

    judges = [own[name] if name in own else judge_by_name(name) for name in policy.judges]
    for judge in judges:
        check_ready(judge)
        check_names(judge, [concept.name for concept in (*policy.erased, *policy.retained)])
    return judges


def check_prompts(plans: Sequence[Plan], models: Models) -> None:
    """UserError for a prompt that one of the models cannot read."""
    grids = (grid for one in plans for grid in (one.erased, one.synonyms, one.retained) if grid is not None)
    asked: dict[str, bool] = {}
    for prompt in (prompt for grid in grids for prompt in grid.probe.prompts):
        asked[prompt.text] = prompt.written and asked.get(prompt.text, True)
    written = {text for text, by_somebody in asked.items() if by_somebody}
    for recipe in models.named.values():
        check_texts(Path(recipe.base.location), sorted(asked), may_be_cut=written)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was said of one group."""

    verdict: Verdict
    record: dict[str, Any]
    """The cell's object in verdict.json."""
    evidence: CellEvidence
    sheet: bytes
    """The contact sheet, JPEG."""


class Gate:
    """The benches of one gate: each model is loaded once, when it is first asked."""

    def __init__(
        self,
        policy: ReleasePolicy,
        models: Models,
        *,
        store: str,
        device: str,
        progress: Progress | None = None,
        judges: Sequence[Judge] = (),
    ) -> None:
        """Nothing is loaded yet; UserError for what cannot be asked. `judges` are known beside the package's."""
        self.policy, self.models = policy, models
        self.judges = judges_for(policy, {judge.name: judge for judge in judges})
        self.plans = {group.word: plan(policy, group, models) for group in policy.groups}
        check_prompts(list(self.plans.values()), models)
        self._store, self.device, self._progress = Store(store), device, progress
        self._benches: dict[str, Bench] = {}

    def bench(self, recipe: Recipe) -> Bench:
        """The bench of one model."""
        from resurgence_harness.bench import Bench

        digest = recipe.base.digest
        if digest not in self._benches:
            self._benches[digest] = Bench(self._store, device=self.device, progress=self._progress)
        return self._benches[digest]

    def tell(self, progress: Progress) -> None:
        """Tell somebody else from now on."""
        self._progress = progress
        for bench in self._benches.values():
            bench.tell(progress)

    def acceptance(self, group: Group) -> Acceptance | None:
        """What was accepted for a group on its base, if anything."""
        base = self.plans[group.word].base
        return self.policy.acceptance(group, base.base.digest if base is not None else None)

    def ask(self, group: Group, *, nodeid: str = "") -> Answer:
        """Draw, judge and decide one group until its answer is clear or the budget is spent."""
        began, asked = time.monotonic(), self.plans[group.word]
        acceptance = self.acceptance(group)
        inquiry, budget = Inquiry(asked), self.policy.file.budget
        while True:
            for question in inquiry.open:
                recipe, block = asked.arms[question.arm].recipe, inquiry.block(question)
                inquiry.answer(question, [self.bench(recipe).evidence(recipe, block, judge) for judge in self.judges])
            evidence = self._evidence(inquiry)
            verdict = decide(evidence, group.policy, acceptance)
            wants = verdict.wants
            if verdict.kind is VerdictKind.KNOWN:  # asked on, to see whether the acceptance is still needed
                bare = decide(evidence, group.policy)
                wants = bare.wants if bare.kind is VerdictKind.UNDECIDED else wants
            spent = (time.monotonic() - began) / 60
            over = ""
            if budget.images is not None and inquiry.images >= budget.images:
                over = f"the budget of {budget.images:,} images is spent"
            elif budget.minutes is not None and spent >= budget.minutes:
                over = f"the budget of {budget.minutes:g} minutes is spent"
            if wants and over and verdict.kind is VerdictKind.UNDECIDED:
                verdict = replace(verdict, reason=f"{verdict.reason.removesuffix('.')}; {over}.")
            if over or not inquiry.widen(wants):
                break
        record = self._record(inquiry, evidence, verdict, nodeid=nodeid)
        record["acceptance"] = json.loads(json.dumps(asdict(acceptance), default=str)) if acceptance else None
        record["seconds"] = round(time.monotonic() - began, 3)
        return Answer(verdict=verdict, record=record, evidence=evidence, sheet=self._sheet(asked, evidence))

    def release(self) -> None:
        """Let go of every model."""
        for bench in self._benches.values():
            bench.release()

    def _evidence(self, inquiry: Inquiry[Plan]) -> CellEvidence:
        """What was seen so far; whether images differ is told by their digests."""
        from resurgence_harness.judging import accuracy_of

        differs = self.models.differs
        bench = self.bench(self.models.candidate)
        canaries = [bench.canaries(judge) for judge in self.judges]
        accuracies = [accuracy_of(judge) for judge in self.judges]

        def made(images: bool) -> CellEvidence:
            effect = None if differs is None else Differs(weights=differs, images=images)
            return inquiry.evidence(effect=effect, canaries=canaries, accuracies=accuracies)

        found = made(True)
        same = found.before is not None and found.before.images == found.after.images
        return made(False) if same else found

    def _record(
        self, inquiry: Inquiry[Plan], evidence: CellEvidence, verdict: Verdict, *, nodeid: str
    ) -> dict[str, Any]:
        from resurgence_harness.reporting.records import cell_record

        asked = inquiry.plan
        return cell_record(
            asked.cell,
            evidence,
            verdict,
            nodeid=nodeid or f"gate[{asked.cell.id}]",
            limits=self.policy.digest,
            engine=ENGINE,
            looks=inquiry.looks,
            images=inquiry.images,
            grids={"erased": asked.erased, "retained": asked.retained, "synonyms": asked.synonyms},
            models={
                name: {"recipe": recipe.words, "key": recipe.base.digest, "digest": recipe.base.digest}
                for name, recipe in self.models.named.items()
            },
        )

    def _sheet(self, asked: Plan, evidence: CellEvidence) -> bytes:
        from resurgence_harness.reporting.contact_sheet import of_evidence

        def block(name: str, number: int) -> np.ndarray:
            arm = asked.arms[name]
            return self.bench(arm.recipe).images(arm.recipe, arm.grid.part(number))

        return of_evidence(evidence, block, size=asked.erased.block, title=asked.cell.id)
