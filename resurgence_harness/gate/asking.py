"""A release gate's cells, examined look by look: three models, one group of erased concepts, the policy's limits.

    Plan ──▶ Inquiry ──▶ bench of each model ──▶ decide ──wants more──▶ …            until clear, or the budget is spent

For the bench each model is a separate base: its own scheduler, tokenizer and autoencoder are used, and its images are
stored under its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import ceil
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.devices import slow_on
from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.examining import Budget, Examined, Laboratory, Rule, check_prompts, examine
from resurgence_harness.gate.models import Models
from resurgence_harness.gate.release_policy import ConceptGroup, ReleasePolicy
from resurgence_harness.gate.workers import Workers
from resurgence_harness.inquiry import Inquiry
from resurgence_harness.presets import check_size, image_of, settings_of
from resurgence_harness.reporting.given import notes_on, parts_of
from resurgence_harness.reporting.records import cell_record
from resurgence_harness.selection import BLOCK, CONTROL_IMAGES, PAIRS, RETAINED, Arm, StagePlan
from resurgence_harness.specs import Cell, Grid, Probe, Prompt, Recipe, Sampler
from resurgence_harness.statistics import (
    FIXED,
    Acceptance,
    CellEvidence,
    Differs,
    ImageGroup,
    Shuffled,
)
from resurgence_harness.storing import Store
from resurgence_harness.watching import Recorder, ToPlan, View, word

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.bench import Bench
    from resurgence_harness.judging import Judge

ENGINE = "sequential"
FILLED = 400
"""Maximum images per filled template, without a base; usually the first hundred are enough. The policy's `seeds` does
not lower it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Models, grids and judges of one cell of a gate."""

    cell: Cell
    candidate: Recipe
    unlearned: Recipe | None
    base: Recipe | None
    erased: Grid
    synonyms: Grid | None
    """Synonyms of the erased concepts; a rise is claimed for them, which needs the unlearned model."""
    retained: Grid
    judges: tuple[str, ...]
    control_images: int
    """Images of the base, or without one of every filled template, for the positive control."""
    as_parent: Recipe | None = None
    """The candidate's weights with its parent's tokenizer, scheduler and VAE; None if the candidate has the same."""
    templates: Mapping[str, Grid] = field(default_factory=dict)
    """Without a base: template → its prompts with retained concepts."""
    engine: str = "sequential"

    @property
    def models(self) -> dict[str, Recipe]:
        """Every model by its name in verdict.json."""
        given = {"base": self.base, "unlearned": self.unlearned, "tuned": self.candidate, "as_parent": self.as_parent}
        return {name: recipe for name, recipe in given.items() if recipe is not None}

    @property
    def grids(self) -> dict[str, Grid | None]:
        """Every grid by its name in verdict.json."""
        templates = {f"template {place}": grid for place, grid in enumerate(self.templates.values(), start=1)}
        return {"erased": self.erased, "retained": self.retained, "synonyms": self.synonyms, **templates}

    @property
    def checkpoints(self) -> dict[int, Recipe]:
        """Empty: the intermediate steps of a candidate's fine-tuning are not known."""
        return {}

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        """Empty: the stages of a candidate's training are not known."""
        return ()

    @property
    def claims(self) -> int:
        """One: nothing is claimed about single steps."""
        return 1

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Every arm: a model and its grid; ordered by model."""

        def compared(recipe: Recipe, grid: Grid, group: ImageGroup) -> Arm:
            return Arm(recipe, grid, Shuffled(len(grid)), group, 1)

        arms: dict[str, Arm] = {}
        if self.base is not None:
            arms["base"] = Arm(self.base, self.erased, FIXED, None, min(self.control_images, len(self.erased)))
            arms["base_retained"] = compared(self.base, self.retained, ImageGroup.RETAINED)
        if self.unlearned is not None:
            arms["before"] = compared(self.unlearned, self.erased, ImageGroup.ERASED)
            arms["retained_before"] = compared(self.unlearned, self.retained, ImageGroup.RETAINED)
            if self.synonyms is not None:
                arms["synonyms_before"] = compared(self.unlearned, self.synonyms, ImageGroup.SYNONYMS)
                arms["synonyms_after"] = compared(self.candidate, self.synonyms, ImageGroup.SYNONYMS)
        arms["after"] = compared(self.candidate, self.erased, ImageGroup.ERASED)
        if self.as_parent is not None:
            arms["as_parent"] = compared(self.as_parent, self.erased, ImageGroup.AS_PARENT)
        arms["retained_after"] = compared(self.candidate, self.retained, ImageGroup.RETAINED)
        for place, (template, grid) in enumerate(self.templates.items(), start=1):
            least = min(self.control_images, len(grid))
            design = Shuffled(len(grid))
            arms[f"template {place}"] = Arm(self.candidate, grid, design, ImageGroup.TEMPLATES, least, template)
        return arms


def sampler_of(policy: ReleasePolicy, models: Models) -> Sampler:
    """Sampler settings: the policy's values over the preset for the candidate's model and image size."""
    return policy.file.sampler.over(Sampler(**settings_of(models.candidate.base)["sampler"]))


def image_notes(policy: ReleasePolicy, models: Models, device: str) -> list[str]:
    """Notes if images have another size than the base was trained for, or an arithmetic that is slow on this device."""
    sampler = sampler_of(policy, models)
    size = check_size(image_of(models.candidate.base), sampler.height, sampler.width)
    return list(filter(None, (size, slow_on(device, sampler.arithmetic))))


def given_notes(policy: ReleasePolicy) -> list[str]:
    """Notes on the judges and the task of a policy that another package registered or a conftest.py replaced, and on
    those who calibrated the judges."""
    from resurgence_harness.judging import judge_by_name
    from resurgence_harness.judging.calibrating import origin_notes

    cells = map(policy.cell, policy.groups)
    notes = [note for cell in cells for note in notes_on(parts_of(cell, policy.judges, built=False))]
    return list(dict.fromkeys([*notes, *origin_notes([judge_by_name(name) for name in policy.judges])]))


def plan(policy: ReleasePolicy, group: ConceptGroup, models: Models) -> Plan:
    """The plan of one group; UserError for prompts that need a base if none is given."""
    if models.differences and models.as_parent is None:
        raise HarnessError(
            sentence(
                "The candidate differs from its parent in more than its weights, but no model was made to compare.",
                differs="; ".join(models.differences),
                do="Report it.",
            )
        )
    sampler = sampler_of(policy, models)
    block = ceil(BLOCK / sampler.batch) * sampler.batch

    def grid(prompts: tuple[Prompt, ...], images: int, own_seeds: int | None = policy.file.seeds) -> Grid:
        seeds = own_seeds or ceil(images / len(prompts))
        return Grid(probe=Probe(prompts=prompts, seeds=tuple(range(1, seeds + 1)), sampler=sampler), block=block)

    synonyms = policy.synonym_prompts(group.concepts)
    filled = policy.filled_templates() if models.base is None else {}
    control = max(CONTROL_IMAGES, group.policy.positive_images)
    return Plan(
        cell=policy.cell(group),
        candidate=models.candidate,
        unlearned=models.unlearned,
        base=models.base,
        erased=grid(policy.prompts(group.concepts), PAIRS),
        synonyms=grid(synonyms, PAIRS) if synonyms else None,
        retained=grid(policy.retained_prompts(), RETAINED),
        judges=policy.judges,
        control_images=control,
        as_parent=models.as_parent,
        templates={template: grid(prompts, max(FILLED, control), None) for template, prompts in filled.items()},
    )


def judges_for(policy: ReleasePolicy) -> list[Judge]:
    """The policy's judges, checked; UserError for a concept without a label in a judge, and for one judge given twice.

    A concept without a label is never a hit, which would look like safety.
    """
    from resurgence_harness.judging import check_different, check_names, check_ready, judge_by_name

    judges = [judge_by_name(name) for name in policy.judges]
    for judge in judges:
        check_ready(judge)
        check_names(judge, [concept.name for concept in (*policy.erased, *policy.retained)])
    check_different(judges)
    return judges


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """The result for one group."""

    examined: Examined[Plan]
    record: dict[str, Any]
    """The cell's object in verdict.json."""
    sheet: bytes
    """The contact sheet, JPEG."""


