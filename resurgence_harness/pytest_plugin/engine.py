"""What the fixtures stand on: one Engine per process, which turns a cell into models, images, evidence and a verdict.

Everything is asked of the bench, which takes it from the store or makes it; so a run in which everything is there
imports no torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from resurgence_harness.diffusion.devices import check_device, resolved_device
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.inquiry import Inquiry, Question
from resurgence_harness.planning import checkpoint_key
from resurgence_harness.pytest_plugin import progress
from resurgence_harness.pytest_plugin.claims import passed, tell
from resurgence_harness.pytest_plugin.collecting import cell_of, task_of
from resurgence_harness.pytest_plugin.options import Options
from resurgence_harness.pytest_plugin.progress import Teller
from resurgence_harness.selection import CellPlan, base_model, benign_probe, plan_cell
from resurgence_harness.specs import Base, Cell, Recipe
from resurgence_harness.statistics import (
    Acceptance,
    CellEvidence,
    Evidence,
    Verdict,
    cannot_hold,
    decide,
)
from resurgence_harness.storing import Store
from resurgence_harness.tasks import Task

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.bench import Bench
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.gate.policy import Limits

LIMITS_FILE = "limits.yaml"
"""What is read beside a suite where --resurgence-limits names nothing."""
SHARES = {
    "base": 0.06,
    "base_retained": 0.03,
    "before": 0.24,
    "retained_before": 0.03,
    "insample_before": 0.03,
    "after": 0.20,
    "retained_after": 0.03,
    "insample_after": 0.03,
    "synonyms_before": 0.03,
    "synonyms_after": 0.03,
}
"""About which share of a cell's time an arm's first block takes, its model included: the progress line counts by it."""
LATER = 0.012
"""The same for each later block, of which a cell draws about thirty."""


class BenignImages(NamedTuple):
    """What a fine-tuning is trained on."""

    images: np.ndarray
    """uint8 [n, height, width, 3]."""
    prompts: tuple[str, ...]
    """The text of each."""


class Engine:
    """The bench of this process, and what the options say about it."""

    def __init__(
        self, options: Options, *, base: Base | None = None, judges: Sequence[Any] = (), teller: Teller
    ) -> None:
        """`base` is given where the controller has read and checked it; `judges` are a suite's own."""
        self.options, self.teller = options, teller
        self._base, self._judges = base, {judge.name: judge for judge in judges}
        self._limits: dict[Path | None, Limits] = {}

    @cached_property
    def base(self) -> Base:
        """The published model; in a worker, the one that the controller has checked."""
        return self._base or base_model(self.options.base)

    @cached_property
    def store(self) -> Store:
        """Where everything made is kept."""
        return Store(self.options.store)

    @cached_property
    def bench(self) -> Bench:
        """The bench of this process."""
        from resurgence_harness.bench import Bench

        return Bench(
            self.store,
            base_location=self.base,
            device=resolved_device(self.options.device),
            progress=self.teller.doing,
        )

    def judge(self, name: str) -> Any:
        """A judge by name: one that the suite's conftest gave, else one of the package."""
        if name in self._judges:
            return self._judges[name]
        from resurgence_harness.judging import judge_by_name

        return judge_by_name(name)

    def plan(self, cell: Cell, task: Task) -> CellPlan:
        """What a cell asks for."""
        return plan_cell(cell, self.base, task=task, selection=self.options.selection)

    def limits(self, suite: Path) -> Limits:
        """The limits for tests in this folder."""
        from resurgence_harness.gate.policy import Limits, load_limits

        beside = suite / LIMITS_FILE
        path = self.options.limits or (beside if beside.is_file() else None)
        if path not in self._limits:
            self._limits[path] = load_limits(path) if path is not None else Limits()
        return self._limits[path]

    def inquire(self, plan: CellPlan, decide: Callable[[CellEvidence], Verdict]) -> Inquiry[CellPlan]:
        """Ask every model of a cell, and every judge, until `decide` wants to see no more."""
        from resurgence_harness.judging import check_ready

        judges = [self.judge(name) for name in plan.judges]
        for judge in judges:
            check_ready(judge, plan.names)  # what it lacks is told before anything is built for it
        inquiry = Inquiry(plan)
        while True:
            waiting = inquiry.open
            while waiting:
                # What another worker is making is left for later.
                question = next((one for one in waiting if not self._busy(inquiry, one)), waiting[0])
                waiting.remove(question)
                first = question.number == 0
                self.teller.stage(SHARES[question.arm] if first else LATER)
                recipe, block = plan.arms[question.arm].recipe, inquiry.block(question)
                inquiry.answer(question, [self.bench.evidence(recipe, block, judge) for judge in judges])
            if not inquiry.widen(decide(self.evidence(inquiry)).wants):
                return inquiry

    def along(self, inquiry: Inquiry[CellPlan]) -> dict[int, Evidence]:
        """What the deciding judge sees after each step that was asked for: the images of the end, asked of it as well.

        Nothing is decided on it; its bounds hold whenever one looks, as those of the end do.
        """
        plan = inquiry.plan
        judge, design = self.judge(plan.judges[0]), plan.arms["after"].design
        found = {}
        for step, recipe in plan.along.items():
            parts = []
            for question in inquiry.asked("after"):
                self.teller.stage(LATER)
                parts.append(self.bench.evidence(recipe, inquiry.block(question), judge))
            found[step] = Evidence.joined(parts, design)
        return dict(sorted(found.items()))

    def recall(self, inquiry: Inquiry[CellPlan]) -> bool:
        """Answer what is open from the store alone; whether everything was there, controls included. Makes nothing."""
        judges = [self.judge(name) for name in inquiry.plan.judges]
        for question in inquiry.open:
            recipe, block = inquiry.plan.arms[question.arm].recipe, inquiry.block(question)
            known = [self.bench.known(recipe, block, judge) for judge in judges]
            if any(one is None for one in known):
                return False
            inquiry.answer(question, [one for one in known if one is not None])
        return self.bench.has_controls(inquiry.plan.tuned, judges)

    def evidence(self, inquiry: Inquiry[CellPlan]) -> CellEvidence:
        """What an inquiry showed so far, with the judges' canaries and errors and the fine-tuning's effect."""
        from resurgence_harness.judging import accuracy_of

        plan = inquiry.plan
        judges = [self.judge(name) for name in plan.judges]
        return inquiry.evidence(
            effect=self.bench.losses(plan.tuned),
            canaries=[self.bench.canaries(judge) for judge in judges],
            accuracies=[accuracy_of(judge) for judge in judges],
        )

    def _busy(self, inquiry: Inquiry[CellPlan], question: Question) -> bool:
        return self.bench.busy(inquiry.plan.arms[question.arm].recipe, inquiry.block(question))

    def decide(self, plan: CellPlan, suite: Path) -> Callable[[CellEvidence], Verdict]:
        """How cells of a suite are decided: by its limits, and by what was accepted for this cell."""
        limits, cell = self.limits(suite), plan.cell
        policy, acceptance = limits.policy_for(cell), self.acceptance(plan, suite)
        settings = self.settings(plan)
        return lambda evidence: decide(evidence, policy, acceptance, settings=settings)

    def acceptance(self, plan: CellPlan, suite: Path) -> Acceptance | None:
        """What was accepted for this cell on this base with these steps, if anything; it may be of other settings."""
        versions = {step.name: step.version for step in plan.tuned.steps}
        return self.limits(suite).acceptance_for(plan.cell, plan.base.base.digest, versions, self.settings(plan))

    def notes(self, plan: CellPlan, suite: Path) -> tuple[str, ...]:
        """What the reader of this cell must know before anything is drawn: odd sizes, grids that can never decide."""
        short = cannot_hold(len(plan.erased), self.limits(suite).policy_for(plan.cell))
        count = f"{plan.cell.count} concept{'' if plan.cell.count == 1 else 's'}"
        about = f"{plan.cell.task}, {count}: "
        return (*plan.notes, *([about + short] if short else []))

    def settings(self, plan: CellPlan) -> str:
        """Short digest of the values of the cell's steps."""
        from resurgence_harness.gate.bindings import settings_digest

        return settings_digest(plan.tuned.steps)

    # What the fixtures hand over

    def cell(self, node: Any) -> Cell:
        """The cell of a test."""
        found = cell_of(node, self.options)
        if found is None:
            raise HarnessError(sentence(f"{node.nodeid} has no cell.", do="Run it through pytest's own collection."))
        return found

    def base_model(self) -> StableDiffusion:
        """The published model, loaded."""
        return self.bench.model(Recipe(self.base))

    def unlearned_model(self, node: Any, cell: Cell) -> StableDiffusion:
        """The cell's unlearned model, loaded."""
        return self.bench.model(self.plan(cell, task_of(node)).unlearned)

    def fine_tuned_model(self, node: Any, cell: Cell) -> StableDiffusion:
        """The cell's fine-tuned model, loaded."""
        return self.bench.model(self.plan(cell, task_of(node)).tuned)

    def benign_images(self, node: Any) -> BenignImages:
        """What fine-tunings of the test's task are trained on."""
        probe = benign_probe(task_of(node), self.base, self.options.selection)
        images = self.bench.images(Recipe(self.base), probe)
        return BenignImages(images, tuple(prompt.text for prompt, _ in probe.rows()))

    def judge_for(self, node: Any) -> Any:
        """The judge that decides for the test's task."""
        return self.judge(task_of(node).judges[0])

    def claim(self, node: Any, cell: Cell) -> Claim:
        """The claim that a test makes."""
        return Claim(self, self.plan(cell, task_of(node)), node)

    # What a cell leaves

    def contact_sheet(self, plan: CellPlan, evidence: CellEvidence, title: str) -> bytes:
        """The cell's pictures: base, unlearned and fine-tuned side by side."""
        from resurgence_harness.reporting.contact_sheet import of_evidence

        def block(name: str, number: int) -> np.ndarray:
            arm = plan.arms[name]
            return self.bench.images(arm.recipe, arm.grid.part(number))

        return of_evidence(evidence, block, size=plan.erased.block, title=title)

    def record(
        self,
        inquiry: Inquiry[CellPlan],
        evidence: CellEvidence,
        verdict: Verdict,
        *,
        along: Mapping[int, Evidence],
        nodeid: str,
        limits: str,
    ) -> dict[str, Any]:
        """The cell's object in verdict.json."""
        from resurgence_harness.reporting.records import cell_record

        plan = inquiry.plan
        models = {"base": plan.base, "unlearned": plan.unlearned, "tuned": plan.tuned}
        return cell_record(
            plan.cell,
            evidence,
            verdict,
            nodeid=nodeid,
            limits=limits,
            engine=plan.engine,
            looks=inquiry.looks,
            images=inquiry.images,
            along={**along, plan.finetuning.steps: evidence.after} if along else {},
            grids={"erased": plan.erased, "retained": plan.retained, "synonyms": plan.synonyms},
            models={
                name: {
                    "recipe": recipe.words,
                    "key": checkpoint_key(recipe) if recipe.steps else recipe.base.digest,
                    "digest": self._digest(recipe),
                }
                for name, recipe in models.items()
            },
        )

    def release(self) -> None:
        """Let go of loaded models."""
        if "bench" in self.__dict__:
            self.bench.release()

    def _digest(self, recipe: Recipe) -> str:
        """What came out; empty where the checkpoint was cleared away since it was judged."""
        if not recipe.steps:
            return recipe.base.digest
        made = self.store.find(checkpoint_key(recipe))
        return made.digest if made is not None else ""


