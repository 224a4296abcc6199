"""Cohen's kappa against values worked out by hand, and against statsmodels on random tables."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.errors import SpecError
from resurgence_harness.statistics.kappa import agreement


def test_a_table_worked_out_by_hand() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = .7, p_e = .5 · .6 + .5 · .4 = .5, κ = .4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    found = agreement(pairs)

    assert (found.same, found.pictures) == (35, 50) and found.kappa == pytest.approx(0.4)


def test_against_statsmodels() -> None:
    """Random labels of three kinds."""
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    random = np.random.default_rng(1)
    for _ in range(20):
        pairs = random.integers(0, 3, (60, 2))
        table, _ = inter_rater.to_table(pairs, bins=np.arange(-0.5, 3))
        expected = inter_rater.cohens_kappa(table, return_results=False)
        assert agreement([(str(a), str(b)) for a, b in pairs]).kappa == pytest.approx(expected)


def test_the_ends() -> None:
    """All equal of several labels: 1; one label alone: undefined; none: an error."""
    assert agreement([("a", "a"), ("b", "b")]).kappa == 1
    assert agreement([("a", "a")] * 3).kappa is None
    with pytest.raises(SpecError):
        agreement([])
