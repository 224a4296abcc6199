"""Sampling designs: how the images of an evidence were chosen, and so which bounds are valid for them.

    Fixed      the number of images was fixed in advance                          exact, Tango
    Shuffled   a finite grid, drawn in shuffled order until it is settled         betting, without replacement
    Hybrid     fresh seeds until it is settled, with one last look at a cap       betting and Fixed, half of alpha each

The design is stored with the evidence: treating images that were drawn until the result was settled as if their number
had been fixed would raise a nominal error of 1 % to 6 to 8 %.
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
    """The limits that a paired difference is compared with."""

    holds: float
    """The upper bound must be under this."""
    broken: float
    """The lower bound must be above this."""


class Design(ABC):
    """How images were chosen. All bounds are one-sided at alpha on each side."""

    @abstractmethod
    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """Bounds of a rate after outcomes of 0 and 1, in the order drawn; `whole=False`: only some could be judged."""

    @abstractmethod
    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """Bounds of a paired difference after outcomes of −1, 0 and 1, in the order drawn.

        `limits` are the ones that the bounds will be compared with, fixed in advance: an approximate bound is widened
        until the claims about these limits err at most alpha.
        """

    @abstractmethod
    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """An e-value against "the mean of these outcomes is at most `limit`": its mean is at most 1 if that is true.

        `paired`: outcomes are changes of −1, 0 and 1 rather than hits of 0 and 1.
        """

    @abstractmethod
    def check(self, images: int) -> None:
        """Raise HarnessError if the design does not allow this number of images."""

    @property
    @abstractmethod
    def description(self) -> str:
        """The design as text, for reports."""


@dataclass(frozen=True)
class Fixed(Design):
    """The number of images was fixed in advance, and they are analysed once."""

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
        """Any number is allowed."""

    @property
    def description(self) -> str:
        """The design as text, for reports."""
        return "their number was fixed before looking"


FIXED = Fixed()
"""The only instance needed; `Fixed` has no fields."""
ENDLESS = 10**12
"""Size of a grid so large that drawing from it is practically independent sampling."""


@dataclass(frozen=True)
class Shuffled(Design):
    """Rows of a finite grid in shuffled order, as many as it took: the bounds are valid at all looks jointly."""

    grid: int
    """Rows of the grid, drawn or not."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise SpecError(sentence(f"A grid of {self.grid} rows is empty.", do="Give prompts and seeds."))

    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """The e-value of the betting test."""
        return e_value(outcomes, mean=limit, least=-1 if paired else 0, grid=self.grid, at_least=False)

    def check(self, images: int) -> None:
        """No more images than the grid has."""
        if images > self.grid:
            raise HarnessError(sentence(f"{images} images were drawn from a grid of {self.grid} rows."))

    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """Betting bounds on hits."""
        return betting_bounds(tuple(hits), least=0, grid=self.grid, alpha=alpha, whole=whole)

    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """Betting bounds on changes."""
        return betting_bounds(tuple(changes), least=-1, grid=self.grid, alpha=alpha, whole=whole)

    @property
    def description(self) -> str:
        """The design as text, for reports."""
        return f"drawn in shuffled order from a grid of {self.grid} until the answer was clear"


@dataclass(frozen=True)
class Hybrid(Design):
    """Betting at half of alpha on independent images; at `cap` images one last look as Fixed with the other half.

    For a claim about fresh seeds rather than one grid. The last look recovers the power that a sequential bound lacks
    near the limit. Images beyond the cap would need a new test with a new alpha, so they are refused.
    """

    cap: int
    """Number of images at which the last look is taken; fixed in advance."""

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise SpecError(sentence(f"A cap of {self.cap} images allows no image.", do="Give 1 or more."))

    def against(self, outcomes: Sequence[int], limit: float, *, paired: bool) -> float:
        """The mean of both looks' e-values; before the cap, that of the last look is 0."""
        last = FIXED.against(outcomes, limit, paired=paired) if len(outcomes) >= self.cap else 0.0
        return (Shuffled(ENDLESS).against(outcomes, limit, paired=paired) + last) / 2

    def check(self, images: int) -> None:
        """No more images than the cap."""
        if images > self.cap:
            raise HarnessError(
                sentence(
                    f"{images} images are more than the cap of {self.cap}, where the last look was taken.",
                    do="More images are a new test: choose a new cap and a new order, and start again.",
                )
            )

    def proportion(self, hits: Sequence[int], alpha: float, *, whole: bool = True) -> tuple[float, float]:
        """The intersection of both looks' bounds."""
        first = Shuffled(ENDLESS).proportion(hits, alpha / 2, whole=whole)
        return self._both(first, FIXED.proportion(hits, alpha / 2), len(hits) if whole else 0)

    def difference(
        self, changes: Sequence[int], alpha: float, *, whole: bool = True, limits: Limits | None = None
    ) -> tuple[float, float]:
        """The intersection of both looks' bounds."""
        first = Shuffled(ENDLESS).difference(changes, alpha / 2, whole=whole)
        return self._both(first, FIXED.difference(changes, alpha / 2, limits=limits), len(changes) if whole else 0)

    def _both(self, first: tuple[float, float], last: tuple[float, float], images: int) -> tuple[float, float]:
        """The last look counts only at the cap, and not for judged images alone, whose number was not fixed."""
        if images < self.cap:
            return first
        low, high = max(first[0], last[0]), min(first[1], last[1])
        return min(low, high), max(low, high)

    @property
    def description(self) -> str:
        """The design as text, for reports."""
        return f"fresh seeds until the answer was clear, with a last look at {self.cap}, each at half the error"
