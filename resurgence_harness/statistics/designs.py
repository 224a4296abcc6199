"""How the images of an evidence came to be chosen, and so which bounds are honest about them.

    Fixed      their number was fixed before looking                              exact, Tango
    Shuffled   a finite grid, uncovered in shuffled order until it is clear       betting, without replacement
    Hybrid     fresh seeds until it is clear, with one last look at a cap         betting and Fixed, half of alpha each

The design travels with the evidence: images that were drawn until the answer was clear cannot be read as if their
number had been fixed, which would turn a nominal 1 % of false answers into 6 to 8 %.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

from resurgence_harness.errors import HarnessError, SpecError, sentence
from resurgence_harness.statistics.betting import betting_bounds, e_value
from resurgence_harness.statistics.intervals import paired as paired_bounds
from resurgence_harness.statistics.intervals import proportion_bounds, tango_z
from resurgence_harness.statistics.paired_size import Side, critical_alpha


class Limits(NamedTuple):
    """What a paired difference is held against."""

    holds: float
    """The upper bound must be under this."""
    broken: float
    """The lower bound must be above this."""


class Design(ABC):
    """How images were chosen. Bounds are one-sided at alpha on each side."""

    @abstractmethod
    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """Bounds of a rate after outcomes of 0 and 1, in the order drawn; `whole=False`: only some could be judged."""

    @abstractmethod
    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """Bounds of a paired difference after outcomes of −1, 0 and 1, in the order drawn.

        `limits` are those that the bounds will be held against, fixed before: a bound whose error is known only
        approximately is widened until the claims about these limits err at most alpha.
        """

    @abstractmethod
    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """An e-value against "the mean of these outcomes is at most `limit`": its mean is at most 1 where that is true.

        `paired` says that outcomes are changes of −1, 0 and 1 rather than hits of 0 and 1.
        """

    @abstractmethod
    def check(self, images: int) -> None:
        """Raise HarnessError if so many images cannot have been drawn."""

    @property
    @abstractmethod
    def description(self) -> str:
        """For people: what a bound may be trusted for."""


@dataclass(frozen=True)
class Fixed(Design):
    """The number of images was fixed before looking, and they are looked at once."""

    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """Clopper and Pearson's bounds."""
        return proportion_bounds(sum(hits), len(hits), alpha)

    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """Tango's bounds at the nominal alpha whose size is alpha, with the exact bound at zero events."""
        n, nominal = len(changes), None
        if limits is not None:
            nominal = (
                critical_alpha(n, limits.broken, alpha, Side.VIOLATED),
                critical_alpha(n, limits.holds, alpha, Side.HOLDS),
            )
        return paired_bounds(changes.count(-1), changes.count(1), n, alpha, nominal=nominal)

    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """From the p-value by Vovk and Wang's calibrator 1/(2√p) (E-values, Annals of Statistics 49 (2021) 1736)."""
        n, hits = len(outcomes), outcomes.count(1)
        if paired:
            p = 1 - NormalDist().cdf(tango_z(outcomes.count(-1), hits, n, limit))
        else:
            from scipy.special import betainc

            p = float(betainc(hits, n - hits + 1, limit)) if hits else 1.0
        return 0.5 / math.sqrt(max(p, 1e-300))

    def check(self, images: int) -> None:
        """Any number can have been fixed."""

    @property
    def description(self) -> str:
        """For people."""
        return "their number was fixed before looking"


FIXED = Fixed()
"""The one value of it."""
ENDLESS = 10**12
"""Rows of a grid that no number of images comes near: drawing from it is drawing independently."""


@dataclass(frozen=True)
class Shuffled(Design):
    """Rows of a finite grid in shuffled order, as many as it took: the bounds hold at every look together."""

    grid: int
    """Rows of the grid, drawn or not."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise SpecError(sentence(f"A grid of {self.grid} rows holds nothing.", do="Give prompts and seeds."))

    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """The bet's own."""
        return e_value(outcomes, mean=limit, least=-1 if paired else 0, grid=self.grid, at_least=False)

    def check(self, images: int) -> None:
        """No more images than the grid has."""
        if images > self.grid:
            raise HarnessError(sentence(f"{images} images of a grid of {self.grid} cannot be."))

    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """Betting on hits."""
        return betting_bounds(tuple(hits), least=0, grid=self.grid, alpha=alpha, whole=whole)

    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """Betting on changes."""
        return betting_bounds(tuple(changes), least=-1, grid=self.grid, alpha=alpha, whole=whole)

    @property
    def description(self) -> str:
        """For people."""
        return f"drawn in shuffled order from a grid of {self.grid} until the answer was clear"


@dataclass(frozen=True)
class Hybrid(Design):
    """Betting at half of alpha on images taken independently; at `cap` one last look as Fixed with the other half.

    For a claim on fresh seeds rather than on one grid: nothing is gained from a grid's end. The last look recovers the
    power that a sequential bound lacks near the margin. Images beyond the cap are a new test with a new alpha, so they
    are refused here.
    """

    cap: int
    """Images at which the last look is taken; fixed before looking."""

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise SpecError(sentence(f"A cap of {self.cap} images leaves nothing to look at.", do="Give 1 or more."))

    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """The mean of both looks' e-values; the last look has none before the cap."""
        last = FIXED.against(outcomes, limit, paired=paired) if len(outcomes) >= self.cap else 0.0
        return (Shuffled(ENDLESS).against(outcomes, limit, paired=paired) + last) / 2

    def check(self, images: int) -> None:
        """No image after the last look."""
        if images > self.cap:
            raise HarnessError(
                sentence(
                    f"{images} images are more than the cap of {self.cap}, where the last look was taken.",
                    do="More images are a new test: choose a new cap and a new order, and begin anew.",
                )
            )

    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """The tighter of both looks."""
        first = Shuffled(ENDLESS).proportion(hits, alpha / 2, whole=whole)
        return self._both(first, FIXED.proportion(hits, alpha / 2), len(hits) if whole else 0)

    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """The tighter of both looks."""
        first = Shuffled(ENDLESS).difference(changes, alpha / 2, whole=whole)
        return self._both(first, FIXED.difference(changes, alpha / 2, limits=limits), len(changes) if whole else 0)

    def _both(self, first: tuple[float, float], last: tuple[float, float], images: int) -> tuple[float, float]:
        """Before the cap the last look does not count, nor for images whose number was not fixed (the judged ones)."""
        if images < self.cap:
            return first
        low, high = max(first[0], last[0]), min(first[1], last[1])
        return min(low, high), max(low, high)

    @property
    def description(self) -> str:
        """For people."""
        return f"fresh seeds until the answer was clear, with a last look at {self.cap}, each at half the error"
