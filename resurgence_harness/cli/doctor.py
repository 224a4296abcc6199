"""`resurgence doctor`: what is ready for which task on which base, and the command that gives what is missing.

resurgence doctor                                   every task on the microworld and the published bases
resurgence doctor --base sd14 --task celebrity      one of them in full, with the expected time on this machine
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.formatting import format_time
from resurgence_harness.cli.tables import show
from resurgence_harness.process import ExitCode
from resurgence_harness.specs import EMBEDDED

if TYPE_CHECKING:
    from resurgence_harness.readiness import Requirement


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("doctor")(doctor_command)


def doctor_command(
    base: Annotated[str | None, typer.Option(metavar="NAME|DIR", help="Only this base: micro, sd14 …")] = None,
    task: Annotated[
        str | None, typer.Option(help="Only this task: celebrity, copyright, unsafe, nudity, object.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Draw a few images to estimate the time of a run.")
    ] = True,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device to measure.")] = "auto",
    profile: Annotated[str, typer.Option(help="Size of the run that is estimated: quick, full, paper.")] = "quick",
) -> None:
    """Say what is ready for which task on which base. Downloads nothing.

    With --base and --task, exits with 4 if something is missing.
    """
    from resurgence_harness.diffusion.hub import ALIASES
    from resurgence_harness.readiness import State, machine, requirements
    from resurgence_harness.selection import tasks_on

    show("this machine", "", rows=machine())
    print()
    if base is not None and task is not None:
        found = requirements(base, task)
        show_requirements(found)
        if any(one.state is not State.READY for one in found):
            print("\nThe expected time is measured when everything above is ready.")
            raise typer.Exit(ExitCode.USER_ERROR)
        if measure:
            print(f"\n{expected_time(base, task, device=device, profile=profile)}")
        return
    rows = []
    for one in [base] if base is not None else [*EMBEDDED, *ALIASES]:
        for name in [task] if task is not None else tasks_on(one):
            found = requirements(one, name)
            missing = [row for row in found if row.state is not State.READY]
            lacking = ", ".join(f"{row.name} ({row.kind}, {row.state})" for row in missing)
            rows.append((one, name, "ready" if not missing else lacking, missing[0].command if missing else ""))
    show("base", "task", "state", "next", rows=rows)
    print("In full, with the expected time: resurgence doctor --base NAME --task NAME; step by step: resurgence setup")


def show_requirements(found: tuple[Requirement, ...]) -> None:
    """Print what is needed."""
    rows = [(one.kind, one.name, str(one.state), one.about, one.command) for one in found]
    show("needs", "what", "state", "about", "command", rows=rows)


def expected_time(base: str, task: str, *, device: str, profile: str) -> str:
    """Measure, and estimate the quick run of the task with one worker; one sentence."""
    from resurgence_harness.cli.cells import collected
    from resurgence_harness.cli.plan import plan_of
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.readiness import measure
    from resurgence_harness.selection import resolve_base, tasks_on

    check_device(device)
    on = resolved_device(device)
    pace = measure(resolve_base(base), tasks_on(base)[task], device=on)
    suite = str(files("resurgence_harness") / "suite")
    words = [f"--resurgence-base={base}", f"--resurgence-task={task}", f"--resurgence-profile={profile}"]
    cells = collected([suite, "-c", f"{suite}/suite.ini", *words])
    planned = plan_of(cells)
    if not planned.needed:
        return f"Everything that the {profile} run of {task} on {base} needs is in the store; it only decides."
    return (
        f"{len(cells.plans)} cells of the {profile} run of {task} on {base}: about {format_time(pace.of(planned))}"
        f" with one worker on {on}; an image takes {format_time(pace.seconds_per_image)} (measured in"
        f" {format_time(pace.took)}; training is assumed to scale alike)."
    )
