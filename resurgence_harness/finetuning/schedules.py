"""Learning rate schedules of a fine-tuning: a factor on the rate for each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

from resurgence_harness.diffusion.ranges import whole


@final
@dataclass(frozen=True)
class Constant:
    """A constant rate, the default of diffusers' scripts."""

    name: ClassVar[str] = "constant"

    def factor(self, done: int, steps: int) -> float:
        """1."""
        return 1.0

    def stopped(self, steps: int) -> Self:
        """Itself: a shorter training has the same rates."""
        return self


@final
@dataclass(frozen=True, kw_only=True)
class Cosine:
    """½ (1 + cos(π done / over)): from the full rate to 0, as diffusers' "cosine" without warm-up."""

    name: ClassVar[str] = "cosine"

    over: int = 0
    """Steps over which it falls; 0: those of the fine-tuning. A training stopped early keeps the original schedule."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        whole("Cosine", 0, over=self.over)

    def factor(self, done: int, steps: int) -> float:
        """The factor after `done` of `steps` steps; 0 beyond the end."""
        return 0.5 * (1 + math.cos(math.pi * min(done / (self.over or steps), 1.0)))

    def stopped(self, steps: int) -> Cosine:
        """The same schedule for a training that ends before its `steps`."""
        return self if self.over else Cosine(over=steps)


Schedule = Constant | Cosine
