"""`resurgence stress`: does a model that was unlearned elsewhere survive being fine-tuned?

resurgence stress --unlearned ./my-erased --base sd14 --task celebrity --concepts erased.txt --finetune lora,full
resurgence stress --demo

It runs the suite in `resurgence_harness/suite` with pytest, in this process, so cells, store, limits, acceptances and
reports are those of any suite; settings files and conftest.py of the working directory are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.process import ExitCode, one_line

OUT = Path("reports/stress")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("stress", epilog=one_line())(stress_command)


def stress_command(
    unlearned: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR|FILE|HUB[=WEIGHT]",
            help="The unlearned model: a directory, a file of weights, a LoRA with its weight. Repeat it to compare.",
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="The published model: micro, sd14, owner/name@<commit> …")
    ] = None,
    task: Annotated[str, typer.Option(help="celebrity, copyright, unsafe, object …")] = "celebrity",
    concepts: Annotated[Path | None, typer.Option(metavar="FILE", help="Erased concepts, one per line.")] = None,
    finetune: Annotated[str, typer.Option(metavar="A,B", help="Fine-tunings: lora, full, xattn.")] = "lora",
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="N,M",
            help="Rising fine-tuning steps at which the model is tested; the last is the length of the training.",
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Built-in methods to compare with, on the same concepts.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Files may contain only some layers; the other layers are the base's.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fine-tune on these images; default: images the base draws.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(metavar="FILE", help="Limits and acceptances, as a suite's.")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Image seeds per prompt in the grid.")] = None,
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="sequential, fixed or hybrid.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="GROUP.NAME=VALUE", help="Change a preset value.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the reports.")] = OUT,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device for the models.")] = "auto",
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            "--resurgence-store",
            metavar="DIR|URL",
            help="Default: $RESURGENCE_STORE, else the user's cache.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("-n", "--workers", metavar="N", help="Processes; 0: this one alone.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make everything anew, and replace what the store has.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Run an eraser that survives and one that does not, on the microworld.")
    ] = False,
) -> None:
    """Test whether an unlearned model stays unlearned when it is fine-tuned: a verdict per fine-tuning, and a curve."""
    from resurgence_harness.library import stress_demo
    from resurgence_harness.library.given import options
    from resurgence_harness.library.suites import run_suite, stressed

    place = options(device=device, store=store, fresh=fresh)

    def suite(given: Sequence[str]) -> ExitCode:
        return run_suite([*place, "-n", str(workers), *given], out=out)

    if demo:
        given: dict[str, object] = {
            "--unlearned": unlearned,
            "--base": base,
            "--concepts": concepts,
            "--steps": steps,
            "--data": data,
        }
        given |= {"--methods": methods, "--limits": limits, "--set": settings, "--partial": partial, "--seeds": seeds}
        also = [name for name, value in given.items() if value]
        if also:
            raise UserError(sentence(f"--demo takes no {also[0]}.", do="Leave it out: the demo has its own models."))
        raise typer.Exit(stress_demo.run(suite, out=out, store=store, device=device))
    for name, value in (("--unlearned", unlearned), ("--base", base), ("--concepts", concepts)):
        if not value:
            first = f"resurgence stress needs {name}."
            do = "Give --unlearned MODEL --base NAME --concepts FILE; --demo shows an example."
            raise UserError(sentence(first, do=do))
    tested = stressed(unlearned or (), finetune=finetune, steps=steps)
    changed = [f"--resurgence-set={name}={value}" for name, value in tested.lengths.items()]
    changed += [f"--resurgence-set={one}" for one in settings or ()]
    chosen = options(
        unlearned=tested.models,
        base=base,
        task=task,
        concepts=concepts,
        finetune=finetune,
        steps=steps,
        methods=methods,
        data=data,
        limits=limits,
        seeds=seeds,
        engine=engine,
        partial=partial,
    )
    raise typer.Exit(suite([*chosen, *changed]))