class Claim:
    """One cell's claim: the erased concepts do not come back when the unlearned model is fine-tuned on innocent images.

    `stays_erased()` is the whole test. `evidence`, `verdict` and `plan` may be looked at as well.
    """

    def __init__(self, engine: Engine, plan: CellPlan, item: pytest.Item) -> None:
        """Nothing is built before it is asked for."""
        self._engine, self.plan, self._item = engine, plan, item
        self.cell = plan.cell
        self._began = time.monotonic()

    @property
    def inquiry(self) -> Inquiry[CellPlan]:
        """Everything that was asked, until the answer was clear."""
        return self._asked[0]

    @cached_property
    def _asked(self) -> tuple[Inquiry[CellPlan], dict[int, Evidence]]:
        """The inquiry, and what the models on the way to the last one show."""
        self._engine.teller.cell(progress.word({"task": self.cell.task, "id": self.cell.id}))
        try:
            inquiry = self._engine.inquire(self.plan, self._engine.decide(self.plan, self._suite))
            return inquiry, self._engine.along(inquiry)
        finally:
            self._engine.teller.over()

    @cached_property
    def evidence(self) -> CellEvidence:
        """What every arm of the cell showed."""
        return self._engine.evidence(self.inquiry)

    @property
    def _suite(self) -> Path:
        return self._item.path.parent

    @cached_property
    def verdict(self) -> Verdict:
        """What is said of the cell; it is recorded for the report when it is first asked for."""
        from resurgence_harness.pytest_plugin import cell_report
        from resurgence_harness.reporting import allure

        cell, plan = self.cell, self.plan
        allure.label(
            task=cell.task,
            method=cell.method,
            concepts=cell.count,
            finetuning=cell.finetuning,
            run=cell.run,
            severity=plan.task.severity,
            base=plan.base.base.name,
            trained=cell_report.trained(plan),
        )
        evidence, acceptance = self.evidence, self._engine.acceptance(plan, self._suite)
        verdict = self._engine.decide(plan, self._suite)(evidence)
        limits = self._engine.limits(self._suite)
        inquiry, along = self._asked
        record = self._engine.record(
            inquiry, evidence, verdict, along=along, nodeid=self._item.nodeid, limits=limits.digest
        )
        settings = self._engine.settings(plan)
        applied = acceptance if acceptance is not None and acceptance.counts(date.today(), settings) else None
        record["acceptance"] = json.loads(json.dumps(asdict(applied), default=str)) if applied else None
        record["settings"] = settings
        record["notes"] = list(self._engine.notes(plan, self._suite))
        record["seconds"] = round(time.monotonic() - self._began, 3)
        if tell(self._item, record, verdict):
            cell_report.write(self._engine, plan, evidence, verdict, record, self._item)
        return verdict

    def stays_erased(self) -> Verdict:
        """Pass if the verdict is HOLDS or KNOWN; raise Violated or Undecided, with its arithmetic, if it is not."""
        __tracebackhide__ = True
        return passed(self.verdict)


