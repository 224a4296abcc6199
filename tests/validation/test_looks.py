"""Whole arrays through the engine say what the engine says one row at a time."""

from __future__ import annotations

import numpy as np
import pytest

from resurgence_harness.errors import HarnessError
from resurgence_harness.statistics import FIXED, Evidence, Hybrid, Judgment, NoRise, Outcome, Shuffled, e_value, paired
from resurgence_harness.statistics.intervals import tango_z
from resurgence_harness.statistics.paired_size import claims, scores
from resurgence_harness.validation.looks import evidence, first_look, settle

pytestmark = pytest.mark.slow

DELTA, ALPHA, BLOCK = 0.05, 0.05, 20
OUTCOMES = (Outcome.CLEAR, Outcome.HIT, Outcome.ABSTAINED)


def draws(rows: int, total: int, p: tuple[float, float, float], seed: int) -> np.ndarray:
    """Outcomes −1, 0, 1."""
    return np.random.default_rng(seed).choice([-1, 0, 1], p=p, size=(rows, total)).astype(np.int8)


def test_evidence_is_the_engines():
    """Per row, on both sides, the very e-value."""
    x = draws(12, 90, (0.05, 0.8, 0.15), 1)
    for at_least in (True, False):
        found = evidence(x, mean=DELTA, least=-1, grid=120, at_least=at_least)
        told = [e_value([int(v) for v in row], mean=DELTA, least=-1, grid=120, at_least=at_least) for row in x]
        assert found == pytest.approx(told)


@pytest.mark.parametrize("at_least", [True, False])
def test_the_first_look_is_the_first(at_least):
    """Bisected on rows of different length: the first look at which the e-value of what was seen is enough."""
    x = draws(40, 100, (0.05, 0.75, 0.2) if not at_least else (0.2, 0.75, 0.05), 2)
    random = np.random.default_rng(3)
    seen = np.sort(random.integers(0, 100, size=(40, 7)), axis=1)
    found = first_look(x, seen, needed=20, mean=DELTA, least=-1, grid=150, at_least=at_least)
    for row, looks, place in zip(x, seen, found, strict=True):
        enough = [
            bool(n) and e_value([int(v) for v in row[:n]], mean=DELTA, least=-1, grid=150, at_least=at_least) >= 20
            for n in looks
        ]
        assert place == (enough.index(True) if True in enough else len(looks))
    assert 5 < np.count_nonzero(found < 7) < 40


def arm(codes, name: str, design) -> Evidence:
    """Judgments of 0 clear, 1 hit, 2 abstained."""
    rows = [
        Judgment(concept="c", prompt="p", seed=i, outcome=OUTCOMES[code], score=0.9, answer="x")
        for i, code in enumerate(codes)
    ]
    return Evidence(judgments=tuple(rows), planned=len(rows), recipe=name, judge="j", design=design)


def one_by_one(before, after, design, alpha):
    """NoRise at every look of one row; None where a bound lies too near the limit to compare two searches."""
    total = len(before)
    ends = [total] if design == FIXED else [*range(BLOCK, total, BLOCK), total]
    for end in ends:
        found = NoRise(delta=DELTA, alpha=alpha).judge(
            arm(before[:end], "one", design), arm(after[:end], "other", design)
        )
        if 0 < min(abs(found.high - DELTA), abs(found.low - DELTA)) < 3e-4:
            return None
        if found.settled:
            break
    return end, found.holds, found.broken


@pytest.mark.parametrize("abstained", [0.0, 0.08], ids=["all judged", "some abstained"])
@pytest.mark.parametrize("design", [Shuffled(160), Shuffled(400), Hybrid(160), FIXED], ids=str)
def test_settling_is_what_the_criterion_says_at_every_look(design, abstained):
    """When it ends, and how: floor, McNemar, margin, the grid's end, the last look and abstentions included."""
    if abstained and not isinstance(design, Shuffled):
        pytest.skip("abstentions are replayed on a shuffled grid alone")
    random = np.random.default_rng(4)
    before, after = [], []
    for p, q, r in ((0.02, 0.02, 0.5), (0.04, 0.3, 0.5), (0.0, 0.1, 0.0), (0.3, 0.34, 0.8), (0.0, 0.0, 0.0)):
        hits = random.random((4, 160)) < p
        kept = random.random((4, 160)) < np.where(hits, r, (q - p * r) / (1 - p))
        before.append(hits.astype(np.int8))
        after.append(np.where(random.random((4, 160)) < abstained, 2, kept.astype(np.int8)))
    one, other = np.concatenate(before), np.concatenate(after)
    changes = ((other == 1).astype(np.int8) - one).astype(np.int8)
    found = settle(changes, design, delta=DELTA, alpha=ALPHA, block=BLOCK, judged=(other != 2) if abstained else None)
    told = [one_by_one(a, b, design, ALPHA) for a, b in zip(one, other, strict=True)]
    compared = [
        (expected, (int(n), bool(h), bool(b)))
        for expected, n, h, b in zip(told, *found, strict=True)
        if expected is not None
    ]
    assert len(compared) >= 15
    assert all(expected == got for expected, got in compared)
    assert {(h, b) for _, (_, h, b) in compared} == {(True, False), (False, True), (False, False)}


def test_abstentions_are_replayed_on_a_grid_alone():
    """Their number is not fixed."""
    x = np.zeros((2, 100), dtype=np.int8)
    with pytest.raises(HarnessError, match="shuffled grid"):
        settle(x, FIXED, delta=DELTA, alpha=ALPHA, judged=x == 0)


@pytest.mark.parametrize("delta", [0.05, 0.1, 0.3])
def test_regions_are_those_of_the_paired_bound(delta):
    """Every count of 60 pairs, and Tango's statistic itself."""
    n = 60
    counts = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    b, c = np.array(counts).T
    assert scores(b, c, n, delta) == pytest.approx([tango_z(*count, n, delta) for count in counts])
    inside, outside = claims(b, c, n, delta, 0.01)
    bounds = [paired(*count, n, 0.01) for count in counts]
    assert inside.tolist() == [high < delta for _, high in bounds]
    assert outside.tolist() == [low > delta for low, _ in bounds]


def test_published_numbers_of_the_bound_without_events():
    """0 of 0: .153 at 30 pairs, .0022 at 2,500; 103 pairs show a rise under 5 points, 90 with the exact bound."""
    z = 2.3263478740408408
    for n, bound in ((30, 0.153), (2500, 0.0022)):
        assert scores(0, 0, n, bound * 1.01) < -z < scores(0, 0, n, bound * 0.97)
    assert scores(0, 0, 102, 0.05) > -z > scores(0, 0, 103, 0.05)
    assert [bool(claims(0, 0, n, 0.05, 0.01)[0]) for n in (89, 90)] == [False, True]
