"""`resurgence stress`: does a model that was unlearned elsewhere survive being fine-tuned?

resurgence stress --unlearned ./my-erased --base sd14 --task celebrity --concepts erased.txt --finetune lora,full
resurgence stress --demo

It runs the suite in `resurgence_harness/stress` with pytest, in this process, so cells, store, limits, acceptances and
reports are those of any suite; settings files and conftest.py of the working directory are not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.errors import UserError, sentence, shown
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
    own = ["--resurgence-device", device, *_value("--resurgence-store", store), "-n", str(workers)]
    own += ["--resurgence-fresh"] * fresh
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
        from resurgence_harness.stress import demo as shown_demo

        def suite(options: Sequence[str]) -> ExitCode:
            return _run([*own, *options], out)

        raise typer.Exit(shown_demo.run(suite, out=out, store=store, device=device))
    for name, value in (("--unlearned", unlearned), ("--base", base), ("--concepts", concepts)):
        if not value:
            raise UserError(
                sentence(
                    f"resurgence stress needs {name}.",
                    do="Give --unlearned MODEL --base NAME --concepts FILE; --demo shows an example.",
                )
            )
    own += [f"--resurgence-unlearned={word}" for word in named(unlearned or ())]
    own += [f"--resurgence-base={base}", f"--resurgence-task={task}", f"--resurgence-concepts={concepts}"]
    own += [f"--resurgence-finetune={finetune}", *_steps(steps, finetune)]
    own += [f"--resurgence-set={one}" for one in settings or ()]
    for option, one in (("methods", methods), ("data", data), ("limits", limits), ("seeds", seeds), ("engine", engine)):
        own += _value(f"--resurgence-{option}", one)
    own += ["--resurgence-partial"] * partial
    raise typer.Exit(_run(own, out))


def named(words: Sequence[str]) -> list[str]:
    """NAME=MODEL for every model; one given without a name has that of its file or folder."""
    found = []
    for word in words:
        name, equals, rest = word.partition("=")
        if equals and re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) and not _number(rest):
            found.append(word)
            continue
        model = word.rpartition("=")[0] if _number(word.rpartition("=")[2]) and "=" in word else word
        stem = Path(model.partition("@")[0].rstrip("/")).name.removesuffix(".safetensors")
        stem = stem or Path(model).resolve().name
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem, flags=re.ASCII).strip("-_")[:40]
        found.append(f"{name or 'given'}={word}")
    return found


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _steps(text: str | None, finetune: str) -> list[str]:
    """The options for these steps: every fine-tuning ends with the last. UserError unless they are rising numbers."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    numbers = [int(part) if part.isascii() and part.isdecimal() else 0 for part in parts]
    if min(numbers) < 1 or numbers != sorted(set(numbers)):
        raise UserError(
            sentence(
                f"The steps {shown(text)} are not rising.", do="Give rising whole numbers of 1 or more: --steps 20,100."
            )
        )
    lengths = [f"--resurgence-set={one.strip()}.steps={numbers[-1]}" for one in finetune.split(",") if one.strip()]
    return [f"--resurgence-steps={','.join(map(str, numbers))}", *lengths]


def _value(option: str, value: object) -> list[str]:
    return [] if value is None else [f"{option}={value}"]


def _run(options: Sequence[str], out: Path) -> ExitCode:
    """Run the suite of this package with pytest, and return its exit code."""
    import pytest

    from resurgence_harness import stress

    folder = Path(stress.__file__).parent
    shown = ["--no-header", "--tb=no", "-rN", "--disable-warnings"]
    alone = ["-p", "no:cacheprovider", "-p", "no:randomly", "--import-mode=importlib", *shown]
    where = ["-c", str(folder / "stress.ini"), f"--rootdir={folder}", f"--confcutdir={folder}"]
    code = pytest.main([str(folder / "test_stress.py"), *where, *alone, f"--resurgence-out={out}", *options])
    known = {int(one): one for one in ExitCode}
    return known.get(int(code), ExitCode.HARNESS_ERROR)  # pytest's own 3 and 5: it failed, or collected nothing
