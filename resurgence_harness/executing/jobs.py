"""Jobs: the artifacts that a cell still needs for its next look, as small values that travel to workers.

    cell ──recall──▶ evidence that is missing ──planning.plan──▶ one job per artifact key ──▶ built ──▶ recall …

A job names its artifact by key and cell. A worker has collected the same suite and finds the recipe, the prompts and
the judge of that key itself, so neither models nor images nor specs pass through the driver, and a key that a worker
does not know reveals another version of the suite or of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.examining import Laboratory, Recalled, Rule
from resurgence_harness.finetuning import FineTuning, GivenSet
from resurgence_harness.planning import (
    Action,
    Pace,
    canaries_key,
    checkpoint_key,
    describe_recipe,
    losses_key,
    plan,
)
from resurgence_harness.storing import Condition, Store

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench
    from resurgence_harness.selection import CellPlan


class Order(NamedTuple):
    """What a worker needs to know of a job."""

    key: str
    """Of the artifact; of a whole cell, its name."""
    kind: str
    """checkpoint, images, judgments, losses, canaries, data (a check of given images) or cell (examine it there)."""
    cell: str
    """task/id of a cell that needs it."""
    label: str
    """Description for progress and for Ray's dashboard."""


@dataclass(kw_only=True, slots=True)
class Job:
    """One artifact to be built."""

    order: Order
    needs: tuple[str, ...] = ()
    """Keys of jobs that have to be done first; keys that are no jobs are stored already."""
    seconds: float = 0.0
    """Estimated time to build it."""
    model: str = ""
    """Key of the checkpoint that is loaded for it; empty for the base."""


class Done(NamedTuple):
    """The result of one job."""

    key: str
    problem: str = ""
    """Why it could not be built; empty if it was, or was stored already."""
    cause: str = ""
    """Of a problem: mistake (the user's), store (it cannot be used) or failed (this artifact); else empty."""
    canaries: int | None = None
    """Of canaries: how many the judge has."""
    seconds: float = 0.0


class Suite(Protocol):
    """The part of the plugin's engine that jobs need, in the driver and in workers."""

    @property
    def store(self) -> Store:
        """The store of all artifacts."""

    @property
    def bench(self) -> Bench:
        """The bench of this process."""

    def judge(self, name: str) -> Any:
        """A registered judge by name."""

    def rule(self, plan: CellPlan, suite: Path) -> Rule:
        """How a cell is decided."""

    def laboratory(self, plan: CellPlan) -> Laboratory:
        """This process's bench and the judges of a cell."""

    def examine(self, plan: CellPlan, suite: Path) -> Any:
        """Sample and judge for a cell until its verdict is clear."""

    def check_data(self, plan: CellPlan, suite: Path) -> Any:
        """Check that given fine-tuning images are benign."""

    def check_judges(self, plan: CellPlan) -> None:
        """Raise if a judge could not judge."""

    def release(self) -> None:
        """Free the loaded models."""


def name_of(plan: CellPlan) -> str:
    """The name of a cell in orders."""
    return f"{plan.cell.task}/{plan.cell.id}"


