"""Shards: together exactly the plan, cells of one checkpoint never apart, about equal in cost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resurgence_harness.errors import UserError
from resurgence_harness.executing.shards import Lineage, Shard, lineages, parse_shard, split
from resurgence_harness.judging import judge_by_name
from resurgence_harness.planning import checkpoint_key
from resurgence_harness.presets.lives import parse_life
from resurgence_harness.selection import CellPlan, Selection, cells, plan_cell
from resurgence_harness.specs import Base
from resurgence_harness.tasks import CELEBRITY

BASE = Base(digest="ab" * 32, name="micro", location="micro")
METHODS = ("uce", "esd", "salun")


def plans(selection: Selection) -> list[CellPlan]:
    """Every cell of the celebrity task."""
    return [plan_cell(cell, BASE, task=CELEBRITY, selection=selection) for cell in cells(CELEBRITY, selection)]


def grouped(found: list[CellPlan]) -> list[Lineage]:
    """Their lineages."""
    return lineages(found, {name: judge_by_name(name) for one in found for name in one.judges})


@given(
    costs=st.lists(st.floats(min_value=0, max_value=1e6, allow_nan=False), min_size=1, max_size=40),
    of=st.integers(min_value=1, max_value=12),
)
def test_the_shards_together_are_exactly_the_plan(costs: list[float], of: int) -> None:
    """Every cell in one shard, groups whole, and no shard longer than Graham's bound on the best split."""
    groups = [Lineage((2 * place, 2 * place + 1), cost) for place, cost in enumerate(costs)]
    parts = split(groups, of)
    assert len(parts) == of
    assert sorted(cell for part in parts for cell in part) == list(range(2 * len(costs)))
    assert all((2 * place in part) == (2 * place + 1 in part) for part in parts for place in range(len(costs)))
    loads = [sum(costs[cell // 2] for cell in part) / 2 for part in parts]
    least = max(sum(costs) / of, *costs)  # no split has a shorter longest shard than this
    assert max(loads) <= 2 * least * (1 + 1e-9)


@settings(max_examples=5, deadline=None)
@given(of=st.integers(min_value=1, max_value=9), runs=st.integers(min_value=1, max_value=2))
def test_real_cells_that_share_a_checkpoint_stay_together(of: int, runs: int) -> None:
    """A fine-tuning's cell is in the shard of its unlearned model, and so is a life that begins with it."""
    found = plans(Selection(methods=METHODS, counts=(1, 10), finetunings=("lora", "full"), runs=runs))
    parts = split(grouped(found), of)
    assert sorted(cell for part in parts for cell in part) == list(range(len(found)))
    shard = {cell: number for number, part in enumerate(parts) for cell in part}
    for one, other in pairwise(range(len(found))):
        if checkpoint_key(found[one].unlearned) == checkpoint_key(found[other].unlearned):
            assert shard[one] == shard[other]


def test_lives_with_a_common_beginning_are_one_lineage() -> None:
    """They share the first unlearned model, whatever follows."""
    lives = tuple(map(parse_life, ("uce(1) > lora", "uce(1) > lora > uce(+1) > full", "esd(1) > lora")))
    groups = grouped(plans(Selection(lives=lives)))
    assert sorted(group.cells for group in groups) == [(0, 1), (2,)]


def test_what_every_cell_needs_counts_for_none() -> None:
    """The base's images are made once, whatever the shard: a closed form costs less than a training."""
    costs = {
        METHODS[group.cells[0]]: group.seconds for group in grouped(plans(Selection(methods=METHODS, counts=(1,))))
    }
    assert 0 < costs["uce"] < costs["esd"]


def test_the_split_depends_on_nothing_but_the_plan() -> None:
    """Computed twice, from plans made twice."""
    selection = Selection(methods=METHODS, counts=(1, 10))
    assert split(grouped(plans(selection)), 3) == split(grouped(plans(selection)), 3)


@pytest.mark.parametrize("text", ["9/8", "0/8", "x", "3", "3/0", "-1/2", "1/2/3", "", "3.0/8"])
def test_a_shard_that_there_is_not_is_refused(text: str) -> None:
    """In one sentence with the offending text."""
    with pytest.raises(UserError, match="There is no shard") as refused:
        parse_shard(text)
    assert f'"{text}"' in str(refused.value).splitlines()[0]


def test_a_shard_is_read_and_written() -> None:
    """As it was given."""
    assert parse_shard(" 3/8 ") == Shard(3, 8) and str(Shard(3, 8)) == "3/8"
