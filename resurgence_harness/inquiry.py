"""One cell's questions, look by look: draw, judge, decide, and stop when the answer is clear.

    first look ──▶ decide ──wants more──▶ one more block of those images from each model ──▶ decide ──▶ …

An Inquiry knows what has to be asked next. Who asks (the bench), and who decides (the statistics), it is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from resurgence_harness.selection import CLEAR, Arm
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
    """What an inquiry needs of a plan: a suite's cell or a release gate's."""

    @property
    def arms(self) -> dict[str, Arm]:
        """Every model and what it is asked, in the order in which they are best made."""

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the judges; the first decides."""

    @property
    def cell(self) -> Cell:
        """What the cell is about."""

    @property
    def engine(self) -> str:
        """How many images are drawn, a word of `selection.ENGINES`."""

    @property
    def models(self) -> Mapping[str, Recipe]:
        """Every model by its name in verdict.json."""

    @property
    def grids(self) -> Mapping[str, Grid | None]:
        """Every grid by its name in verdict.json; None for one that is not drawn."""

    @property
    def checkpoints(self) -> Mapping[int, Recipe]:
        """Intermediate checkpoints of the fine-tuning by step, the last first; empty where none are requested."""


Planned = TypeVar("Planned", bound=Asking)


class Question(NamedTuple):
    """One block asked of one model."""

    arm: str
    number: int
    """Of the block within the arm's grid."""


class Inquiry(Generic[Planned]):
    """What was asked for one cell so far, and what it showed to each judge."""

    def __init__(self, plan: Planned) -> None:
        """The first look is asked for; nothing is known yet."""
        self.plan = plan
        self._asked = {name: arm.grid.blocks_for(arm.images) for name, arm in plan.arms.items()}
        self._answers: dict[Question, tuple[Evidence, ...]] = {}
        self.looks = 1

    @property
    def open(self) -> list[Question]:
        """What was asked for and is not answered yet, in the order in which it is best made."""
        every = (Question(name, number) for name, blocks in self._asked.items() for number in range(blocks))
        return [question for question in every if question not in self._answers]

    def block(self, question: Question) -> Block:
        """The rows of a question."""
        return self.plan.arms[question.arm].grid.part(question.number)

    def asked(self, arm: str) -> list[Question]:
        """Everything that was asked of one model so far."""
        return [Question(arm, number) for number in range(self._asked[arm])]

    def answer(self, question: Question, judged: Sequence[Evidence]) -> None:
        """What every judge says of the block, in the order of the plan's judges."""
        self._answers[question] = tuple(judged)

    def evidence(
        self,
        *,
        effect: Losses | Differs | None,
        canaries: Sequence[tuple[int, int]],
        accuracies: Sequence[JudgeAccuracy],
    ) -> CellEvidence:
        """Everything answered so far as one cell's evidence; canaries and accuracies in the order of the judges."""
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
        """Ask each model for one more block of the images wanted; False where the grids have no more.

        Of the filled templates, only those named are asked on.
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
        """Everything asked so far and, unless the answer is clear, what is usually asked until it is: for a plan."""
        for name, arm in self.plan.arms.items():
            usual = 0 if clear or arm.group is None else arm.grid.blocks_for(CLEAR[arm.group])
            for number in range(max(self._asked[name], usual)):
                yield Question(name, number)

    @property
    def images(self) -> int:
        """Images looked at, over all arms; the base's are shared with other cells."""
        return sum(len(judged[0]) for judged in self._answers.values())

    def seen(self, arm: str, *, judge: int = 0) -> Evidence:
        """What one judge, by default the deciding one, says of all images of an arm so far."""
        parts = [self._answers[question][judge] for question in self.asked(arm)]
        return Evidence.joined(parts, self.plan.arms[arm].design)