class CellCourse:
    """The jobs of one cell, look by look, until its verdict is clear or its grids are used up."""

    def __init__(self, cell: CellPlan, folder: Path, suite: Suite, *, pace: Pace, without_canaries: set[str]) -> None:
        """Nothing is read yet. `without_canaries`, shared by all cells: names of judges found to have none."""
        self.name, self.seconds = name_of(cell), 0.0
        self._cell, self._folder, self._suite, self._pace = cell, folder, suite, pace
        self._without = without_canaries
        self._judges = [suite.judge(name) for name in cell.judges]
        self._recalled: Recalled[CellPlan] | None = None
        self._ordered: set[str] = set()

    def look(self) -> list[Job]:
        """The jobs that are missing for the next decision, inputs first; empty if everything of the cell is built.

        HarnessError for an artifact that was built and is not in the store.
        """
        recalled = self._recall()
        evidence = recalled.wanted(self._judges)
        planned = plan(self._suite.store, evidence, pace=self._pace)
        jobs = [*self._checks(), *(self._job(action) for action in planned.needed), *self._controls(planned.needed)]
        again = self._ordered.intersection(job.order.key for job in jobs)
        if (again or not jobs) and not recalled.clear:
            jobs = self._whole()
        elif again:
            raise HarnessError(
                sentence(
                    f"{self.name} was built, and the store {self._suite.store.here.name} does not have it.",
                    missing=next(job.order.label for job in jobs if job.order.key in again),
                    do="Check that every node uses this same store.",
                )
            )
        self._ordered |= {job.order.key for job in jobs}
        return jobs

    def done(self, result: Done) -> None:
        """Take note of a job's result."""
        if result.canaries == 0:
            self._without |= {judge.name for judge in self._judges if canaries_key(judge) == result.key}

    def _recall(self) -> Recalled[CellPlan]:
        if self._recalled is None:
            laboratory = replace(self._suite.laboratory(self._cell), without_canaries=self._without)
            self._recalled = Recalled(self._cell, self._suite.rule(self._cell, self._folder), laboratory)
        else:
            self._recalled.advance()
        return self._recalled

    def _job(self, action: Action) -> Job:
        assert action.recipe is not None
        given = self._data_key()
        checks = (given,) if given and given not in self._ordered else ()
        recipe = action.recipe.before if action.kind == "checkpoint" else action.recipe
        model = checkpoint_key(recipe) if recipe.steps else ""
        label = action.label if action.kind != "checkpoint" else f"build {action.label}"
        order = Order(action.key, action.kind, self.name, label)
        return Job(order=order, needs=(*checks, *action.needs), seconds=action.seconds, model=model)

    def _checks(self) -> list[Job]:
        """The check of given fine-tuning images, once, before anything is trained on them."""
        place = self._data_key()
        if not place or place in self._ordered:
            return []
        return [Job(order=Order(place, "data", self.name, f"check the given images of {self.name}"))]

    def _data_key(self) -> str:
        steps = self._cell.tuned.steps
        given = any(isinstance(step, FineTuning) and isinstance(step.data, GivenSet) for step in steps)
        return f"data {self.name}" if given else ""

    def _controls(self, needed: Sequence[Action]) -> list[Job]:
        """The benign losses of the fine-tuning and the judges' canaries, where the store lacks them."""
        tuned = self._cell.tuned
        jobs = [
            Job(
                order=Order(losses_key(tuned), "losses", self.name, f"benign losses of {describe_recipe(tuned)}"),
                needs=(checkpoint_key(tuned),),
            )
        ]
        jobs += [
            Job(order=Order(canaries_key(judge), "canaries", self.name, f"canaries of {judge.name}"))
            for judge in self._judges
            if judge.name not in self._without
        ]
        condition = self._suite.store.condition
        return [job for job in jobs if condition(job.order.key) is not Condition.PRESENT]

    def _whole(self) -> list[Job]:
        """The cell as one job, where its jobs alone do not lead to a verdict: float16 images to be drawn again."""
        place = f"cell {self.name}"
        return [] if place in self._ordered else [Job(order=Order(place, "cell", self.name, f"examine {self.name}"))]


def courses(
    cells: Sequence[tuple[CellPlan, Path]], suite: Suite, costs: Mapping[str, float], *, pace: Pace
) -> list[CellCourse]:
    """The courses of all cells, the one that takes longest first; `costs` by name, in seconds."""
    without: set[str] = set()
    made = [CellCourse(cell, folder, suite, pace=pace, without_canaries=without) for cell, folder in cells]
    for course in made:
        course.seconds = costs.get(course.name, 0.0)
    return sorted(made, key=lambda course: (-course.seconds, course.name))
