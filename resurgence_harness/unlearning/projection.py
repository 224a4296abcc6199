"""Gradient projection: change a gradient whose step would undo the forgetting so that it no longer does.

Lopez-Paz, Ranzato. Gradient Episodic Memory for Continual Learning. NeurIPS 2017. https://arxiv.org/abs/1706.08840

    g' = g + v m,    v = 0 if ⟨g, m⟩ ≥ 0,  else max( γ, −⟨g, m⟩ / (‖m‖² + ρ) )

for one memory m, the gradient of a loss that must not rise; GEM's quadratic program then has this closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion.ranges import at_least

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class GradientMemory:
    """Project each gradient that would undo the forgetting."""

    name: ClassVar[str] = "gradient-memory"

    margin: float = 0.5
    """γ ≥ 0: minimum weight of the memory if it is added at all."""
    ridge: float = 0.0
    """ρ ≥ 0: added to ‖m‖². Above 0, ⟨g', m⟩ may stay slightly negative."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        at_least("GradientMemory", 0, margin=self.margin, ridge=self.ridge)

    def project(self, gradients: Sequence[Tensor], memory: Sequence[Tensor]) -> float:
        """Replace g by g', tensor by tensor; returns v."""
        v = turn(inner(gradients, memory), inner(memory, memory), margin=self.margin, ridge=self.ridge)
        if v:
            for gradient, stored in zip(gradients, memory, strict=True):
                gradient.add_(stored, alpha=v)
        return v


@final
@dataclass(frozen=True)
class NoProjection:
    """Leave every gradient unchanged."""

    name: ClassVar[str] = "no-projection"


def turn(along: float, square: float, *, margin: float, ridge: float) -> float:
    """v, from ⟨g, m⟩ and ‖m‖²."""
    return 0.0 if along >= 0 else max(margin, -along / (square + ridge))


def inner(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """⟨·, ·⟩ over all tensors, in float64, without concatenating them."""
    import torch

    return float(torch.stack([(a.double() * b.double()).sum() for a, b in zip(one, other, strict=True)]).sum())
