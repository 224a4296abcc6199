"""Many cells together: against brute force, independent implementations and simulation."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from resurgence_harness.errors import HarnessError, SpecError
from resurgence_harness.statistics.multiplicity import (
    Family,
    every_cell,
    global_e_value,
    holm,
)

ALPHAS = (0.01, 0.05, 0.2)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Statsmodels collects garbage in every Holm, 0.07 s each time; thousands of calls cannot wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda *_: 0)
        yield


def named(values) -> dict[str, float]:
    """The values as those of cells "0", "1", …"""
    return {str(place): float(value) for place, value in enumerate(values)}


def of(values, *more: str) -> Family:
    """The family of the cells that have values, and `more` cells that have none."""
    return Family(cells=(*named(values), *more))


ps = some.lists(some.sampled_from([0.0, 1e-4, 0.0025, 0.01, 0.02, 1.0]) | some.floats(0, 1), min_size=1, max_size=7)
es = some.lists(
    some.sampled_from([0.0, 1.0, 50.0, 100.0, 700.0, math.inf]) | some.floats(0, 2000), min_size=1, max_size=7
)


@pytest.mark.parametrize(
    ("cells", "words"), [((), "no cell"), (("a", "b", "a"), "'a' twice"), (("b", "a", "a", "b"), "'a' twice")]
)
def test_a_family_is_declared_in_full_and_once(cells, words):
    """A family of nothing, or with a cell twice, is a spec error."""
    with pytest.raises(SpecError, match=words):
        Family(cells=cells)


@pytest.mark.parametrize("call", [partial(holm, alpha=0.01), global_e_value, every_cell])
def test_an_undeclared_cell_is_an_error(call):
    """A result of a cell that nobody declared decides nothing, however good it is."""
    with pytest.raises(HarnessError, match=r"'late'.*not declared"):
        call({"a": True, "late": True}, Family(cells=("a", "b")))


@pytest.mark.parametrize("p", [math.nan, -1e-9, 1 + 1e-9, math.inf, -math.inf])
def test_a_p_value_is_a_probability(p):
    """Anything else is an error that names cell and value."""
    with pytest.raises(HarnessError, match=f"'b' is {p}"):
        holm({"a": 0.001, "b": p}, Family(cells=("a", "b", "c")), 0.01)


@pytest.mark.parametrize("e", [math.nan, -1e-9, -math.inf])
def test_an_e_value_is_not_negative(e):
    """Anything else is an error that names cell and value, even beside an infinite one."""
    with pytest.raises(HarnessError, match=f"'b' is {e}"):
        global_e_value({"a": math.inf, "b": e}, Family(cells=("a", "b", "c")))


@pytest.mark.parametrize("held", [math.nan, "UNDECIDED", 1, 0.0, None, np.False_])
def test_only_true_and_false_say_whether_a_cell_holds(held):
    """What Python takes for true is not taken for a cell that holds."""
    with pytest.raises(HarnessError, match="'b'"):
        every_cell({"a": True, "b": held}, Family(cells=("a", "b")))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_alpha_is_an_error_probability(alpha):
    """An alpha that means nothing is a spec error."""
    with pytest.raises(SpecError, match="alpha"):
        holm({"a": 1.0}, Family(cells=("a",)), alpha)


def test_by_hand():
    """Four cells: p .01 .04 .03 .005, worked on paper."""
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    family = Family(cells=tuple(p))
    called = holm(p, family, 0.05)
    assert tuple(called.adjusted) == tuple("abcd")
    assert tuple(called.adjusted.values()) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert called.rejected == set("ad")
    assert called.alpha == 0.05


@settings(deadline=None)
@given(ps)
def test_holm_is_the_closed_bonferroni_test(p):
    """A cell is called exactly if Bonferroni rejects every set of cells that it is in."""
    places = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(places, size)]
    needed = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if place in s) for place in places]
    assert list(holm(named(p), of(p), 0.01).adjusted.values()) == pytest.approx(needed)


def test_agreement_with_statsmodels():
    """200 cells, 40 of them risen and 30 never run: as statsmodels with ones for the missing."""
    from scipy.stats import norm
    from statsmodels.stats.multitest import multipletests

    random = np.random.default_rng(5)
    z = random.standard_normal(170) + np.where(np.arange(170) < 40, 3.5, 0)
    p = norm.sf(z)
    absent = [f"absent {place}" for place in range(30)]
    called = holm(named(p), of(p, *absent), 0.05)
    reject, adjusted = multipletests([*p, *[1.0] * 30], alpha=0.05, method="holm")[:2]
    assert list(called.adjusted.values()) == pytest.approx(list(adjusted))
    assert called.rejected == {cell for cell, rejected in zip(called.adjusted, reject, strict=True) if rejected}
    assert 10 < len(called.rejected) < 60


@settings(deadline=None)
@given(ps, some.data(), some.sampled_from(ALPHAS))
def test_a_smaller_p_never_removes_a_call(p, data, alpha):
    """More evidence against one cell takes back no other cell."""
    place = data.draw(some.integers(0, len(p) - 1))
    lower = [*p]
    lower[place] = data.draw(some.floats(0, p[place]))
    assert holm(named(p), of(p), alpha).rejected <= holm(named(lower), of(p), alpha).rejected


@settings(deadline=None)
@given(es, some.data())
def test_a_larger_e_never_calms_the_whole(e, data):
    """More evidence against one cell is more evidence that something rose."""
    place = data.draw(some.integers(0, len(e) - 1))
    higher = [*e]
    higher[place] = data.draw(some.floats(e[place], math.inf))
    assert global_e_value(named(higher), of(e)) >= global_e_value(named(e), of(e))


@settings(deadline=None)
@given(ps, es, some.integers(1, 5), some.sampled_from(ALPHAS))
def test_cells_without_evidence_never_add_a_call(p, e, more, alpha):
    """Declared and not run, a cell stays in the denominator: as if it had p = 1 or e = 0."""
    absent = [f"absent {place}" for place in range(more)]
    larger = holm(named(p), of(p, *absent), alpha)
    assert larger.rejected <= holm(named(p), of(p), alpha).rejected
    assert larger == holm({**named(p), **dict.fromkeys(absent, 1.0)}, of(p, *absent), alpha)
    assert global_e_value(named(e), of(e, *absent)) <= global_e_value(named(e), of(e))


@settings(deadline=None)
@given(ps, some.randoms(use_true_random=False), some.sampled_from(ALPHAS))
def test_the_order_of_declaration_does_not_matter(p, random, alpha):
    """Neither that of the family nor that of the results."""
    cells = list(named(p))
    random.shuffle(cells)
    shuffled = holm(named(p), Family(cells=tuple(cells)), alpha)
    assert list(shuffled.adjusted) == cells
    assert shuffled.adjusted == holm(named(p), of(p), alpha).adjusted


def test_the_mean_e_value():
    """It is over the declared family."""
    family = Family(cells=("a", "b", "c", "d"))
    assert global_e_value({"a": 300.0, "c": 100.0}, family) == 100.0
    assert global_e_value({}, family) == 0.0
    assert global_e_value({"a": 0.0, "d": math.inf}, family) == math.inf


def test_a_release_needs_every_declared_cell():
    """One that does not hold, or was not run, stops it."""
    family = Family(cells=("a", "b", "c"))
    assert every_cell({"c": True, "a": True, "b": True}, family)
    assert not every_cell({"a": True, "b": False, "c": True}, family)
    assert not every_cell({"a": True, "b": True}, family)
    assert not every_cell({}, family)


def correlated(random, runs: int, cells: int, share: float):
    """Standard normal scores, of which any two of a run correlate by `share`."""
    common = random.standard_normal((runs, 1))
    return math.sqrt(share) * common + math.sqrt(1 - share) * random.standard_normal((runs, cells))


def at_most(rate: float, runs: int) -> float:
    """What a rate of at most `rate` shows in `runs` runs, four standard errors away."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / runs)


