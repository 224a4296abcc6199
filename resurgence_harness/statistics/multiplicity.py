"""Claims over many cells, corrected for multiple testing.

    holm              these cells rose     error: at least one cell named falsely, under any dependence
    global_e_value    something rose       error of this single claim, under any dependence
    every_cell        the release: no cell rose beyond its limit

Which concepts of one cell rose is in above_limit.py.

A p-value tests the one-sided hypothesis "the cell did not rise": a small one is evidence of a regression. An e-value
for it is a number from 0 to infinity whose mean is at most 1 when the cell did not rise: a large one is evidence of a
regression.

Alarms are corrected: 200 independent cells at alpha 0.01 would raise a false one in 87 % of runs. A release needs no
correction: it claims all cells at once, so one cell that does not hold stops it.

Cells that share the images from before fine-tuning depend on each other in an unknown way, so only procedures that are
valid under any dependence are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from resurgence_harness.errors import HarnessError, SpecError, sentence
from resurgence_harness.statistics.intervals import check_alpha


@dataclass(frozen=True, kw_only=True)
class Family:
    """All cells declared before the run, whether or not they were run.

    A family counted afterwards, from the cells that were selected or finished, could shrink to the cells that look bad,
    and the correction with it.
    """

    cells: tuple[str, ...]
    """Their names, each once. SpecError if none is declared, or one twice."""

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
    """The permitted error rate."""
    adjusted: Mapping[str, float]
    """For every declared cell, in order: the smallest alpha at which it would be called, at most 1."""

    @property
    def rejected(self) -> frozenset[str]:
        """The cells called regressions: those whose hypothesis "did not rise" is rejected at alpha."""
        return frozenset(cell for cell, needed in self.adjusted.items() if needed <= self.alpha)


def holm(p: Mapping[str, float], family: Family, alpha: float) -> Called:
    """Call regressions with family-wise error rate (at least one false call) at most alpha, under any dependence.

    A declared cell without a p-value counts as p = 1, which is valid for any reason of its absence.

    SpecError for an alpha outside (0, 0.5); HarnessError for an undeclared cell, or a p that is NaN or outside [0, 1].

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979)
    65. Implemented here, since statsmodels would be imported in every run for three lines; the tests compare the two.
    """
    ps = _p_values(p, family, alpha)
    adjusted, highest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return _called(adjusted, family, alpha)


def global_e_value(e: Mapping[str, float], family: Family) -> float:
    """The mean e-value over all declared cells: evidence that at least one cell rose, under any dependence.

    It is itself an e-value for "no cell rose" and names no cell: 1/alpha or more is a false alarm in at most alpha of
    runs (Markov). A declared cell without an e-value counts as 0. Counting it as 1 (no bet placed) would be valid only
    if the absence did not depend on the cell's data; a cell that crashed at an e-value below 1 would be raised to 1.
    Counting it as 0 never raises the mean.

    HarnessError for an undeclared cell, or an e that is NaN or negative.

    Source: Vovk and Wang, E-values: calibration, combination and applications, Annals of Statistics 49 (2021) 1736.
    """
    return sum(_e_values(e, family)) / len(family.cells)


def every_cell(holds: Mapping[str, bool], family: Family) -> bool:
    """Whether the release may claim that no cell rose beyond its limit: every declared cell was run and holds.

    If a cell that rose beyond its limit holds in at most alpha of runs, then a release despite such cells happens in at
    most alpha of runs, under any dependence and for any number of cells. The cost is power: all must hold at once. The
    error of a single cell carries over (`intervals.paired` documents by how much it exceeds alpha).

    HarnessError for an undeclared cell, or a value that is not a bool: NaN is truthy in Python and must not pass.

    Source: Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982) 295
    (intersection-union test).
    """
    family.check_declared(holds)
    for cell, held in holds.items():
        if not isinstance(held, bool):
            raise HarnessError(
                sentence(f"The result of {cell!r} is {held!r}, which is not a bool.", do="Give True or False.")
            )
    return all(holds.get(cell, False) for cell in family.cells)


def _p_values(p: Mapping[str, float], family: Family, alpha: float) -> list[float]:
    """One p per declared cell, 1 if it has none."""
    check_alpha(alpha)
    return _values(p, family, 1.0, _check_p)


def _e_values(e: Mapping[str, float], family: Family) -> list[float]:
    """One e per declared cell, 0 if it has none."""
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
        raise HarnessError(
            sentence(f"The p-value of {name!r} is {p}.", do="Give a number from 0 to 1; nothing was decided.")
        )


def _check_e(name: str, e: float) -> None:
    if not e >= 0:
        raise HarnessError(
            sentence(f"The e-value of {name!r} is {e}.", do="Give a number of at least 0; nothing was decided.")
        )


def _called(adjusted: Iterable[float], family: Family, alpha: float) -> Called:
    return Called(alpha=alpha, adjusted=dict(zip(family.cells, map(float, adjusted), strict=True)))
