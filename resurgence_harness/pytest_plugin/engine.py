"""The Engine behind the fixtures, one per process: it turns a cell into models, images, evidence and a verdict.

All artifacts come from the bench, which loads them from the store or makes them; a run that finds everything in the
store imports no torch.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resurgence_harness.diffusion.devices import resolved_device
from resurgence_harness.errors import HarnessError, NotBuilt, ReadOnly, sentence
from resurgence_harness.examining import Examined, Laboratory, Recalled, Rule, examine
from resurgence_harness.limits.bindings import settings_digest
from resurgence_harness.reporting.given import notes_on, parts_of
from resurgence_harness.selection import STAGE_IMAGES, CellPlan, plan_cell, resolve_base, training_data
from resurgence_harness.specs import Base, Cell, Recipe
from resurgence_harness.statistics import CellEvidence, Policy, cannot_hold, check_stages
from resurgence_harness.storing import Seal, Store
from resurgence_harness.tasks import Task
from resurgence_harness.watching import Recorder

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.bench import Bench, BenignCheck
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.judging import Judge
    from resurgence_harness.limits.limits_file import Limits
    from resurgence_harness.pytest_plugin.options import Options

LIMITS_FILE = "limits.yaml"
"""File beside a suite that is read if --resurgence-limits is not given."""


class BenignImages(NamedTuple):
    """Training data of a fine-tuning."""

    images: np.ndarray
    """uint8 [n, height, width, 3]."""
    prompts: tuple[str, ...]
    """The prompt of each image."""


class Engine:
    """The bench of this process, set up from the options."""

    def __init__(self, options: Options, *, base: Base | None = None, progress: Recorder) -> None:
        """`base`: as read and checked by the controller, if it was."""
        self.options, self.progress, self._base = options, progress, base
        self._limits: dict[Path | None, Limits] = {}

    @cached_property
    def base(self) -> Base:
        """The published model; in a worker, the one that the controller has checked."""
        return self._base or self.options.resolved or resolve_base(self.options.base)

    @cached_property
    def store(self) -> Store:
        """The store of all artifacts."""
        return Store(self.options.store, run=self.options.run, read_only=self.options.no_build)

    @cached_property
    def bench(self) -> Bench:
        """The bench of this process."""
        from resurgence_harness.bench import Bench

        found = Bench(
            self.store,
            base_location=self.base,
            device=resolved_device(self.options.device),
            progress=self.progress.update,
        )
        found.observe(self.progress)
        return found

    def watch(self, progress: Recorder) -> None:
        """Report to this recorder from now on."""
        self.progress = progress
        self.bench.set_progress(progress.update)
        self.bench.observe(progress)

    @property
    def ignored(self) -> dict[str, Seal]:
        """Store entries that were treated as absent so far."""
        return self.store.ignored if "store" in self.__dict__ else {}

    def judge(self, name: str) -> Any:
        """A registered judge by name."""
        from resurgence_harness.judging import judge_by_name

        return judge_by_name(name)

    def plan(self, cell: Cell, task: Task) -> CellPlan:
        """The plan of a cell."""
        return plan_cell(cell, self.base, task=task, selection=self.options.selection)

    def expected(self, cell: Cell, task: Task) -> tuple[CellPlan, list[Judge]]:
        """The plan of a cell and its judges, for the model of the remaining time."""
        found = self.plan(cell, task)
        return found, [self.judge(name) for name in found.judges]

    def limits(self, suite: Path) -> Limits:
        """The limits for tests in this folder."""
        from resurgence_harness.limits.limits_file import Limits, load_limits

        beside = suite / LIMITS_FILE
        path = self.options.limits or (beside if beside.is_file() else None)
        if path not in self._limits:
            self._limits[path] = load_limits(path) if path is not None else Limits()
        return self._limits[path]

    def rule(self, plan: CellPlan, suite: Path) -> Rule:
        """How a cell of a suite is decided: its limits, and the acceptance for it on this base.

        UserError for a life with too many stages for its images.
        """
        limits, settings = self.limits(suite), settings_digest(plan.tuned.steps)
        self._check_stages(plan, limits.policy_for(plan.cell))
        versions = {step.name: step.version for step in plan.tuned.steps}
        names = plan.erased.probe.concepts
        acceptance = limits.acceptance_for(plan.cell, plan.base.base.digest, versions, settings, concepts=names)
        listed = bool(self.options.selection.concepts)
        if listed and acceptance is not None and not acceptance.concepts and acceptance.bound_to is None:
            acceptance = None  # it was written for the task's own erase set
        return Rule(policy=limits.policy_for(plan.cell), acceptance=acceptance, settings=settings)

    def _check_stages(self, plan: CellPlan, policy: Policy) -> None:
        """UserError if the images of each stage of a life cannot show anything."""
        grid = plan.erased
        images = min(grid.blocks_for(STAGE_IMAGES["after"]) * grid.block, len(grid))
        check_stages(len(plan.stages), images, policy)

    def notes(self, plan: CellPlan, suite: Path) -> tuple[str, ...]:
        """Notes on a cell before sampling: unusual image sizes, grids too small for any decision, and parts that
        other packages registered or a conftest.py replaced, and by whom its judges were calibrated."""
        from resurgence_harness.judging.calibrating import origin_notes

        short = cannot_hold(len(plan.erased), self.limits(suite).policy_for(plan.cell))
        return (
            *plan.notes,
            *([f"{_about(plan)}: {short}"] if short else []),
            *notes_on(parts_of(plan.cell, plan.judges)),
            *origin_notes([self.judge(name) for name in plan.judges]),
        )

    def laboratory(self, plan: CellPlan) -> Laboratory:
        """This process's bench and the judges of a cell, the deciding one first."""
        return Laboratory(
            bench_of=lambda recipe: self.bench,
            judges=[self.judge(name) for name in plan.judges],
            effect=lambda inquiry: self.bench.losses(plan.tuned),
            on_look=self.progress.look,
        )

    def examine(self, plan: CellPlan, suite: Path) -> Examined[CellPlan]:
        """Sample and judge for a cell until its verdict is clear.

        NotBuilt if something is missing and --resurgence-no-build was given.
        """
        laboratory = self.laboratory(plan)
        self.check_judges(plan)
        try:
            self.check_data(plan, suite)
            return examine(plan, self.rule(plan, suite), laboratory)
        except ReadOnly:
            if not self.options.no_build:
                raise
            raise self._not_built(plan, suite) from None

    def check_judges(self, plan: CellPlan) -> None:
        """Raise before anything is built if a judge could not judge: a missing weight, no label for a name."""
        from resurgence_harness.judging import check_ready

        for name in plan.judges:
            check_ready(self.judge(name), plan.names)

    def _not_built(self, plan: CellPlan, suite: Path) -> NotBuilt:
        """What the store lacks for a cell."""
        from resurgence_harness.planning import NothingStored, Pace, describe_needed
        from resurgence_harness.planning import plan as planned_from

        judges = [self.judge(name) for name in plan.judges]
        evidence = self.recall(plan, suite).wanted(judges, beyond=True)
        needed = describe_needed(planned_from(self.store, evidence, pace=Pace(NothingStored())))
        return NotBuilt(
            sentence(
                f"Not built: the store lacks {needed or 'a control'} of this cell.",
                cell=f"{plan.cell.task}/{plan.cell.id}",
                store=self.store.here.name,
                do="Build the missing shard or run `resurgence build`, or leave out --resurgence-no-build.",
            )
        )

    def check_data(self, plan: CellPlan, suite: Path) -> tuple[BenignCheck, ...]:
        """The deciding judge's checks that given fine-tuning images are benign; none for images drawn by the base.

        UserError if they show a concept that is erased before they are trained on.
        """
        from resurgence_harness.bench import check_benign
        from resurgence_harness.finetuning import FineTuning, GivenSet

        grids = [grid for grid in (plan.erased, plan.synonyms) if grid is not None]
        named = {concept for grid in grids for concept in grid.probe.concepts}
        sets: dict[GivenSet, set[str]] = {}
        erased: set[str] = set()
        for step in plan.tuned.steps:
            if not isinstance(step, FineTuning):
                erased |= {concept.name for concept in getattr(step, "concepts", ())}
            elif isinstance(step.data, GivenSet):
                sets.setdefault(step.data, set()).update(named & erased)
        return tuple(
            check_benign(
                self.bench,
                data,
                self.judge(plan.judges[0]),
                concepts,
                alpha=self.limits(suite).policy_for(plan.cell).alpha,
                limit=self.options.data_limit,
            )
            for data, concepts in sets.items()
            if concepts
        )

    def findings(self, plan: CellPlan, suite: Path) -> tuple[str, ...]:
        """The notes on a cell that has been judged: those before sampling, and the check of given fine-tuning data."""
        found = [f"{_about(plan)}: {check.summary}." for check in self.check_data(plan, suite)]
        return (*self.notes(plan, suite), *found)

    def recall(self, plan: CellPlan, suite: Path) -> Recalled[CellPlan]:
        """The state of a cell from the store alone; nothing is made."""
        return Recalled(plan, self.rule(plan, suite), self.laboratory(plan))

    # For the fixtures

    def base_model(self) -> StableDiffusion:
        """The published model, loaded."""
        return self.bench.model(Recipe(self.base))

    def unlearned_model(self, cell: Cell, task: Task) -> StableDiffusion:
        """The cell's unlearned model, loaded."""
        return self.bench.model(self.plan(cell, task).unlearned)

    def fine_tuned_model(self, cell: Cell, task: Task, suite: Path) -> StableDiffusion:
        """The cell's fine-tuned model, loaded. UserError for given fine-tuning data that show an erased concept."""
        plan = self.plan(cell, task)
        self.check_data(plan, suite)
        return self.bench.model(plan.tuned)

    def benign_images(self, task: Task) -> BenignImages:
        """Training data of a task's fine-tunings."""
        import numpy as np

        from resurgence_harness.finetuning import GivenSet

        data = training_data(task, self.base, self.options.selection)
        if isinstance(data, GivenSet):
            rows = data.folder.training
            return BenignImages(np.concatenate(list(data.images(rows))), tuple(row.caption for row in rows))
        images = self.bench.images(Recipe(self.base), data.probe)
        return BenignImages(images, tuple(prompt.text for prompt, _ in data.probe.rows()))

    # For the report

    def block_images(self, plan: CellPlan, name: str, number: int) -> np.ndarray:
        """The images of one block of an arm, uint8 [n, height, width, 3], each from its concept's model."""
        import numpy as np

        arm = plan.arms[name]
        block = arm.grid.part(number)
        made = [self.bench.images(recipe, block) for recipe in arm.recipes]
        if len(made) == 1:
            return made[0]
        of = arm.by_concept_of(made)
        return np.stack([of[prompt.concept][place] for place, (prompt, _) in enumerate(block.rows())])

    def contact_sheet(self, plan: CellPlan, evidence: CellEvidence, title: str) -> bytes:
        """The cell's contact sheet: base, unlearned and fine-tuned images side by side, JPEG."""
        from resurgence_harness.reporting.contact_sheet import of_evidence

        def block(name: str, number: int) -> np.ndarray:
            return self.block_images(plan, name, number)

        return of_evidence(evidence, block, size=plan.erased.block, title=title)

    def release(self) -> None:
        """Free the loaded models."""
        if "bench" in self.__dict__:
            self.bench.release()


def _about(plan: CellPlan) -> str:
    """The subject of a note: task and number of concepts, the same for all methods."""
    return f"{plan.cell.task}, {plan.cell.count} concept{'' if plan.cell.count == 1 else 's'}"


def harness_message(error: BaseException) -> str:
    """An error as one line."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    return first if isinstance(error, HarnessError) else f"{type(error).__name__}: {first}"
