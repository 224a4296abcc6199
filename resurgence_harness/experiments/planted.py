"""Planted regressions of known size in real weights: from which size on does the gate detect them?

    θ(w) = (1 − w) θ_fine-tuned + w θ_base        w = 0: unchanged; w = 1: the erasure is undone

The unlearned and fine-tuned model is interpolated back towards the base by w and judged like any candidate. If the
erasure is a known difference of weights (UCE's matrices, MACE's merged LoRA), so is the regression. The hit rate need
not grow monotonically with w, so the whole curve is reported; the claim is HOLDS at 0 and VIOLATED at 1.

Linear interpolation between two models is from Wortsman et al., Robust fine-tuning of zero-shot models (arXiv
2109.01903); using it to plant a regression is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, final

from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.examining import Examined, Laboratory, Rule, examine
from resurgence_harness.selection import CellPlan
from resurgence_harness.specs import Step

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench
    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run
    from resurgence_harness.judging import Judge

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Values of w."""


@final
@dataclass(frozen=True, kw_only=True)
class Planted(Step):
    """Interpolate every weight that differs from the base back towards it."""

    share: float
    """w, above 0 and at most 1."""

    name: ClassVar[str] = "planted"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise SpecError(
                sentence(f"A regression of {self.share} cannot be planted.", do="Give a share above 0 and at most 1.")
            )

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy; the text encoder and the autoencoder stay unchanged."""
        import torch

        moved = model.copy()
        with torch.no_grad():
            for to, start, end in zip(
                moved.unet.parameters(), model.unet.parameters(), run.base.unet.parameters(), strict=True
            ):
                if not torch.equal(start, end):
                    to.copy_(end if self.share == 1 else torch.lerp(start, end, self.share))
        return moved


class Sensitivity(NamedTuple):
    """The result for one planted regression."""

    share: float
    examined: Examined[CellPlan]


def planted(plan: CellPlan, share: float) -> CellPlan:
    """The cell with its fine-tuned model interpolated towards the base by this share; unchanged at 0."""
    return replace(plan, tuned=plan.tuned.then(Planted(share=share))) if share else plan


def sensitivity(
    bench: Bench,
    plan: CellPlan,
    judges: Sequence[Judge],
    rule: Rule,
    shares: Sequence[float] = SHARES,
) -> Iterator[Sensitivity]:
    """Evaluate the cell at every share until its verdict is clear. The fine-tuning's effect is the original cell's."""
    effect = bench.losses(plan.tuned)
    laboratory = Laboratory(bench_of=lambda recipe: bench, judges=judges, effect=lambda inquiry: effect)
    for share in shares:
        yield Sensitivity(share, examine(planted(plan, share), rule, laboratory))
