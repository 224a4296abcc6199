"""`resurgence plan`: what a suite would make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.arguments import PASSED_ON, Arguments, open_store
from resurgence_harness.cli.cells import Cells, collected
from resurgence_harness.cli.formatting import format_count, format_time
from resurgence_harness.cli.recipes import show_recipes
from resurgence_harness.cli.tables import show
from resurgence_harness.storing import Store

if TYPE_CHECKING:
    from resurgence_harness.planning import Action, Plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("plan", context_settings=PASSED_ON)(plan_command)


def plan_command(
    arguments: Arguments,
    every: Annotated[
        bool, typer.Option("--all", help="List what is there already, and every artifact by itself.")
    ] = False,
) -> None:
    """Print what a suite would make, why, and about how long it takes. Makes nothing and loads no model."""
    from resurgence_harness.planning import plan

    cells = collected(arguments)
    open_store(cells.store.name)
    planned = plan(cells.store, cells.wanted)
    show_recipes(cells)
    if planned.needed:
        show_costs(cells)
    show_plan(planned, cells=len(cells.plans), store=cells.store, every=every, beyond=cells.beyond)


def show_plan(planned: Plan, *, cells: int, store: Store, every: bool = False, beyond: int = 0) -> None:
    """Print a plan: by default what is needed, the sets of one model together."""
    rows = _each(planned.actions) if every else _together(planned.needed)
    if rows:
        show("make", "what", "why", "about", rows=rows, right=[3])
    print(f"{format_count(cells, 'cell')}; store {store.name}")
    print(summary(planned))
    if beyond:
        print(f"Drawing ends when an answer is clear; if none were, {beyond:,} images more would be drawn.")


def show_costs(cells: Cells) -> None:
    """How many pairs a claim needs, for every limit, confidence and size of grid that is judged look by look."""
    from resurgence_harness.validation.power import costs_of_a_claim

    asked = {
        (policy.delta, policy.alpha, len(plan.erased))
        for plan, suite in cells.plans
        if plan.engine != "fixed"
        for policy in [cells.engine.limits(suite).policy_for(plan.cell)]
    }
    for delta, alpha, grid in sorted(asked):
        print(
            f"Pairs until a rise is told from {100 * delta:g} points with {100 * (1 - alpha):g} % confidence,"
            f" on grids of {grid}, simulated:"
        )
        rows = []
        for words, cost in costs_of_a_claim(delta, alpha, grid):
            told = ", ".join(
                f"{word} {share:.0%}"
                for word, share in (("HOLDS", cost.holds), ("VIOLATED", cost.broken), ("neither", cost.undecided))
                if share >= 0.005
            )
            rows.append((words, f"{cost.median:.0f}", f"{cost.p95:.0f}", told))
        show("if this is true", "half need", "95 of 100 need", "told", rows=rows)
        print()


def summary(planned: Plan) -> str:
    """One line: how much is to be made, and how long that takes."""
    needed = planned.needed
    there = len(planned.actions) - len(needed)
    if not needed:
        return f"Nothing has to be made: {format_count(there, 'artifact')} there already."
    counts = ", ".join(
        part
        for part in (
            _count_of_kind(needed, "checkpoint"),
            f"{planned.images:,} images" if planned.images else "",
            f"{_images(needed, 'judgments'):,} judgments",
        )
        if part
    )
    learned = sum(action.learned for action in needed)
    source = "as builds in this store took" if learned == len(needed) else "partly a guess" if learned else "a guess"
    return f"To make: {counts}; about {format_time(planned.seconds)} for one worker, {source}. {there} there already."


def _each(actions: Iterable[Action]) -> list[tuple[str, str, str, str]]:
    return [
        (action.kind, action.label, action.reason.value, format_time(action.seconds) if action.needed else "")
        for action in actions
    ]


def _together(actions: Iterable[Action]) -> list[tuple[str, str, str, str]]:
    groups: dict[tuple[str, str, str], list[Action]] = {}
    for action in actions:
        groups.setdefault((action.kind, action.model, action.reason.value), []).append(action)
    return [
        (
            kind,
            f"{sum(action.images for action in group):,} of {model}" if kind != "checkpoint" else model,
            reason,
            format_time(sum(action.seconds for action in group)),
        )
        for (kind, model, reason), group in groups.items()
    ]


def _count_of_kind(actions: Iterable[Action], kind: str) -> str:
    count = sum(action.kind == kind for action in actions)
    return format_count(count, kind) if count else ""


def _images(actions: Iterable[Action], kind: str) -> int:
    return sum(action.images for action in actions if action.kind == kind)
