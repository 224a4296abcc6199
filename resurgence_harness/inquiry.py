"""Which blocks of images one cell needs, and the evidence from them, look by look.

    first look ──▶ decide ──wants more──▶ one more block of those images from each model ──▶ decide ──▶ …

An `Inquiry` keeps the blocks requested so far and their judgments. It neither samples (the bench) nor decides (the
statistics).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from resurgence_harness.selection import CLEAR, Arm, StagePlan
from resurgence_harness.specs import Block, Cell, Grid, Recipe
from resurgence_harness.statistics import (
    CellEvidence,
    Differs,
    Evidence,
    FilledTemplate,
    ImageGroup,
    JudgeAccuracy,
    Losses,
)


class Asking(Protocol):
    """The interface of a plan that an inquiry needs: of a suite's cell or of a release gate."""

    @property
    def arms(self) -> dict[str, Arm]:
        """Every model with its images, by arm name, in the order in which they are best built."""

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the judges; the first decides."""

    @property
    def cell(self) -> Cell:
        """The cell's task, method, concept count, fine-tuning and run."""

    @property
    def engine(self) -> str:
        """How the number of images is determined, one of `selection.ENGINES`."""

    @property
    def models(self) -> Mapping[str, Recipe]:
        """Every model by its name in verdict.json."""

    @property
    def grids(self) -> Mapping[str, Grid | None]:
        """Every grid by its name in verdict.json; None for a grid that is not sampled."""

    @property
    def checkpoints(self) -> Mapping[int, Recipe]:
        """Intermediate checkpoints of the fine-tuning by step, the last first; empty where none are requested."""

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        """The stages of a life in their order; empty for a plan of one unlearning and one fine-tuning."""

    @property
    def claims(self) -> int:
        """Among how many claims about single steps, over all cells of the run, alpha is shared."""


Planned = TypeVar("Planned", bound=Asking)


class Question(NamedTuple):
    """One block of images requested from one model."""

    arm: str
    number: int
    """Index of the block within the arm's grid."""


class Inquiry(Generic[Planned]):
    """The blocks requested for one cell so far, and each judge's evidence on them."""

    def __init__(self, plan: Planned) -> None:
        """Request the first look."""
        self.plan = plan
        self._asked = {name: arm.grid.blocks_for(arm.images) for name, arm in plan.arms.items()}
        self._answers: dict[Question, tuple[Evidence, ...]] = {}
        self.looks = 1

    @property
    def open(self) -> list[Question]:
        """The requested blocks without judgments, in the order in which they are best built."""
        every = (Question(name, number) for name, blocks in self._asked.items() for number in range(blocks))
        return [question for question in every if question not in self._answers]

    def block(self, question: Question) -> Block:
        """The (prompt, seed) rows of a requested block."""
        return self.plan.arms[question.arm].grid.part(question.number)

    def asked(self, arm: str) -> list[Question]:
        """All blocks requested from one model so far."""
        return [Question(arm, number) for number in range(self._asked[arm])]

    def answer(self, question: Question, judged: Sequence[Evidence]) -> None:
        """Record every judge's evidence on the block, in the order of the plan's judges."""
        self._answers[question] = tuple(judged)

    def evidence(
        self,
        *,
        effect: Losses | Differs | None,
        canaries: Sequence[tuple[int, int]],
        accuracies: Sequence[JudgeAccuracy],
    ) -> CellEvidence:
        """The judged blocks as one cell's evidence; canaries and accuracies in the order of the judges."""
        judges: list[dict[str, Any]] = []
        for place in range(len(self.plan.judges)):
            arms: dict[str, Any] = {}
            templates: list[FilledTemplate] = []
            for name, arm in self.plan.arms.items():
                seen = self.seen(name, judge=place)
                if arm.template:
                    templates.append(FilledTemplate(template=arm.template, evidence=seen))
                else:
                    arms[name] = seen
            arms["templates"] = tuple(templates)
            about = {"canaries": canaries[place], "accuracy": accuracies[place], "effect": effect}
            judges.append({**about, **arms})
        others = [CellEvidence(**other) for other in judges[1:2]]
        return CellEvidence(**judges[0], second=others[0] if others else None)

    def widen(self, wants: Collection[ImageGroup], *, templates: Collection[str] = ()) -> bool:
        """Request one more block of the wanted image groups from each model; False if the grids have no more.

        Of the filled templates, only those in `templates` are extended.
        """
        more = [
            name
            for name, arm in self.plan.arms.items()
            if arm.group in wants
            and (not arm.template or arm.template in templates)
            and self._asked[name] < arm.grid.blocks
        ]
        for name in more:
            self._asked[name] += 1
        self.looks += bool(more)
        return bool(more)

    def expected(self, *, clear: bool) -> Iterator[Question]:
        """All blocks requested so far and, unless the verdict is clear, those a cell usually needs: for a plan."""
        for name, arm in self.plan.arms.items():
            usual = 0 if clear or arm.group is None else arm.grid.blocks_for(CLEAR[arm.group])
            for number in range(max(self._asked[name], usual)):
                yield Question(name, number)

    @property
    def images(self) -> int:
        """Number of judged images over all arms; the base's are shared with other cells."""
        return sum(len(judged[0]) for judged in self._answers.values())

    def seen(self, arm: str, *, judge: int = 0) -> Evidence:
        """The evidence of one judge (default: the deciding one) on all images of an arm so far."""
        parts = [self._answers[question][judge] for question in self.asked(arm)]
        return Evidence.joined(parts, self.plan.arms[arm].design)
