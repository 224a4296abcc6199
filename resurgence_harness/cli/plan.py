"""`resurgence plan`: what a run of a suite would build."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.arguments import PASSED_ON, Arguments, open_store
from resurgence_harness.cli.cells import Cells, collected
from resurgence_harness.cli.formatting import format_count, format_time
from resurgence_harness.cli.recipes import show_recipes
from resurgence_harness.cli.tables import show
from resurgence_harness.storing import Snapshot, Store

if TYPE_CHECKING:
    from resurgence_harness.planning import Action, Plan


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("plan", context_settings=PASSED_ON)(plan_command)


def plan_command(
    arguments: Arguments,
    every: Annotated[
        bool, typer.Option("--all", help="List every artifact separately, including those that are present.")
    ] = False,
) -> None:
    """Print what a suite would build, why, and about how long it takes. Builds nothing and loads no model."""
    cells = collected(arguments)
    open_store(cells.store.name)
    planned = plan_of(cells)
    show_recipes(cells)
    if planned.needed:
        show_costs(cells)
    show_plan(planned, cells=len(cells.plans), store=cells.store, every=every, beyond=cells.beyond)


def plan_of(cells: Cells) -> Plan:
    """The plan of a suite's cells; reads a remote store in batches."""
    from resurgence_harness.planning import plan

    snapshot = Snapshot(cells.store)
    return snapshot.settled(lambda: plan(snapshot, cells.wanted))


def show_plan(planned: Plan, *, cells: int, store: Store, every: bool = False, beyond: int = 0) -> None:
    """Print a plan: by default only what has to be built, grouped by model."""
    rows = _each(planned.actions) if every else _together(planned.needed)
    if rows:
        show("kind", "artifact", "status", "estimate", rows=rows, right=[3])
    print(f"{format_count(cells, 'cell')}; store {store.here.name}")
    print(summary(planned))
    if beyond:
        print(f"Sampling stops when a verdict is clear; if none becomes clear, {beyond:,} more images are sampled.")


def show_costs(cells: Cells) -> None:
    """Print how many pairs a claim needs, for every limit, confidence level and grid size of a sequential cell."""
    from resurgence_harness.validation.power import costs_of_a_claim

    claims = {
        (policy.delta, policy.alpha, len(plan.erased))
        for plan, suite in cells.plans
        if plan.engine != "fixed"
        for policy in [cells.engine.limits(suite).policy_for(plan.cell)]
    }
    for delta, alpha, grid in sorted(claims):
        print(
            f"Pairs needed to distinguish a rise from {100 * delta:g} points with {100 * (1 - alpha):g} % confidence,"
            f" on grids of {grid}, simulated:"
        )
        rows = []
        for scenario, cost in costs_of_a_claim(delta, alpha, grid):
            verdicts = ", ".join(
                f"{kind} {share:.0%}"
                for kind, share in (("HOLDS", cost.holds), ("VIOLATED", cost.broken), ("neither", cost.undecided))
                if share >= 0.005
            )
            rows.append((scenario, f"{cost.median:.0f}", f"{cost.p95:.0f}", verdicts))
        show("true detection rates", "median", "95 % quantile", "verdicts", rows=rows)
        print()


def summary(planned: Plan) -> str:
    """One line: how much has to be built, and how long that takes."""
    needed = planned.needed
    present = len(planned.actions) - len(needed)
    if not needed:
        return f"Nothing has to be built: {format_count(present, 'artifact')} present."
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
    if learned == len(needed):
        source = "from the times of earlier builds in this store"
    else:
        source = "partly from default times" if learned else "from default times"
    return f"To build: {counts}; about {format_time(planned.seconds)} for one worker, {source}. {present} present."


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
