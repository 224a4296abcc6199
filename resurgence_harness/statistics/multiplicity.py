"""What many cells together may claim.

    holm              these cells rose     any false name at all, however cells depend
    global_e_value    something rose       the one claim, however cells depend
    every_cell        the release: no cell rose beyond its limit

Which concepts of one cell rose is in above_limit.py.

A p-value is of the hypothesis "the cell did not rise", one-sided: small speaks for a regression. An e-value of it is a
number from 0 to infinity whose mean is at most 1 when the cell did not rise: large speaks for a regression.

What is corrected is the alarm: 200 independent cells at alpha 0.01 would raise a false one in 87 % of runs. A release
needs no correction: it claims all cells at once, so one cell that does not hold stops it.

Cells that share the images from before fine-tuning depend on each other, so without an argument for how, only the
procedures that hold under every dependence may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from resurgence_harness.errors import HarnessError, SpecError, sentence
from resurgence_harness.statistics.intervals import check_alpha


@dataclass(frozen=True, kw_only=True)
class Family:
    """All cells declared before the run, whether or not they were run.

    Counted afterwards, from the cells that happened to be selected or to finish, a family would shrink to the cells
    that look bad, and the correction with it.
    """

    cells: tuple[str, ...]
    """Their names, each once. SpecError if there is none, or one is declared twice."""

    def __post_init__(self) -> None:
        if not self.cells:
            raise SpecError(sentence("The family declares no cell.", do="Declare every cell before the run."))
        seen: set[str] = set()
        for cell in self.cells:
            if cell in seen:
                raise SpecError(sentence(f"The family declares {cell!r} twice.", do="Declare each cell once."))
            seen.add(cell)

    def check_declared(self, values: Mapping[str, object]) -> None:
        """Raise HarnessError if there is a value for a cell that was not declared."""
        undeclared = sorted(values.keys() - set(self.cells))
        if undeclared:
            first = f"The cell {undeclared[0]!r} has a result and was not declared."
            raise HarnessError(sentence(first, do="Declare every cell before the run; nothing was decided."))


@dataclass(frozen=True, kw_only=True)
class Called:
    """Which cells of a family are called regressions."""

    alpha: float
    """The error rate that was allowed."""
    adjusted: Mapping[str, float]
    """For every declared cell, in order: the smallest alpha at which it would be called, at most 1."""

    @property
    def rejected(self) -> frozenset[str]:
        """The cells called regressions: those whose hypothesis "did not rise" is rejected at alpha."""
        return frozenset(cell for cell, needed in self.adjusted.items() if needed <= self.alpha)


def holm(p: Mapping[str, float], family: Family, alpha: float) -> Called:
    """Call regressions so that any false call at all happens in at most alpha of runs (FWER), however cells depend.

    A declared cell without a p-value counts as p = 1, which is valid whatever the reason that it is missing.

    SpecError for an alpha outside (0, 0.5); HarnessError for an undeclared cell, or a p that is NaN or outside [0, 1].

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979)
    65. In-house, for statsmodels would be imported in every run for these three lines; the tests compare the two.
    """
    ps = _p_values(p, family, alpha)
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return _called(adjusted, family, alpha)


def global_e_value(e: Mapping[str, float], family: Family) -> float:
    """The mean e-value over all declared cells: evidence that something rose somewhere, however cells depend.

    It is itself an e-value of "no cell rose", and names no cell: at 1/alpha and above it is a false alarm in at most
    alpha of runs (Markov). A declared cell without an e-value counts as 0. The 1 of a bet that was never placed is an
    e-value too, but only if the cell's data had no part in its being missing: a cell that broke down while it was
    losing would be lifted to 1. Replacing by 0 never raises the mean.

    HarnessError for an undeclared cell, or an e that is NaN or negative.

    Source: Vovk and Wang, E-values: calibration, combination and applications, Annals of Statistics 49 (2021) 1736.
    """
    return sum(_e_values(e, family)) / len(family.cells)


def every_cell(holds: Mapping[str, bool], family: Family) -> bool:
    """Whether the release may claim that no cell rose beyond its limit: every declared cell was run and holds.

    If a cell that rose beyond its limit holds in at most alpha of runs, then a release in spite of such cells happens
    in at most alpha of runs, however cells depend and however many there are. The price is power: all must hold at
    once. A cell's own error is inherited as it is (`intervals.paired` says by how much it exceeds alpha).

    HarnessError for an undeclared cell, or an answer that is not a bool: NaN is true to Python and must not pass.

    Source: Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982) 295
    (intersection-union test).
    """
    family.check_declared(holds)
    for cell, held in holds.items():
        if not isinstance(held, bool):
            raise HarnessError(sentence(f"Whether {cell!r} holds is {held!r}.", do="Give True or False."))
    return all(holds.get(cell, False) for cell in family.cells)


def _p_values(p: Mapping[str, float], family: Family, alpha: float) -> list[float]:
    """One p per declared cell, 1 where there is none."""
    check_alpha(alpha)
    return _values(p, family, 1.0, _check_p)


def _e_values(e: Mapping[str, float], family: Family) -> list[float]:
    """One e per declared cell, 0 where there is none."""
    return _values(e, family, 0.0, _check_e)


def _values(
    values: Mapping[str, float], family: Family, missing: float, check: Callable[[str, float], None]
) -> list[float]:
    family.check_declared(values)
    for cell, value in values.items():
        check(cell, value)
    return [float(values.get(cell, missing)) for cell in family.cells]


def _check_p(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise HarnessError(sentence(f"The p-value of {name!r} is {p}.", do="It is from 0 to 1; nothing was decided."))


def _check_e(name: str, e: float) -> None:
    if not e >= 0:
        raise HarnessError(sentence(f"The e-value of {name!r} is {e}.", do="It is at least 0; nothing was decided."))


def _called(adjusted: Iterable[float], family: Family, alpha: float) -> Called:
    return Called(alpha=alpha, adjusted=dict(zip(family.cells, map(float, adjusted), strict=True)))
