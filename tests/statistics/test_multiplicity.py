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
    Node,
    benjamini_hochberg,
    benjamini_yekutieli,
    culprits,
    e_benjamini_hochberg,
    every_cell,
    global_e_value,
    global_rejects,
    holm,
)

BY_P = (holm, benjamini_hochberg, benjamini_yekutieli)
ALL = (*BY_P, e_benjamini_hochberg)
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


@pytest.mark.parametrize("call", [*(partial(each, alpha=0.01) for each in ALL), global_e_value, every_cell])
def test_an_undeclared_cell_is_an_error(call):
    """A result of a cell that nobody declared decides nothing, however good it is."""
    with pytest.raises(HarnessError, match=r"'late'.*not declared"):
        call({"a": True, "late": True}, Family(cells=("a", "b")))


@pytest.mark.parametrize("call", BY_P)
@pytest.mark.parametrize("p", [math.nan, -1e-9, 1 + 1e-9, math.inf, -math.inf])
def test_a_p_value_is_a_probability(call, p):
    """Anything else is an error that names cell and value."""
    with pytest.raises(HarnessError, match=f"'b' is {p}"):
        call({"a": 0.001, "b": p}, Family(cells=("a", "b", "c")), 0.01)


@pytest.mark.parametrize("call", [partial(e_benjamini_hochberg, alpha=0.01), partial(global_rejects, alpha=0.01)])
@pytest.mark.parametrize("e", [math.nan, -1e-9, -math.inf])
def test_an_e_value_is_not_negative(call, e):
    """Anything else is an error that names cell and value, even beside an infinite one."""
    with pytest.raises(HarnessError, match=f"'b' is {e}"):
        call({"a": math.inf, "b": e}, Family(cells=("a", "b", "c")))


@pytest.mark.parametrize("held", [math.nan, "UNDECIDED", 1, 0.0, None, np.False_])
def test_only_true_and_false_say_whether_a_cell_holds(held):
    """What Python takes for true is not taken for a cell that holds."""
    with pytest.raises(HarnessError, match="'b'"):
        every_cell({"a": True, "b": held}, Family(cells=("a", "b")))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_alpha_is_an_error_probability(alpha):
    """An alpha that means nothing is a spec error."""
    for call in (*ALL, global_rejects):
        with pytest.raises(SpecError, match="alpha"):
            call({"a": 1.0}, Family(cells=("a",)), alpha)
    with pytest.raises(SpecError, match="alpha"):
        culprits(Node(name="a", p=1.0), alpha)


def test_by_hand():
    """Four cells: p .01 .04 .03 .005, worked on paper."""
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    family = Family(cells=tuple(p))
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    for call, adjusted, rejected in (
        (holm, (0.03, 0.06, 0.06, 0.02), "ad"),
        (benjamini_hochberg, (0.02, 0.04, 0.04, 0.02), "abcd"),
        (benjamini_yekutieli, tuple(harmonic * x for x in (0.02, 0.04, 0.04, 0.02)), "ad"),
    ):
        called = call(p, family, 0.05)
        assert tuple(called.adjusted) == tuple("abcd")
        assert tuple(called.adjusted.values()) == pytest.approx(adjusted)
        assert called.rejected == set(rejected)
        assert called.alpha == 0.05


def test_e_values_by_hand():
    """Four cells at alpha .05: the k-th largest e needs 80, 40, 26.7, 20; the first alone would not have made it."""
    called = e_benjamini_hochberg({"a": 30.0, "b": 19.0, "c": 70.0, "d": 41.0}, Family(cells=tuple("abcd")), 0.05)
    assert called.rejected == {"a", "c", "d"}
    third = 4 / (3 * 30)
    assert tuple(called.adjusted.values()) == pytest.approx((third, 4 / (4 * 19), third, third))
    exactly = e_benjamini_hochberg({"a": 80.0, "b": 0.0, "c": 19.9}, Family(cells=tuple("abcd")), 0.05)
    assert exactly.rejected == {"a"}
    endless = e_benjamini_hochberg({"a": math.inf}, Family(cells=tuple("abcd")), 0.01)
    assert endless.adjusted == {"a": 0.0, "b": 1.0, "c": 1.0, "d": 1.0}


@settings(deadline=None)
@given(ps)
def test_holm_is_the_closed_bonferroni_test(p):
    """A cell is called exactly if Bonferroni rejects every set of cells that it is in."""
    places = range(len(p))
    sets = [s for size in range(1, len(p) + 1) for s in combinations(places, size)]
    needed = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if place in s) for place in places]
    assert list(holm(named(p), of(p), 0.01).adjusted.values()) == pytest.approx(needed)


