"""`resurgence build`: build what a suite needs, here, on several processes, on a Ray cluster, or one shard of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.arguments import PASSED_ON, Arguments
from resurgence_harness.cli.cells import Cells, check_same_everywhere, collected, open_builder
from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.plan import summary
from resurgence_harness.errors import HarnessError, UserError, sentence
from resurgence_harness.storing import check_usable

if TYPE_CHECKING:
    from resurgence_harness.executing.pool import Pool
    from resurgence_harness.executing.ray_pool import Resources
    from resurgence_harness.executing.running import Outcome
    from resurgence_harness.planning import Pace, Plan

ENGINES = ("local", "ray")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("build", context_settings=PASSED_ON)(build_command)


def build_command(
    arguments: Arguments,
    shard: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="Build one of N parts of about equal cost, for job arrays and CI matrices."),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="Where workers run: on this machine, or on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT", help="A running Ray cluster. Default: $RAY_ADDRESS; else Ray is started here."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of workers. Default: local, this process alone; ray, one per GPU or per --cpus."
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(metavar="N", help="CPUs of each Ray worker.")] = 1,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory of each Ray worker, as Ray counts it.")
    ] = None,
) -> None:
    """Build everything that a suite needs, so that pytest only has to decide. Several machines: docs/scale.md."""
    from resurgence_harness.executing.ray_pool import Resources
    from resurgence_harness.executing.shards import parse_shard
    from resurgence_harness.planning import Pace

    if engine not in ENGINES:
        raise UserError(
            sentence(f'There is no engine "{engine}".', do=f"Give --engine {' or --engine '.join(ENGINES)}.")
        )
    if engine == "local" and (address is not None or memory is not None):
        raise UserError(sentence("--address and --memory belong to a Ray cluster.", do="Add --engine ray."))
    resources = Resources(workers=workers, cpus=cpus, memory=memory)
    part = parse_shard(shard) if shard is not None else None
    cells = collected(arguments, shard=part)
    check_usable(cells.store.name)
    if part is not None:
        print(f"Shard {part}: {len(cells.plans)} of {format_count(len(cells.everything), 'cell')}.")
        if not cells.plans:
            print("Nothing to build: the suite has fewer groups of cells with a common checkpoint than shards.")
            return
    pace = Pace(cells.store)
    plans = plan_each(cells, pace)
    planned = together(plans)
    if planned.needed:
        print(summary(planned))
    if engine == "local" and workers is None:
        make_everything(cells)
    else:
        check_same_everywhere(cells.engine)
        build_with(_pool(engine, arguments, cells, address, resources), cells, plans, pace)
    print(f"All artifacts of {format_count(len(cells.plans), 'cell')} are in {cells.store.name}.")


def make_everything(cells: Cells) -> None:
    """Examine every cell until its verdict is clear."""
    from resurgence_harness.watching import watched, word

    engine = cells.engine
    named = [(word({"task": plan.cell.task, "id": plan.cell.id}), plan, suite) for plan, suite in cells.plans]
    works = [(name, partial(engine.expected, plan.cell, plan.task)) for name, plan, _ in named]
    try:
        with watched([name for name, _, _ in named]) as view:
            engine.watch(view.recorder)
            view.plan(works, store=lambda: engine.store, device=engine.bench.device)
            for name, plan, suite in named:
                with view.recorder.during(name):
                    engine.examine(plan, suite)
    finally:
        engine.release()


def plan_each(cells: Cells, pace: Pace) -> list[Plan]:
    """The plan of every cell."""
    from resurgence_harness.planning import plan

    return [plan(cells.store, own, pace=pace) for own in cells.each]


def together(plans: Sequence[Plan]) -> Plan:
    """One plan, with every artifact once."""
    from resurgence_harness.planning import Plan

    actions = {action.key: action for one in plans for action in one.actions}
    return Plan(actions=tuple(actions.values()))


def build_with(pool: Pool, cells: Cells, plans: Sequence[Plan], pace: Pace) -> Outcome | None:
    """Build what is missing on these workers; None if nothing is. HarnessError naming the cells that are not complete.

    UserError for a store that another version of this package has written.
    """
    from resurgence_harness.executing import builder, jobs, running, schedule, table, versions

    versions.check_written(cells.store, [action for one in plans for action in one.actions])
    left = [place for place, one in enumerate(plans) if one.needed or not cells.clear[place]]
    if not left:
        print("Nothing has to be built.")
        return None
    every = {jobs.name_of(plan): (plan, suite) for plan, suite in cells.everything}
    mine = builder.about(cells.engine, every)
    costs = {jobs.name_of(cells.plans[place][0]): plans[place].seconds for place in left}
    courses = jobs.courses([cells.plans[place] for place in left], cells.engine, costs, pace=pace)
    with table.watched(len(courses)) as watching:
        outcome = running.run(pool, schedule.Schedule(courses), watching, mine=mine)
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        more = f" and {len(outcome.failed) - 1} more" if len(outcome.failed) > 1 else ""
        raise HarnessError(
            sentence(
                f"Not everything was built: {name}{more} failed.",
                reason=" ".join(why.split()),
                failed=", ".join(outcome.failed),
                do="What was built is in the store; the same command builds the rest.",
            )
        )
    lost = f"; {format_count(outcome.lost, 'worker')} lost" if outcome.lost else ""
    print(f"{outcome.built:,} artifacts built on {pool.name}{lost}.")
    return outcome


def _pool(engine: str, arguments: Sequence[str], cells: Cells, address: str | None, resources: Resources) -> Pool:
    from resurgence_harness.diffusion.devices import visible_gpus
    from resurgence_harness.executing.pool import LocalPool
    from resurgence_harness.executing.ray_pool import RayPool

    opening = partial(open_builder, tuple(arguments), os.getcwd(), cells.engine.options.run)
    device = cells.engine.options.device
    if engine == "ray":
        return RayPool(opening, address=address, device=device, resources=resources)
    on_gpu = cells.engine.bench.device.startswith("cuda")
    return LocalPool(opening, workers=resources.workers or 1, gpus=visible_gpus() if on_gpu else ())
