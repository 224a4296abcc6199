"""How the learning rate runs over a fine-tuning: a factor on it for each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

from resurgence_harness.diffusion.ranges import whole


@final
@dataclass(frozen=True)
class Constant:
    """The rate stays, as in diffusers' scripts if nothing is said."""

    name: ClassVar[str] = "constant"

    def factor(self, done: int, steps: int) -> float:
        """1."""
        return 1.0

    def stopped(self, steps: int) -> Self:
        """The same: a shorter training has the same rates."""
        return self


@final
@dataclass(frozen=True, kw_only=True)
class Cosine:
    """½ (1 + cos(π done / over)): from the whole rate to none, as diffusers' "cosine" without warm-up."""

    name: ClassVar[str] = "cosine"

    over: int = 0
    """Steps over which it falls; 0: those of the fine-tuning. A training that is stopped early keeps its course."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        whole("Cosine", 0, over=self.over)

    def factor(self, done: int, steps: int) -> float:
        """The factor after `done` steps of a fine-tuning of so many; beyond the end it stays 0."""
        return 0.5 * (1 + math.cos(math.pi * min(done / (self.over or steps), 1.0)))

    def stopped(self, steps: int) -> Cosine:
        """The same course for a training that ends before its `steps`."""
        return self if self.over else Cosine(over=steps)


Schedule = Constant | Cosine