@settings(deadline=None)
@given(ps)
def test_benjamini_and_his_co_authors_as_they_wrote(p):
    """A threshold t is allowed at alpha where t·m is at most alpha times the cells up to it; BY pays 1 + … + 1/m."""
    needed = [min(t * len(p) / sum(x <= t for x in p) for t in p if t >= own) for own in p]
    assert list(benjamini_hochberg(named(p), of(p), 0.01).adjusted.values()) == pytest.approx(needed)
    factor = sum(1 / k for k in range(1, len(p) + 1))
    needed = [min(1.0, factor * x) for x in needed]
    assert list(benjamini_yekutieli(named(p), of(p), 0.01).adjusted.values()) == pytest.approx(needed)


@settings(deadline=None)
@given(es, some.sampled_from(ALPHAS))
def test_e_bh_is_as_wang_and_ramdas_wrote(e, alpha):
    """A threshold t is allowed where m/t is at most alpha times the cells from it on; and it is BH at p = 1/e."""
    needed = [min([1.0, *(len(e) / (t * sum(x >= t for x in e)) for t in e if 0 < t <= own)]) for own in e]
    called = e_benjamini_hochberg(named(e), of(e), alpha)
    assert list(called.adjusted.values()) == pytest.approx(needed)
    inverse = [1 / x if x > 1 else 1.0 for x in e]
    by_p = benjamini_hochberg(named(inverse), of(e), alpha)
    undecided = {cell for cell, x in by_p.adjusted.items() if math.isclose(x, alpha)}
    assert called.rejected - undecided == by_p.rejected - undecided


