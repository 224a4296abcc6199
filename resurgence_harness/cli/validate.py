"""`resurgence validate`: error rates, power and cost of the verdict's statistics, or a base's images in float16."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import resurgence_harness
from resurgence_harness.cli.arguments import StoreOption, open_store
from resurgence_harness.cli.formatting import format_time
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.process import ExitCode
from resurgence_harness.process.unforeseen import keep_in


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("validate")(validate_command)


def validate_command(
    full: Annotated[bool, typer.Option("--full", help="Ten thousand replicates instead of five hundred.")] = False,
    outcomes: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Also replay these outcomes (CSV: concept,prompt,seed,before,after); may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the random numbers.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="N", help="Number of processes.")] = 1,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write validate.txt and validate.csv (arithmetic.txt, .csv) there."),
    ] = None,
    arithmetic: Annotated[
        bool,
        typer.Option("--arithmetic", help="Instead: does float16 change what a judge says of a base's images?"),
    ] = False,
    base: Annotated[str, typer.Option(metavar="NAME|DIR", help="With --arithmetic: the published model.")] = "micro",
    task: Annotated[str, typer.Option(help="With --arithmetic: whose concepts are drawn.")] = "celebrity",
    judge: Annotated[str, typer.Option(metavar="NAME", help="With --arithmetic; default: the task's judge.")] = "",
    images: Annotated[int, typer.Option(metavar="N", help="With --arithmetic: images of each way.")] = 2500,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="sampler.NAME=VALUE", help="With --arithmetic.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="With --arithmetic: where to draw.")] = "auto",
    store: StoreOption = None,
) -> None:
    """Measure error rates, power and cost of the verdict's statistics. Needs no model.

    Exits with 12 if a number is outside what is allowed, or an engine that is wrong on purpose is not detected.

    With --arithmetic: draw the same images of a base in float32, in float32 with another batch, and in float16, and
    count the images whose hit changes. Exits with 0 if at most 1 % change in float16 (upper bound), with 12 if more do
    (lower bound), else with 10: also if the judge recognises too few of the base's images. docs/performance.md
    """
    if arithmetic:
        raise typer.Exit(_compare(base, task, judge, images, settings or [], device=device, store=store, to=to))
    from resurgence_harness import validation

    stored = {path.name.partition(".")[0]: validation.read(path) for path in outcomes or ()}
    into = None if to is None else validation.folder(to)
    if into is not None:
        keep_in(into)
    checks = validation.every_check(validation.FULL if full else validation.FAST, seed=seed, stored=stored)

    def progress(name: str, seconds: float, done: int) -> None:
        print(f"{done}/{len(checks)} {name}, {format_time(seconds)}", file=sys.stderr)

    rows = validation.run(checks, jobs=jobs, progress=progress)
    print(validation.as_text(rows), end="")
    if into is not None:
        head = f"$ {shlex.join(['resurgence', *sys.argv[1:]])}\nresurgence-harness {resurgence_harness.__version__}"
        print(f"Written: {', '.join(str(path) for path in validation.write(rows, into, head=head))}")
    if not validation.passed(rows):
        raise typer.Exit(ExitCode.HARNESS_ERROR)


def _compare(
    base: str,
    task: str,
    judge: str,
    images: int,
    settings: list[str],
    *,
    device: str,
    store: str | None,
    to: Path | None,
) -> ExitCode:
    """`validate --arithmetic`."""
    from resurgence_harness import validation
    from resurgence_harness.bench import Bench
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.experiments.arithmetic import compare, sampler_for
    from resurgence_harness.judging import check_ready, judge_by_name
    from resurgence_harness.presets import parse_change
    from resurgence_harness.selection import resolve_base, tasks_of

    check_device(device)
    into = None if to is None else validation.folder(to)
    if into is not None:
        keep_in(into)
    resolved = resolve_base(base)
    tasks = tasks_of(resolved)
    if task not in tasks:
        raise UserError(sentence(f'There is no task "{shown(task)}".', known=", ".join(tasks), do="Name one of these."))
    chosen = judge_by_name(judge or tasks[task].judges[0])
    check_ready(chosen, [concept.name for concept in tasks[task].erase(max(tasks[task].counts))])
    bench = Bench(open_store(store), base_location=resolved, device=resolved_device(device))

    def progress(done: int, total: int) -> None:
        print(f"{done}/{total} blocks", file=sys.stderr)

    found = compare(
        bench,
        resolved,
        tasks[task],
        chosen,
        sampler=sampler_for(resolved, map(parse_change, settings)),
        images=images,
        progress=progress,
    )
    print(found.text(), end="")
    if into is not None:
        head = f"$ {shlex.join(['resurgence', *sys.argv[1:]])}\nresurgence-harness {resurgence_harness.__version__}\n\n"
        for name, text in (("arithmetic.txt", head + found.text()), ("arithmetic.csv", found.csv())):
            (into / name).write_text(text, encoding="utf-8")
        print(f"Written: {into / 'arithmetic.txt'}, {into / 'arithmetic.csv'}")
    return found.answer.code