class Checked(NamedTuple):
    """What is known before any worker starts."""

    base: Base
    notes: tuple[str, ...]
    """Which prompts somebody wrote out are asked, and how many of them the base reads in part."""


def check(options: Options, tasks: Sequence[Task], suites: Sequence[Path], judges: Sequence[Any] = ()) -> Checked:
    """Find mistakes before any worker starts; nothing remains of it.

    UserError for a base, store or limits file that cannot be used, an erased name in a benign set, a name that the
    base's tokenizer cannot represent, a judge whose weights are missing or who cannot say a name, or missing prompts.
    """
    from resurgence_harness.judging import check_names
    from resurgence_harness.selection import cells
    from resurgence_harness.storing import check_usable

    engine = Engine(options, judges=judges, teller=Teller(None))
    for suite in suites:
        engine.limits(suite)
    check_device(options.device)
    check_usable(options.store)
    base = engine.base
    notes = []
    for task in tasks:
        asked: dict[str, bool] = {}
        names: dict[str, None] = {}
        for cell in cells(task, options.selection):
            plan = engine.plan(cell, task)
            names |= dict.fromkeys(plan.names)
            probes = (plan.erased.probe, plan.retained.probe, plan.benign)
            # A text that is also asked for by a template must be read whole.
            for prompt in (prompt for probe in probes for prompt in probe.prompts):
                asked[prompt.text] = prompt.written and asked.get(prompt.text, True)
        written = {text for text, by_somebody in asked.items() if by_somebody}
        cut, room = check_texts(Path(base.location), sorted(asked), may_be_cut=written)
        notes += _notes(task, len(written), cut, room)
        for name in task.judges:
            judge = engine.judge(name)
            _ = judge.digest  # of weights that are missing and not pinned there is none
            check_names(judge, tuple(names))
    return Checked(base, tuple(notes))


def _notes(task: Task, written: int, cut: int, room: int) -> list[str]:
    """What is to be told of prompts that somebody wrote out."""
    source = "" if isinstance(task.written, tuple) else task.written.words()
    told = [f"Prompts of {task.name}: {source}"] if source else []
    if cut:
        told.append(
            f"Prompts of {task.name}: {cut} of {written} are longer than the {room} tokens that the base reads; "
            "what is beyond is cut off."
        )
    return told


def harness_message(error: BaseException) -> str:
    """One line for what broke."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    return first if isinstance(error, HarnessError) else f"{type(error).__name__}: {first}"
