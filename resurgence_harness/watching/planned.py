"""The work of a cell before it begins: what is always needed, and the blocks drawn until the verdict is clear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resurgence_harness.examining import stage_questions
from resurgence_harness.inquiry import Asking, Inquiry, Question
from resurgence_harness.planning import Pace, Wanted, plan
from resurgence_harness.storing import Store
from resurgence_harness.watching.forecast import Work
from resurgence_harness.watching.recorder import KEY, Event

if TYPE_CHECKING:
    from resurgence_harness.planning import Action, JudgeSpec

ToPlan = tuple[str, Callable[[], tuple[Asking, Sequence["JudgeSpec"]]]]
"""A cell's name, and the function that gives its plan and its judges."""
CELLS = 60
"""How many cells are planned one by one; the others are expected to cost as much as these on average."""


@dataclass(frozen=True, kw_only=True)
class CellWork:
    """What one cell needs that the store does not have."""

    cell: str
    fixed: tuple[Work, ...]
    """Checkpoints, their training images, and arms with a fixed number of images."""
    blocks: dict[str, tuple[tuple[Work, ...], ...]]
    """Image group → the missing artifacts of each block that is usually drawn."""

    def event(self, moment: float) -> Event:
        """As an event, read by `Course`."""
        blocks = {group: [[list(work) for work in block] for block in one] for group, one in self.blocks.items()}
        fixed = [list(work) for work in self.fixed]
        return {"e": "plan", "t": round(moment, 3), "w": "", "cell": self.cell, "fixed": fixed, "blocks": blocks}


def cell_work(plan_of_cell: Asking, judges: Sequence[JudgeSpec], *, cell: str, store: Store, pace: Pace) -> CellWork:
    """The missing artifacts of a cell, by the store's manifests; reads no model and builds nothing."""
    inquiry: Inquiry[Any] = Inquiry(plan_of_cell)
    questions = list(inquiry.expected(clear=False))
    stages = {(one.arm, one.number) for one in stage_questions(plan_of_cell, questions)}
    fixed: dict[str, Work] = {}
    blocks: dict[str, list[list[Work]]] = {}
    for question in questions:
        group = plan_of_cell.arms[question.arm].group
        own: list[Work] = []
        for wanted in _wanted(plan_of_cell, inquiry, question, judges, staged=question in stages):
            actions = plan(store, [wanted], pace=pace).actions
            for place, action in enumerate(actions):
                if not action.needed or not action.work.group:
                    continue
                last = place >= len(actions) - 2 and action.kind != "checkpoint"
                if group is not None and last:
                    own.append(_work(action))
                else:
                    fixed.setdefault(action.key, _work(action))
        if group is not None:
            rows = blocks.setdefault(group.value, [])
            rows += [[] for _ in range(question.number + 1 - len(rows))]
            rows[question.number] += own
    ready = {group: tuple(tuple(dict.fromkeys(block)) for block in rows) for group, rows in blocks.items()}
    return CellWork(cell=cell, fixed=tuple(fixed.values()), blocks=ready)


def _wanted(
    plan_of_cell: Asking, inquiry: Inquiry[Any], question: Question, judges: Sequence[JudgeSpec], *, staged: bool
) -> Iterable[Wanted]:
    block = inquiry.block(question)
    for recipe in plan_of_cell.arms[question.arm].recipes:
        for judge in judges:
            yield Wanted(recipe, block, judge)
    if question.arm == "after":
        for recipe in plan_of_cell.checkpoints.values():
            for judge in judges[:2]:
                yield Wanted(recipe, block, judge)
    if staged:
        for stage in plan_of_cell.stages[:-1]:
            yield Wanted(stage.recipe, block, judges[0])


def _work(action: Action) -> Work:
    return Work(action.key[:KEY], action.work.group, action.work.units, round(action.seconds, 4), action.learned)


def publish(
    cells: Iterable[ToPlan],
    *,
    store: Callable[[], Store],
    device: str,
    emit: Callable[[Event], None],
    now: Callable[[], float],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Emit the work of each cell in their order, of the first `CELLS` of them.

    For a thread beside the run: a cell that cannot be planned is left out, since the run reports why.
    """
    pace: Pace | None = None
    for number, (name, planned) in enumerate(cells):
        if stop() or number >= CELLS:
            return
        try:
            pace = pace or Pace(store(), device=device)
            asking, judges = planned()
            work = cell_work(asking, judges, cell=name, store=store(), pace=pace)
        except Exception:
            continue
        emit(work.event(now()))