def test_with_correlated_cells_false_calls_stay_rare():
    """20 cells that share an arm, none or 5 of them risen: errors within alpha, and the risen are found."""
    from scipy.stats import norm

    alpha, runs, cells, risen = 0.1, 400, 20, 5
    family = of(range(cells))
    scores = correlated(np.random.default_rng(11), runs, cells, 0.5)
    null = norm.sf(scores)
    assert (null.min(axis=1) <= alpha).mean() > 0.5, "uncorrected, most runs have a false alarm"
    false = np.mean([bool(holm(named(p), family, alpha).rejected) for p in null])
    assert false <= at_most(alpha, runs)
    planted = scores + np.where(np.arange(cells) < risen, 4.0, 0.0)
    true = {str(place) for place in range(risen)}
    found = [holm(named(row), family, alpha).rejected for row in norm.sf(planted)]
    assert np.mean([bool(each - true) for each in found]) <= at_most(alpha, runs)
    assert np.mean([len(each & true) / risen for each in found]) > 0.6


def test_e_values_that_share_an_arm_raise_no_alarm():
    """Under the null with correlation .9 the mean e-value reaches 1/alpha in at most alpha of runs."""
    alpha, runs, cells, lean = 0.1, 2000, 20, 1.5
    scores = correlated(np.random.default_rng(12), runs, cells, 0.9)
    e = np.exp(lean * scores - lean**2 / 2)
    family = of(range(cells))
    alarms = np.mean([global_e_value(named(row), family) >= 1 / alpha for row in e])
    assert (e.max(axis=1) >= 1 / alpha).mean() > alarms > 0
    assert alarms <= at_most(alpha, runs)


def test_what_every_run_needs_loads_nothing_heavy():
    """Holm, a release claim and e-values load no SciPy statistics."""
    code = (
        "import sys; from resurgence_harness.statistics.multiplicity import *\n"
        "def told(): print([name for name in ('scipy.stats', 'statsmodels') if name in sys.modules])\n"
        "f = Family(cells=('a', 'b')); every_cell({'a': True}, f); global_e_value({'a': 9.0}, f)\n"
        "holm({'a': 0.1}, f, 0.01); told()"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[]"]