@pytest.mark.parametrize(
    ("call", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh"), (benjamini_yekutieli, "fdr_by")]
)
def test_agreement_with_statsmodels(call, method):
    """200 cells, 40 of them risen and 30 never run: as statsmodels with ones for the missing."""
    from scipy.stats import norm
    from statsmodels.stats.multitest import multipletests

    random = np.random.default_rng(5)
    z = random.standard_normal(170) + np.where(np.arange(170) < 40, 3.5, 0)
    p = norm.sf(z)
    absent = [f"absent {place}" for place in range(30)]
    called = call(named(p), of(p, *absent), 0.05)
    reject, adjusted = multipletests([*p, *[1.0] * 30], alpha=0.05, method=method)[:2]
    assert list(called.adjusted.values()) == pytest.approx(list(adjusted))
    assert called.rejected == {cell for cell, rejected in zip(called.adjusted, reject, strict=True) if rejected}
    assert 10 < len(called.rejected) < 60


@settings(deadline=None)
@given(ps, some.data(), some.sampled_from(ALPHAS))
def test_a_smaller_p_never_removes_a_call(p, data, alpha):
    """For every procedure: more evidence against one cell takes back no other cell."""
    place = data.draw(some.integers(0, len(p) - 1))
    lower = [*p]
    lower[place] = data.draw(some.floats(0, p[place]))
    for call in BY_P:
        assert call(named(p), of(p), alpha).rejected <= call(named(lower), of(p), alpha).rejected


@settings(deadline=None)
@given(es, some.data(), some.sampled_from(ALPHAS))
def test_a_larger_e_never_removes_a_call(e, data, alpha):
    """More evidence against one cell takes back no other cell, and does not calm the whole."""
    place = data.draw(some.integers(0, len(e) - 1))
    higher = [*e]
    higher[place] = data.draw(some.floats(e[place], math.inf))
    before, after = (e_benjamini_hochberg(named(x), of(e), alpha).rejected for x in (e, higher))
    assert before <= after
    assert global_e_value(named(higher), of(e)) >= global_e_value(named(e), of(e))


@settings(deadline=None)
@given(ps, es, some.integers(1, 5), some.sampled_from(ALPHAS))
def test_cells_without_evidence_never_add_a_call(p, e, more, alpha):
    """Declared and not run, a cell stays in the denominator: as if it had p = 1 or e = 0."""
    absent = [f"absent {place}" for place in range(more)]
    for call, values, missing in (*((each, p, 1.0) for each in BY_P), (e_benjamini_hochberg, e, 0.0)):
        larger = call(named(values), of(values, *absent), alpha)
        assert larger.rejected <= call(named(values), of(values), alpha).rejected
        assert larger == call({**named(values), **dict.fromkeys(absent, missing)}, of(values, *absent), alpha)
    assert global_e_value(named(e), of(e, *absent)) <= global_e_value(named(e), of(e))


@settings(deadline=None)
@given(ps, some.randoms(use_true_random=False), some.sampled_from(ALPHAS))
def test_the_order_of_declaration_does_not_matter(p, random, alpha):
    """Neither that of the family nor that of the results; and the stricter procedures call no other cells."""
    cells = list(named(p))
    random.shuffle(cells)
    for call in BY_P:
        shuffled = call(named(p), Family(cells=tuple(cells)), alpha)
        assert list(shuffled.adjusted) == cells
        assert shuffled.adjusted == call(named(p), of(p), alpha).adjusted
    loosest = benjamini_hochberg(named(p), of(p), alpha).rejected
    assert holm(named(p), of(p), alpha).rejected <= loosest
    assert benjamini_yekutieli(named(p), of(p), alpha).rejected <= loosest


def test_the_mean_e_value():
    """It is over the declared family, and rejects at 1/alpha and above."""
    family = Family(cells=("a", "b", "c", "d"))
    assert global_e_value({"a": 300.0, "c": 100.0}, family) == 100.0
    assert global_rejects({"a": 300.0, "c": 100.0}, family, 0.01)
    assert not global_rejects({"a": 300.0, "c": 99.9}, family, 0.01)
    assert global_e_value({}, family) == 0.0
    assert global_e_value({"a": 0.0, "d": math.inf}, family) == math.inf
    assert global_rejects({"a": 0.0, "d": math.inf}, family, 0.01)


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
    for call in BY_P:
        false = np.mean([bool(call(named(p), family, alpha).rejected) for p in null])
        assert false <= at_most(alpha, runs), call
    planted = scores + np.where(np.arange(cells) < risen, 4.0, 0.0)
    true = {str(place) for place in range(risen)}
    lean = 2.5
    evidence = ((norm.sf(planted), BY_P), (np.exp(lean * planted - lean**2 / 2), (e_benjamini_hochberg,)))
    for values, calls in evidence:
        for call in calls:
            found = [call(named(row), family, alpha).rejected for row in values]
            fdr = np.mean([len(each - true) / max(len(each), 1) for each in found])
            assert fdr <= at_most(alpha, runs), call
            assert np.mean([len(each & true) / risen for each in found]) > 0.6, call
            if call is holm:
                assert np.mean([bool(each - true) for each in found]) <= at_most(alpha, runs)


def test_e_values_that_share_an_arm_raise_no_alarm():
    """Under the null with correlation .9: e-BH and the mean e-value are wrong in at most alpha of runs."""
    alpha, runs, cells, lean = 0.1, 2000, 20, 1.5
    scores = correlated(np.random.default_rng(12), runs, cells, 0.9)
    e = np.exp(lean * scores - lean**2 / 2)
    family = of(range(cells))
    assert (e.max(axis=1) >= 1 / alpha).mean() > np.mean([global_rejects(named(row), family, alpha) for row in e]) > 0
    assert np.mean([global_rejects(named(row), family, alpha) for row in e]) <= at_most(alpha, runs)
    assert np.mean([bool(e_benjamini_hochberg(named(row), family, alpha).rejected) for row in e]) <= at_most(
        alpha, runs
    )


def test_under_the_worst_dependence_only_benjamini_hochberg_breaks():
    """Uniform p-values of 20 null cells, dependent so that BH calls one in alpha·(1 + … + 1/20) = .36 of runs.

    With probability alpha/k, exactly k cells land just under BH's k-th threshold; the others lie above alpha.
    """
    alpha, cells, runs = 0.1, 20, 600
    random = np.random.default_rng(13)
    chances = alpha / np.arange(1, cells + 1)
    many = random.choice(cells + 1, size=runs, p=[1 - chances.sum(), *chances])
    p = random.uniform(alpha, 1, (runs, cells))
    for row, k in zip(p, many, strict=True):
        row[random.permutation(cells)[:k]] = random.uniform((k - 1) * alpha / cells, k * alpha / cells, k)
    family = of(range(cells))
    false = {call: np.mean([bool(call(named(row), family, alpha).rejected) for row in p]) for call in BY_P}
    assert false[benjamini_hochberg] == pytest.approx(chances.sum(), abs=0.08)
    assert 0 < false[benjamini_yekutieli] <= at_most(alpha, runs)
    assert 0 < false[holm] <= at_most(alpha, runs)


def test_culprits_are_looked_for_only_below_a_rejected_parent():
    """Two tasks of three are rejected at alpha .01; the third hides a concept with p = 0."""
    tree = Node(
        name="MACE",
        p=0.01,
        children=(
            Node(name="object", p=0.0101, children=(Node(name="cat", p=0.0),)),
            Node(name="copyright", p=0.005),
            Node(
                name="celebrity",
                p=0.0033,
                children=(
                    Node(name="first", p=0.006),
                    Node(name="second", p=0.0049),
                    Node(name="third", p=0.02),
                    Node(name="fourth", p=0.001, children=(Node(name="portrait", p=0.01), Node(name="sketch", p=0.6))),
                ),
            ),
        ),
    )
    assert culprits(tree, 0.01) == (
        ("MACE",),
        ("MACE", "copyright"),
        ("MACE", "celebrity"),
        ("MACE", "celebrity", "fourth"),
    )
    assert culprits(tree, 0.0099) == ()


tree_ps = some.sampled_from([0.0, 0.001, 0.003, 0.005, 0.01, 0.02, 1.0])
trees = some.recursive(
    some.builds(lambda p: (p, ()), tree_ps),
    lambda below: some.tuples(tree_ps, some.lists(below, max_size=4).map(tuple)),
    max_leaves=8,
)


def planted(tree, name: str = "0") -> Node:
    """The nodes of nested pairs (p, children), siblings being numbered."""
    p, children = tree
    return Node(name=name, p=p, children=tuple(planted(child, str(place)) for place, child in enumerate(children)))


@settings(deadline=None)
@given(trees, some.data())
def test_down_a_tree(tree, data):
    """Parents come first and have p ≤ alpha; smaller p-values, anywhere, take back no name."""
    alpha = 0.01
    paths = culprits(planted(tree), alpha)
    for place, path in enumerate(paths):
        assert len(path) == 1 or path[:-1] in paths[:place]
        node = planted(tree)
        for name in path[1:]:
            node = node.children[int(name)]
        assert node.p <= alpha

    def lower(tree):
        return min(tree[0], data.draw(tree_ps)), tuple(lower(child) for child in tree[1])

    assert set(paths) <= set(culprits(planted(lower(tree)), alpha))


def test_what_culprits_controls_and_what_not():
    """Eight risen tasks of three concepts each: .34 of runs name one falsely at alpha .05, and under .05 at alpha/9."""
    alpha, runs, tasks = 0.05, 250, 8
    random = np.random.default_rng(14)
    anywhere, first, careful, nothing = 0, 0, 0, 0
    for p in random.uniform(0, 1, (runs, tasks, 3)):
        groups = [tuple(Node(name=str(place), p=x) for place, x in enumerate(row)) for row in p]
        risen = Node(
            name="m", p=0.0, children=tuple(Node(name=f"t{k}", p=0.0, children=g) for k, g in enumerate(groups))
        )
        named_concepts = [path for path in culprits(risen, alpha) if len(path) == 3]
        anywhere += bool(named_concepts)
        first += any(path[1] == "t0" for path in named_concepts)
        careful += any(len(path) == 3 for path in culprits(risen, alpha / (1 + tasks)))
        nothing += bool(culprits(Node(name="m", p=random.uniform(), children=risen.children), alpha))
    assert at_most(alpha, runs) < anywhere / runs == pytest.approx(1 - (1 - alpha) ** tasks, abs=0.11)
    assert first / runs <= at_most(alpha, runs)
    assert careful / runs <= at_most(alpha, runs)
    assert nothing / runs <= at_most(alpha, runs)


def test_impossible_trees_are_errors():
    """A p that is none, and siblings that cannot be told apart; the same name elsewhere is another node."""
    for p in (math.nan, -0.1, 1.1):
        with pytest.raises(HarnessError, match=f"'cat' is {p}"):
            Node(name="cat", p=p)
    leaf = Node(name="cat", p=0.0)
    with pytest.raises(SpecError, match="'cat' twice"):
        Node(name="object", p=0.0, children=(leaf, leaf))
    assert culprits(Node(name="cat", p=0.0, children=(leaf,)), 0.01) == (("cat",), ("cat", "cat"))


def test_what_every_run_needs_loads_nothing_heavy():
    """Holm, a release claim and e-values load no SciPy statistics; Benjamini's procedures do."""
    code = (
        "import sys; from resurgence_harness.statistics.multiplicity import *\n"
        "def told(): print([name for name in ('scipy.stats', 'statsmodels') if name in sys.modules])\n"
        "f = Family(cells=('a', 'b')); every_cell({'a': True}, f); e_benjamini_hochberg({'a': 9.0}, f, 0.01)\n"
        "global_rejects({'a': 9.0}, f, 0.01); culprits(Node(name='a', p=0.001), 0.01); told()\n"
        "holm({'a': 0.1}, f, 0.01); told()\n"
        "benjamini_hochberg({'a': 0.1}, f, 0.01); benjamini_yekutieli({'a': 0.1}, f, 0.01); told()"
    )
    root = Path(__file__).parents[2]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[]", "[]", "['scipy.stats']"]


def test_a_leaf_has_no_children():
    """A tuple like any node's, so that a tree can be walked."""
    assert Node(name="a", p=0.5).children == ()
    assert culprits(Node(name="a", p=0.001), 0.01) == (("a",),)
    assert culprits(Node(name="a", p=0.01), 0.01) == (("a",),)
    assert culprits(Node(name="a", p=0.0101), 0.01) == ()
