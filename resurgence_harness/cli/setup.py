"""`resurgence setup`: from nothing to the first verdict on a base, one stage after the other.

    fetch         base, judges' weights, prompts: licence agreed to once, your own files converted
    calibrate     pictures are drawn, a person labels them, the judge's answers are counted
    check         as `resurgence doctor`
    verdict       one cell, or the model that you unlearned

Every stage looks at what is there already: run the command again after an interruption, and it goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resurgence_harness.cli.fetch import asked, paths_given, show_plan
from resurgence_harness.cli.formatting import format_time
from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.process import ExitCode, one_line

if TYPE_CHECKING:
    from resurgence_harness.readiness import Requirement

OUT = Path("reports/setup")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("setup", epilog=one_line())(setup_command)


def setup_command(
    base: Annotated[str, typer.Option(metavar="NAME|DIR", help="micro, sd14, sd21, owner/name@<commit>, a directory.")],
    task: Annotated[str, typer.Option(help="celebrity, copyright, unsafe, object …")],
    unlearned: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]MODEL", help="Judge this model; default: one unlearned by UCE.")
    ] = None,
    concepts: Annotated[Path | None, typer.Option(metavar="FILE", help="What --unlearned erased, one a line.")] = None,
    agree: Annotated[
        list[str] | None, typer.Option(metavar="LICENCE", help="Agree to a licence by its name; asked for otherwise.")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--from", metavar="NAME=PATH", help="Prepare this from a file or folder.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Calibrate the deciding judge even if it has a calibration.")
    ] = False,
    pictures: Annotated[int, typer.Option(metavar="N", help="Pictures to label for each judge.")] = 300,
    by: Annotated[str, typer.Option(metavar="ROLE", help="The labeller's role, no name: photo editor.")] = "labeller",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="GROUP.NAME=VALUE", help="Change a preset value.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to put pictures and reports.")] = OUT,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device for the models.")] = "auto",
    store: Annotated[
        str | None, typer.Option("--store", "--resurgence-store", metavar="DIR|URL", help="Default: the user's cache.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser for the labels.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what every stage would do.")] = False,
) -> None:
    """Go from nothing to the first verdict: fetch, calibrate, check, judge. Resumable; exits as the verdict does."""
    from resurgence_harness.judging import judge_by_name, parts_of
    from resurgence_harness.library.calibrations import task_named
    from resurgence_harness.readiness import requirements

    paths = paths_given(given or ())
    if unlearned and concepts is None:
        first = "--unlearned needs the list of what was erased from it."
        raise UserError(sentence(first, do="Give it with --concepts FILE, one concept a line."))
    chosen = task_named(task, base)
    minutes: dict[str, float] = {}
    with _stage("fetch", minutes):
        _fetch(base, requirements(base, task), paths, agree or [], dry_run=dry_run)
    with _stage("calibrate", minutes):
        names = [part.name for judge in chosen.judges for part in parts_of(judge_by_name(judge))]
        for place, name in enumerate(dict.fromkeys(names)):
            folder = out / f"calibration-{name}"
            _calibrate(
                base,
                task,
                name,
                folder,
                anyway=calibrate and place == 0,
                pictures=pictures,
                by=by,
                unlearned=unlearned or [],
                concepts=concepts,
                settings=settings or [],
                device=device,
                store=store,
                browser=browser,
                dry_run=dry_run,
            )
    with _stage("check", minutes):
        if not dry_run:
            _check(base, task)
    with _stage("verdict", minutes):
        words = _cells(base, task, unlearned or [], concepts, settings or [])
        print(f"  {' '.join(word.removeprefix('--resurgence-') for word in words)}")
        code = ExitCode.DONE if dry_run else _judge(words, out=out, device=device, store=store)
    if not dry_run:
        print(f"\nTime: {', '.join(f'{name} {format_time(seconds)}' for name, seconds in minutes.items())}")
        print(f"The report: resurgence report --from {out}; a whole suite: pytest suites/{shown(task)}")
    raise typer.Exit(code)


@contextmanager
def _stage(name: str, minutes: dict[str, float]) -> Iterator[None]:
    print(f"\n{name}", flush=True)
    begun = time.perf_counter()
    yield
    minutes[name] = time.perf_counter() - begun


def _fetch(
    base: str, needed: tuple[Requirement, ...], paths: dict[str, Path], agree: list[str], *, dry_run: bool
) -> None:
    from resurgence_harness.fetching import Agreements, Hub, fetch, items_named, plan, prepare
    from resurgence_harness.readiness import State

    commands = {
        one.command.removeprefix("resurgence fetch "): one
        for one in needed
        if one.state is not State.READY and one.kind in ("base", "weights", "prompts")
    }
    unknown = [one for word, one in commands.items() if word == one.command]
    if unknown and not dry_run:
        first = f"{unknown[0].name} is missing, and `resurgence fetch` cannot get it."
        raise UserError(sentence(first, look_for=unknown[0].about, do=unknown[0].command))
    for one in unknown:
        print(f"  {one.name}: {one.about}. {one.command}")
    wanted = [word for word, one in commands.items() if one not in unknown]
    if not wanted:
        print("  everything is here")
        return
    items = items_named([*(f"{word}" for word in wanted)])
    steps = plan([item for item in items if item.name not in paths], Hub())
    if dry_run:
        show_plan(steps, prepared=[(item, paths[item.name]) for item in items if item.name in paths])
        return
    for item in items:
        if item.name in paths:
            print(f"  {prepare(item, paths[item.name])}")
    ask = asked if sys.stdin.isatty() else None
    fetch(steps, Hub(), agreements=Agreements.here(), agreed=agree, ask=ask, tell=lambda text: print(f"  {text}"))


def _calibrate(
    base: str,
    task: str,
    judge: str,
    folder: Path,
    *,
    anyway: bool,
    pictures: int,
    by: str,
    unlearned: list[str],
    concepts: Path | None,
    settings: list[str],
    device: str,
    store: str | None,
    browser: bool,
    dry_run: bool,
) -> None:
    from resurgence_harness.cli.calibration import counted_and_kept
    from resurgence_harness.cli.label import label
    from resurgence_harness.judging import calibrated_by_name
    from resurgence_harness.judging.calibrating import origin_of
    from resurgence_harness.labelling import PictureSet, Session
    from resurgence_harness.library.calibrations import drawn, wish_for

    one = calibrated_by_name(judge)
    missing = [weights for weights in one.given if not weights.place.exists()]
    counts = {} if missing else one.calibration()
    if counts and not anyway:
        known = sum(each.subjects + each.others for each in counts.values())
        print(f"  {judge}: calibrated on {origin_of(one) or f'{known:,} answers, by those who made it'}")
        return
    if dry_run:
        print(f"  {judge}: draw {pictures} pictures into {folder}, label them as {by}, count and keep its answers")
        return
    wish = wish_for(
        base=base,
        task=task,
        judge=judge,
        pictures=pictures,
        unlearned=unlearned,
        concepts=concepts,
        changed=settings,
        store=store,
    )
    found: PictureSet = drawn(wish, folder, device=device, store=store)
    session = Session(found, by)
    whole = [file for file in (session.file, *session.others) if len(file.labels) == len(found.pictures)]
    if not whole:
        if not sys.stdin.isatty():  # nobody is there to label: CI would wait for ever
            raise UserError(
                sentence(
                    f"The pictures for judge {judge} are not labelled yet.",
                    labelled=f"{len(session.file.labels)} of {len(found.pictures)}",
                    do=f'Label them: resurgence label {folder} --by "{by}"; then run this command again.',
                )
            )
        label(session, browser=browser)
        if len(session.file.labels) < len(found.pictures):
            raise UserError(
                sentence(
                    f"{len(session.file.labels)} of {len(found.pictures)} pictures are labelled; all are needed.",
                    do="Run this command again: it goes on with the rest.",
                )
            )
    counted_and_kept(found, device=device)


def _check(base: str, task: str) -> None:
    from resurgence_harness.cli.doctor import show_requirements
    from resurgence_harness.readiness import State, requirements

    found = requirements(base, task)
    show_requirements(found)
    if lacking := [one for one in found if one.state is not State.READY]:
        raise HarnessError(
            sentence(
                f"{lacking[0].name} is still {lacking[0].state} after it was set up.",
                about=lacking[0].about,
                do=lacking[0].command,
            )
        )


def _cells(base: str, task: str, unlearned: list[str], concepts: Path | None, settings: list[str]) -> list[str]:
    """The options of the run: the given models, or one cell."""
    from resurgence_harness.library.suites import stressed

    words = [f"--resurgence-base={base}", f"--resurgence-task={task}", "--resurgence-finetune=lora"]
    words += [f"--resurgence-set={one}" for one in settings]
    if not unlearned:
        return [*words, "--resurgence-methods=uce", "--resurgence-counts=1"]
    models = stressed(unlearned, finetune="lora", steps=None).models
    return [
        *words,
        *(f"--resurgence-unlearned={name}={model}" for name, model in models.items()),
        f"--resurgence-concepts={concepts}",
    ]


def _judge(words: list[str], *, out: Path, device: str, store: str | None) -> ExitCode:
    from resurgence_harness.library.given import options
    from resurgence_harness.library.suites import run_suite

    return run_suite([*options(device=device, store=store), "-n", "0", *words], out=out)
