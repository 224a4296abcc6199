"""The gate's commands.

resurgence gate --candidate X [--unlearned Y] [--base Z] --task celebrity --concepts erased.txt
resurgence gate --demo
resurgence policy init | check FILE… | schema
resurgence baseline record --from reports/gate/verdict.json --reason … --owner … --expires 2027-06-30
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.gate import OUT
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.process.unforeseen import keep_in

policy_app = typer.Typer(help="Write and check the policy of a gate.", no_args_is_help=True)
baseline_app = typer.Typer(help="Record accepted results, for review.", no_args_is_help=True)

Model = Annotated[
    str | None,
    typer.Option(metavar="DIR|FILE|NAME", help="The unlearned model that the candidate was fine-tuned from."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", "--resurgence-store", metavar="DIR|URL", help="Default: $RESURGENCE_STORE, else ~/.cache/resurgence."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("gate", epilog=one_line())(gate_command)
    app.add_typer(policy_app, name="policy")
    app.add_typer(baseline_app, name="baseline")


def gate_command(
    context: typer.Context,
    candidate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|FILE|NAME[=WEIGHT]",
            help="The model to be published; repeat it for LoRAs on top: --candidate style.safetensors=0.8.",
        ),
    ] = None,
    unlearned: Model = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="The published model: micro, sd14, owner/name@<commit> …")
    ] = None,
    task: Annotated[str | None, typer.Option(help="celebrity, copyright, unsafe, object …")] = None,
    concepts: Annotated[Path | None, typer.Option(metavar="FILE", help="Erased concepts, one per line.")] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Files may contain only some layers, as ESD and UCE save them; the other layers are the parent's.",
        ),
    ] = False,
    retained: Annotated[Path | None, typer.Option(metavar="FILE", help="Concepts that must be retained.")] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="A policy; see `resurgence policy init`.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the reports.")] = OUT,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Device for the models.")] = "auto",
    store: StoreOption = None,
    log: Annotated[
        list[str] | None, typer.Option(metavar="mlflow|wandb", help="Also log the verdict to an experiment tracker.")
    ] = None,
    model_card_pr: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Open a pull request on the hub with the model card's section."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Sample and judge everything anew, and replace what the store has.")
    ] = False,
    workers: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that sample and judge on a CPU, with one thread each. auto: one per core, at most 4.",
        ),
    ] = "auto",
    demo: Annotated[bool, typer.Option("--demo", help="Run four candidates on the embedded microworld.")] = False,
) -> None:
    """Test whether a fine-tuned checkpoint is safe to publish: erased concepts stay erased, retained ones are kept."""
    if not demo:
        from resurgence_harness.library.gating import release

        delivery = release(
            candidate=candidate,
            unlearned=unlearned,
            base=base,
            task=task,
            concepts=concepts,
            retained=retained,
            policy=policy,
            partial=partial,
            out=out,
            store=store,
            device=device,
            fresh=fresh,
            workers=workers,
            log=log or (),
            model_card_pr=model_card_pr,
        )
        raise typer.Exit(delivery.code)
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.gate import out_lock, running
    from resurgence_harness.gate.workers import read_workers
    from resurgence_harness.storing import default_root

    folders = running.folders(out, demo=True)
    context.with_resource(out_lock.held(folders))
    for folder in folders:
        running.remove_stale_outputs(folder)
    number = read_workers(workers)
    check_device(device)
    keep_in(out)
    given: dict[str, object] = {"--candidate": candidate, "--unlearned": unlearned, "--base": base, "--task": task}
    given |= {"--concepts": concepts, "--retained": retained, "--policy": policy, "--fresh": fresh}
    given |= {"--log": log, "--model-card-pr": model_card_pr, "--partial": partial}
    also = [name for name, value in given.items() if value]
    if also:
        raise UserError(sentence(f"--demo takes no {also[0]}.", do="Leave it out: the demo has its own models."))
    raise typer.Exit(_demo(out, store or default_root(), resolved_device(device), workers=number))


def _demo(out: Path, store: str, device: str, *, workers: int | None) -> ExitCode:
    """Run the gate on four candidates; exit code 12 if a verdict is not the expected one."""
    from resurgence_harness.bench import Bench
    from resurgence_harness.gate import demo, running
    from resurgence_harness.gate.asking import Gate
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.gate.models import prepare
    from resurgence_harness.gate.release_policy import resolve
    from resurgence_harness.library.gating import console, show
    from resurgence_harness.storing import Store, check_writable
    from resurgence_harness.tasks import TASKS
    from resurgence_harness.watching import watched

    check_writable(store)
    demo_store = Store(store)
    for one in demo.CANDIDATES:
        running.make(out / one.name)
    with demo_store.here.writing():
        paths = demo.build(Bench(demo_store, device=device), Path(demo_store.root) / "demo", print)
    screen, odd, delivery = console(), [], Delivery(ExitCode.DONE)
    for one in demo.CANDIDATES:
        policy = resolve(demo.policy(one), Path.cwd(), tasks=TASKS)
        candidate, parent = [str(paths[one.name])], str(paths["unlearned"])
        print(f"\n{one.name}: {one.why}.")
        models = prepare(candidate, unlearned=parent, base="micro", folder=Path.cwd(), store=Path(demo_store.root))
        models = replace(models, label=paths[one.name].name)
        if models.audit is not None:
            print(f"Weight audit: {models.audit.description}")
        gate = Gate(policy, models, store=demo_store, device=device, workers=workers)
        with watched(gate.cells) as view:
            gate.watch(view)
            found, sheets = running.run(gate, progress=lambda group, record: None)
        delivery.part(partial(running.write, found, out / one.name, models, sheets))
        delivery.part(partial(show, found, screen))
        verdicts = [cell["verdict"] for cell in found["cells"]]
        if verdicts != [one.expected]:
            odd.append(f"{one.name}: expected {one.expected}, got {', '.join(verdicts) or 'no verdict'}")
    print(
        f"\nReports: {out}/<candidate>/. The gate on other models: resurgence gate --candidate … --unlearned … --base …"
    )
    for line in odd:
        print(f"resurgence: the demo gave an unexpected verdict: {line}", file=sys.stderr)
    return ExitCode.HARNESS_ERROR if odd else delivery.code


@policy_app.command("init")
def policy_init_command(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write it.")] = Path("policy.yaml"),
) -> None:
    """Write a commented policy file, and its schema for editors beside it; an existing policy is not overwritten."""
    from resurgence_harness.gate.schemas import SCHEMAS
    from resurgence_harness.reporting.file_set import write_set

    text = (files("resurgence_harness.gate") / "policy-template.yaml").read_text(encoding="utf-8")
    _write_new(to, text)
    name = SCHEMAS["policy"]
    write_set(to.parent, {name: (files("resurgence_harness.gate") / name).read_bytes()})
    print(f"Written: {to}, and {name} for editors.")
    print(f"Name the erased concepts in it, then: resurgence gate --policy {to} --candidate …")


@policy_app.command("check")
def policy_check_command(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Policies, limits and acceptances files.")],
) -> None:
    """Check policies, limits and acceptances without a run, for example before a commit; exit code 4 for a mistake."""
    from resurgence_harness.gate.schemas import check_file

    wrong = 0
    for path in paths:
        try:
            print(f"{path}: {check_file(path)}")
        except UserError as error:
            wrong += 1
            print(f"resurgence: {error}", file=sys.stderr)
    raise typer.Exit(ExitCode.USER_ERROR if wrong else ExitCode.DONE)


@policy_app.command("schema")
def policy_schema_command(
    kind: Annotated[str, typer.Argument(metavar="policy|limits", help="The kind of file.")] = "policy",
) -> None:
    """Print the JSON schema of policies, or of limits and acceptances files, for editors."""
    from resurgence_harness.gate.schemas import SCHEMAS

    if kind not in SCHEMAS:
        raise UserError(sentence(f"There is no schema {shown(kind)}.", known=", ".join(SCHEMAS), do="Name one."))
    print((files("resurgence_harness.gate") / SCHEMAS[kind]).read_text(encoding="utf-8"), end="")


@baseline_app.command("record")
def baseline_record_command(
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="The verdict.json of a gate.")],
    reason: Annotated[str, typer.Option(help="Why the results are accepted.")] = "",
    owner: Annotated[str, typer.Option(help="The role that is responsible for the acceptance.")] = "",
    expires: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The last day on which it is valid.")] = "",
    to: Annotated[Path, typer.Option(metavar="FILE", help="The acceptances file.")] = Path("acceptances.yaml"),
) -> None:
    """Record the results beyond the limits as accepted ceilings, for review. Not possible in CI."""
    from resurgence_harness.gate import baseline
    from resurgence_harness.limits.acceptances import read_day
    from resurgence_harness.statistics.policies import day_in_utc

    if os.environ.get("CI", "").strip():
        raise UserError(
            sentence(
                "A baseline cannot be recorded in CI, where every regression would be accepted automatically.",
                CI=shown(os.environ["CI"]),
                do="Record it on a developer's machine, and have the file reviewed.",
            )
        )
    reason, owner, expires = (
        _given(name, value) for name, value in (("reason", reason), ("owner", owner), ("expires", expires))
    )
    try:
        until = read_day(expires)
    except ValueError as problem:
        raise UserError(
            sentence(f'--expires is "{shown(expires)}": {problem}.', do="Give a day such as 2027-06-30.")
        ) from None
    if until < day_in_utc():
        raise UserError(sentence(f"--expires is {until}, which is in the past.", do="Give a future day."))
    entries = baseline.entries(source, reason=reason, owner=owner, expires=until)
    if not entries:
        print("Every cell holds: there is nothing to accept.")
        return
    baseline.record(to, entries)
    for entry in entries:
        print(f"{entry['method']}-{entry['count']}-{entry['finetuning']}: {baseline.describe(entry)}")
    print(f"Written: {to}. Name it in the policy: `acceptances: {to.name}`, and have it reviewed.")


def _given(name: str, value: str) -> str:
    """An option's value; an interactive terminal prompts for a missing one. UserError if it is empty."""
    if not value.strip() and sys.stdin.isatty():
        value = str(typer.prompt(name))
    if not value.strip():
        raise UserError(sentence(f"An acceptance has no {name}.", do=f"Give --{name}."))
    return value.strip()


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(sentence(f"{path} exists already.", do="Give another path with --to.")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            sentence(f"{shown(str(path))} cannot be written.", reason=reason, do="Give another path with --to.")
        ) from None


def _store(given: str | None) -> str:
    from resurgence_harness.storing import default_root

    return given or default_root()
