"""A regression of known size, planted in real weights: does the gate see it, and from which size on?

    θ(w) = (1 − w) θ_fine-tuned + w θ_base        w = 0: as it was found; w = 1: the erasure is undone

The unlearned and fine-tuned model is moved back towards the base by w and judged like any candidate. Where the erasure
is a known difference of weights (UCE's matrices, MACE's merged LoRA), so is the regression. How often the concept is
drawn need not grow with w, so the whole curve is reported; what is claimed is HOLDS at 0 and VIOLATED at 1.

The straight path between two models is that of Wortsman et al., Robust fine-tuning of zero-shot models (arXiv
2109.01903); planting a regression on it is ours.
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
"""How far back towards the base."""


@final
@dataclass(frozen=True, kw_only=True)
class Planted(Step):
    """Move every weight that differs from the base back towards it by a share."""

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
        """A changed copy; the text encoder and the autoencoder stay."""
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
    """What was said of one planted regression."""

    share: float
    examined: Examined[CellPlan]


def planted(plan: CellPlan, share: float) -> CellPlan:
    """The cell with its fine-tuned model moved back towards the base by this share; itself at 0."""
    return replace(plan, tuned=plan.tuned.then(Planted(share=share))) if share else plan


def sensitivity(
    bench: Bench,
    plan: CellPlan,
    judges: Sequence[Judge],
    rule: Rule,
    shares: Sequence[float] = SHARES,
) -> Iterator[Sensitivity]:
    """Judge the cell at every share, each until its answer is clear. The fine-tuning's effect is the cell's own."""
    effect = bench.losses(plan.tuned)
    laboratory = Laboratory(bench_of=lambda recipe: bench, judges=judges, effect=lambda inquiry: effect)
    for share in shares:
        yield Sensitivity(share, examine(planted(plan, share), rule, laboratory))
