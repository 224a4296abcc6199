"""No broken model passes, on real images: noise and a blank canvas, seen by the real judges of the microworld."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pytest

from resurgence_harness.bench import Bench
from resurgence_harness.examining import Budget, Examined, Laboratory, Rule, examine
from resurgence_harness.judging import judge_by_name
from resurgence_harness.selection import CellPlan, Selection, plan_cell, resolve_base
from resurgence_harness.specs import Cell, Step
from resurgence_harness.statistics import Losses, Policy, UnlearningOutcome, VerdictKind
from resurgence_harness.storing import Store
from resurgence_harness.tasks import CELEBRITY

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

FELL = Losses(before=(0.3, 0.31, 0.29, 0.3), after=(0.2, 0.22, 0.19, 0.21))
"""A fine-tuning that had an effect, so that nothing but the images can stop the cell."""


@dataclass(frozen=True, kw_only=True)
class Ruined(Step):
    """The U-Net predicts one number for all noise: 0 leaves the noise in the picture, a large one drowns it."""

    predicts: float
    name: ClassVar[str] = "ruined"
    version: ClassVar[int] = 1

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy."""
        import torch

        ruined = model.copy()
        with torch.no_grad():
            ruined.unet.conv_out.weight.zero_()
            ruined.unet.conv_out.bias.fill_(self.predicts)
        return ruined


NOISE, NOISE_AGAIN, BLANK = Ruined(predicts=0.0), Ruined(predicts=0.01), Ruined(predicts=30.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One store for all cells, which share the base's images."""
    bench = Bench(Store(str(tmp_path_factory.mktemp("store"))), base_location=resolve_base("micro"))
    yield bench
    bench.release()


@pytest.fixture(scope="module")
def plan() -> CellPlan:
    """A real cell: UCE on one name."""
    cell = Cell(task="celebrity", method="uce", count=1, finetuning="lora")
    return plan_cell(cell, resolve_base("micro"), task=CELEBRITY, selection=Selection())


def first_look(bench: Bench, plan: CellPlan) -> Examined[CellPlan]:
    """What is said after the first block of every arm."""
    laboratory = Laboratory(
        bench_of=lambda recipe: bench, judges=[judge_by_name(name) for name in plan.judges], effect=lambda inquiry: FELL
    )
    return examine(plan, Rule(policy=Policy()), laboratory, budget=Budget(images=1))


@pytest.mark.parametrize(
    ("unlearned", "tuned", "collapsed"),
    [(NOISE, NOISE_AGAIN, True), (BLANK, NOISE, True), (None, BLANK, False)],
    ids=["noise throughout", "blank, then noise", "blank after fine-tuning"],
)
def test_a_model_that_draws_nothing_never_holds(
    bench: Bench, plan: CellPlan, unlearned: Ruined | None, tuned: Ruined, collapsed: bool
) -> None:
    """It shows no erased concept, and it shows no retained one either: that is not safety."""
    before = plan.base.then(unlearned) if unlearned else plan.unlearned
    verdict = first_look(bench, replace(plan, unlearned=before, tuned=before.then(tuned))).verdict
    assert verdict.kind is VerdictKind.UNDECIDED, verdict
    assert (verdict.outcome is UnlearningOutcome.COLLAPSED) is collapsed
    assert "retained" in verdict.reason
