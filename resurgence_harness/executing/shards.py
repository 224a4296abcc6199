"""Shards: a plan split over machines that know nothing of each other but a store.

    cells ──▶ lineages: cells whose models share a checkpoint ──▶ n shards of about equal cost

The split depends on the suite, its options and n alone, never on the store or the machine, so every shard computes the
same one. Costs are the planning defaults; what several lineages share (the base's images) counts for none of them.
Longest processing time first: R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969; the largest shard costs
at most 4/3 − 1/(3n) of the best possible split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.inquiry import Inquiry
from resurgence_harness.planning import NothingStored, Pace, plan, step_prefixes

if TYPE_CHECKING:
    from resurgence_harness.planning import JudgeSpec
    from resurgence_harness.selection import CellPlan

_SHARD = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of a plan, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        """ "3/8"."""
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """ "3/8" as a Shard; UserError for anything else, and for a number outside 1 … n."""
    found = _SHARD.fullmatch(text)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not 1 <= shard.number <= shard.of:
        raise UserError(
            sentence(
                f'There is no shard "{text}".',
                do="Give --shard NUMBER/OF with a number from 1 to OF, for example --shard 3/8.",
            )
        )
    return shard


class Lineage(NamedTuple):
    """Cells that must be built together, because their models share a checkpoint."""

    cells: tuple[int, ...]
    """Positions in the plan, rising."""
    seconds: float
    """Estimated time for one worker, without what other lineages need as well."""


def lineages(plans: Sequence[CellPlan], judges: Mapping[str, JudgeSpec]) -> list[Lineage]:
    """The lineages of a plan's cells, in the order of their first cells."""
    members = _together([_checkpoints(one) for one in plans])
    costs = [_costs([plans[cell] for cell in cells], judges) for cells in members]
    shared = Counter(key for own in costs for key in own)
    return [
        Lineage(cells, sum(seconds for key, seconds in own.items() if shared[key] == 1))
        for cells, own in zip(members, costs, strict=True)
    ]


def split(groups: Sequence[Lineage], of: int) -> list[tuple[int, ...]]:
    """The cells of each of `of` shards, rising; every cell is in exactly one of them."""
    parts: list[list[int]] = [[] for _ in range(of)]
    loads = [0.0] * of
    for group in sorted(groups, key=lambda one: (-one.seconds, one.cells)):
        least = min(range(of), key=lambda place: (loads[place], len(parts[place]), place))
        parts[least] += group.cells
        loads[least] += group.seconds
    return [tuple(sorted(part)) for part in parts]


def _checkpoints(plan: CellPlan) -> frozenset[object]:
    """The models of a cell, each after its first step, its second …; a recipe is as good as its key."""
    recipes = [recipe for arm in plan.arms.values() for recipe in arm.recipes]
    recipes += [*plan.checkpoints.values(), *(stage.recipe for stage in plan.stages)]
    return frozenset(part for recipe in recipes for part in step_prefixes(recipe))


def _together(sets: Sequence[frozenset[object]]) -> list[tuple[int, ...]]:
    """Positions of the sets, grouped so that sets with a common member are in one group."""
    group = list(range(len(sets)))

    def first(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    owner: dict[object, int] = {}
    for place, own in enumerate(sets):
        for member in own:
            if member in owner:
                one, other = sorted((first(owner[member]), first(place)))
                group[other] = one
            owner[member] = place
    found: dict[int, list[int]] = {}
    for place in range(len(sets)):
        found.setdefault(first(place), []).append(place)
    return [tuple(cells) for cells in found.values()]


def _costs(plans: Sequence[CellPlan], judges: Mapping[str, JudgeSpec]) -> dict[str, float]:
    """Estimated seconds of every artifact that these cells usually need, by key; independent of any store."""
    from resurgence_harness.examining import wanted

    evidence = []
    for one in plans:
        inquiry = Inquiry(one)
        questions = list(inquiry.expected(clear=False))
        evidence += list(wanted(one, inquiry, questions, [judges[name] for name in one.judges]))
    planned = plan(NothingStored(), evidence, pace=Pace(NothingStored()))
    return {action.key: action.seconds for action in planned.actions}
