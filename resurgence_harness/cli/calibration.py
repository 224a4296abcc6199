"""`resurgence calibration`: pictures with known content for a judge, and the counts of its answers.

resurgence calibration draw --base sd14 --task celebrity
resurgence label reports/calibration --by "photo editor"
resurgence calibration count reports/calibration
resurgence calibration show | export JUDGE FILE | import FILE
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.label import FOLDER
from resurgence_harness.cli.tables import show

if TYPE_CHECKING:
    from resurgence_harness.calibration import Counted
    from resurgence_harness.labelling import PictureSet

calibration_app = typer.Typer(help="Calibrate a judge on pictures that a person labelled.", no_args_is_help=True)
Base = Annotated[str, typer.Option(metavar="NAME|DIR", help="The published model: micro, sd14 …")]
TaskName = Annotated[str, typer.Option("--task", help="celebrity, copyright, unsafe, object …")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device for models and judge.")]
Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The labelled pictures.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(calibration_app, name="calibration")


@calibration_app.command("draw")
def draw_command(
    base: Base = "micro",
    task: TaskName = "celebrity",
    judge: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the judge that decides the task.")] = None,
    pictures: Annotated[int, typer.Option(metavar="N", help="How many; 300 can be labelled in one sitting.")] = 300,
    unlearned: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]MODEL", help="Draw a third with this model; default: one unlearned by UCE."),
    ] = None,
    concepts: Annotated[Path | None, typer.Option(metavar="FILE", help="What --unlearned erased, one a line.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="GROUP.NAME=VALUE", help="Change a preset value.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put the pictures.")] = FOLDER,
    device: Device = "auto",
    store: Annotated[
        str | None, typer.Option("--store", "--resurgence-store", metavar="DIR|URL", help="Default: the user's cache.")
    ] = None,
) -> None:
    """Draw pictures to be labelled: with the base, and a third with an unlearned and fine-tuned model."""
    from resurgence_harness.library.calibrations import drawn, wish_for

    wish = wish_for(
        base=base,
        task=task,
        judge=judge,
        pictures=pictures,
        unlearned=unlearned or (),
        concepts=concepts,
        changed=settings or (),
        store=store,
    )
    found = drawn(wish, out, device=device, store=store)
    print(f"{format_count(len(found.pictures), 'picture')} in {out}. Next: resurgence label {out}")


@calibration_app.command("count")
def count_command(
    folder: Folder = FOLDER,
    device: Device = "auto",
    limits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The limits in force, as a suite's; default: the package's.")
    ] = None,
) -> None:
    """Ask the judge about the labelled pictures, count its answers, and keep them for every later verdict."""
    from resurgence_harness.labelling import PictureSet

    counted_and_kept(PictureSet.read(folder), device=device, limits=limits)


def counted_and_kept(pictures: PictureSet, *, device: str, limits: Path | None = None) -> Counted:
    """Count, keep and print."""
    from resurgence_harness.calibration import count, store
    from resurgence_harness.diffusion.devices import resolved_device
    from resurgence_harness.judging import calibrated_by_name
    from resurgence_harness.library.calibrations import task_named

    judge = calibrated_by_name(pictures.judge)
    counted = count(pictures, judge, task_named(pictures.task, pictures.base), device=resolved_device(device))
    path = store(judge, counted)
    _table(counted.counts)
    print(_account(counted, judge.name, pictures.task, limits))
    if judge.calibration() != counted.counts:
        print(
            f"Judge {judge.name} ships with a calibration of its own, which decides; this one is kept for the record."
        )
    print(f"Kept: {path}")
    return counted


@calibration_app.command("show")
def show_command(
    judge: Annotated[str | None, typer.Argument(metavar="[JUDGE]", help="Only this judge.")] = None,
) -> None:
    """List the judges' calibrations: counts, by whom and when."""
    from resurgence_harness.errors import ResurgenceError
    from resurgence_harness.judging import JUDGES, judge_by_name
    from resurgence_harness.judging.calibrating import origin_of

    for name in [judge] if judge else JUDGES:
        one = judge_by_name(name)
        try:
            counts = one.calibration()
        except ResurgenceError as problem:
            print(f"{name}: {str(problem).splitlines()[0]}")
            continue
        print(f"{name}: {f'calibrated on {made}' if (made := origin_of(one)) else '' if counts else 'not calibrated'}")
        if counts:
            _table(counts)


@calibration_app.command("export")
def export_command(
    judge: Annotated[str, typer.Argument(metavar="JUDGE")],
    to: Annotated[Path, typer.Argument(metavar="FILE", help="A new file: gcd-calibration.zip.")],
) -> None:
    """Write a judge's calibration to one file, for review and for other machines."""
    from resurgence_harness.calibration import export
    from resurgence_harness.judging import calibrated_by_name

    print(f"Written: {export(calibrated_by_name(judge), to)}")


@calibration_app.command("import")
def import_command(source: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a calibration and keep it, if it was made for the judge as it is on this machine."""
    from resurgence_harness.calibration import import_from
    from resurgence_harness.judging import calibrated_by_name
    from resurgence_harness.judging.calibrating import origin_of
    from resurgence_harness.tasks import PUBLISHED, TASKS

    content = import_from(source, calibrated_by_name, lambda name: {**TASKS, **PUBLISHED}.get(name))
    judge = calibrated_by_name(content["judge"])
    print(f"Kept for judge {judge.name}: {origin_of(judge) or 'its own calibration decides'}")


def _table(counts: object) -> None:
    from resurgence_harness.judging import Calibration

    assert isinstance(counts, dict)
    rows = [
        (kind, f"{one.recognised} of {one.subjects}", f"{one.false_alarms} of {one.others}")
        for kind, one in counts.items()
        if isinstance(one, Calibration)
    ]
    show("kind of picture", "recognised", "false alarms", rows=rows)


def _account(counted: Counted, judge: str, task: str, limits: Path | None) -> str:
    from resurgence_harness.limits.limits_file import Limits, load_limits
    from resurgence_harness.specs import Cell
    from resurgence_harness.statistics.calibration_size import account

    read = load_limits(limits) if limits is not None else Limits()
    policy = read.policy_for(Cell(task=task, method="uce", count=1, finetuning="lora"))
    return account(counted.accuracy, pictures=counted.pictures, judge=judge, delta=policy.delta, alpha=policy.alpha)