class Gate:
    """The benches of one gate: each model is loaded once, on first use."""

    def __init__(
        self,
        policy: ReleasePolicy,
        models: Models,
        *,
        store: Store,
        device: str,
        progress: Recorder | None = None,
        workers: int | None = 1,
    ) -> None:
        """Loads no model yet; UserError for plans that cannot be run.

        `workers`: number of processes that sample and judge, on a CPU; None to choose it, 1 for this process alone.
        """
        self.policy, self.models = policy, models
        self.judges = judges_for(policy)
        self.plans = {group.word: plan(policy, group, models) for group in policy.groups}
        for recipe in models.named.values():
            check_prompts(self.plans.values(), recipe.base)
        self.store, self.device, self._progress = store, device, progress or Recorder()
        self._benches: dict[str, Bench] = {}
        self._workers = Workers(
            self.plans, self.judges, store=store, device=device, number=workers, progress=self._progress.update
        )

    def bench(self, recipe: Recipe) -> Bench:
        """The bench of one model."""
        from resurgence_harness.bench import Bench

        digest = recipe.base.digest
        if digest not in self._benches:
            self._benches[digest] = Bench(self.store, device=self.device, progress=self._progress.update)
            self._benches[digest].observe(self._progress)
        return self._benches[digest]

    def watch(self, view: View) -> None:
        """Show the run in this view from now on, with the time that its groups still take."""
        self._progress = view.recorder
        self._workers.progress = self._progress.update
        for bench in self._benches.values():
            bench.set_progress(self._progress.update)
            bench.observe(self._progress)
        view.plan(self.to_plan, store=lambda: self.store, device=self.device)

    @property
    def cells(self) -> dict[str, Plan]:
        """Every group's plan by the cell's name, as the view of a run shows it."""
        return {word({"task": one.cell.task, "id": one.cell.id}): one for one in self.plans.values()}

    @property
    def to_plan(self) -> list[ToPlan]:
        """Every group, for the model of the remaining time."""

        def planned(plan: Plan) -> tuple[Plan, list[Judge]]:
            return plan, self.judges

        return [(name, partial(planned, plan)) for name, plan in self.cells.items()]

    def acceptance(self, group: ConceptGroup) -> Acceptance | None:
        """The acceptance for a group on its base, if any."""
        base = self.plans[group.word].base
        return self.policy.acceptance(group, base.base.digest if base is not None else None)

    def ask(self, group: ConceptGroup, *, nodeid: str = "") -> GroupResult:
        """Sample, judge and decide one group until its verdict is clear or the budget is spent."""
        entry = self.policy.file.budget
        budget = Budget(images=entry.images, minutes=entry.minutes)
        rule = Rule(policy=group.policy, acceptance=self.acceptance(group))
        asked = self.plans[group.word]
        with self._progress.during(word({"task": asked.cell.task, "id": asked.cell.id})):
            examined = examine(asked, rule, self._laboratory, budget=budget)
        record = cell_record(
            examined,
            nodeid=nodeid or f"gate[{examined.inquiry.plan.cell.id}]",
            limits=self.policy.digest,
            store=self.store,
        )
        return GroupResult(
            examined=examined, record=record, sheet=self._sheet(examined.inquiry.plan, examined.evidence)
        )

    def release(self) -> None:
        """Stop the workers, and free every loaded model."""
        self._workers.close()
        for bench in self._benches.values():
            bench.release()

    @property
    def _laboratory(self) -> Laboratory:
        return Laboratory(
            bench_of=self.bench,
            judges=self.judges,
            effect=self._effect,
            prepare=self._workers.prepare,
            on_look=self._progress.look,
        )

    def _effect(self, inquiry: Inquiry[Plan]) -> Differs | None:
        """Whether candidate and unlearned model differ in weights and in images; None without an unlearned model."""
        if self.models.differs is None:
            return None
        same = "before" in inquiry.plan.arms and inquiry.seen("before").images == inquiry.seen("after").images
        return Differs(weights=self.models.differs, images=not same)

    def _sheet(self, plan: Plan, evidence: CellEvidence) -> bytes:
        from resurgence_harness.reporting.contact_sheet import of_evidence

        def block(name: str, number: int) -> np.ndarray:
            arm = plan.arms[name]
            return self.bench(arm.recipe).images(arm.recipe, arm.grid.part(number))

        foot = [f"differs from its parent: {one}" for one in self.models.differences]
        return of_evidence(evidence, block, size=plan.erased.block, title=plan.cell.id, foot=foot)
