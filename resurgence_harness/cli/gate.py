"""The gate's commands.

resurgence gate --candidate X [--unlearned Y] [--base Z] --task celebrity --concepts erased.txt
resurgence gate --demo
resurgence policy init
resurgence baseline record --from reports/gate/verdict.json --reason … --owner … --expires 2027-06-30
"""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resurgence_harness import gate as gate_package
from resurgence_harness.cli.progress_bar import shown_progress
from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.process import ExitCode, one_line
from resurgence_harness.process.unforeseen import keep_in

if TYPE_CHECKING:
    from rich.console import Console

    from resurgence_harness.gate.asking import Gate
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.gate.models import Models
    from resurgence_harness.gate.release_policy import ReleasePolicy
    from resurgence_harness.storing import Store

OUT = Path("reports/gate")
policy_app = typer.Typer(help="Write the file that says what would be enough.", no_args_is_help=True)
baseline_app = typer.Typer(help="Record what is accepted, for review.", no_args_is_help=True)

Model = Annotated[str | None, typer.Option(metavar="DIR|FILE|NAME", help="The unlearned model that it was tuned from.")]
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
            help="What is to be published; repeat it for LoRAs on top: --candidate style.safetensors=0.8.",
        ),
    ] = None,
    unlearned: Model = None,
    base: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="The published model: micro, sd14, owner/name@<commit> …")
    ] = None,
    task: Annotated[str | None, typer.Option(help="celebrity, copyright, unsafe, object …")] = None,
    concepts: Annotated[Path | None, typer.Option(metavar="FILE", help="Erased concepts, one a line.")] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Files may cover some layers only, as ESD and UCE save them; the rest is the parent's."
        ),
    ] = False,
    retained: Annotated[Path | None, typer.Option(metavar="FILE", help="Concepts that must survive.")] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="A policy; see `resurgence policy init`.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the reports are written.")] = OUT,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where models run.")] = "auto",
    store: StoreOption = None,
    log: Annotated[
        list[str] | None, typer.Option(metavar="mlflow|wandb", help="Log the verdict to an experiment tracker, too.")
    ] = None,
    model_card_pr: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Propose the model card's section to the hub as a pull request."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Draw and judge everything anew, whatever the store has, and replace it.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Show four candidates on the embedded microworld.")] = False,
) -> None:
    """Is this fine-tuned checkpoint safe to publish? Did an erased concept come back, and is the model still useful?"""
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.gate import out_lock, running, sharing
    from resurgence_harness.gate.inputs import read_inputs, read_models, read_policy
    from resurgence_harness.reporting import tracking
    from resurgence_harness.storing import Store

    folders = running.folders(out, demo=demo)
    context.with_resource(out_lock.held(folders))
    for folder in folders:
        running.remove_stale_outputs(folder)  # whatever this run ends with, what lies there is not of it
    given: dict[str, object] = {"--candidate": candidate, "--unlearned": unlearned, "--base": base, "--task": task}
    given |= {"--concepts": concepts, "--retained": retained, "--policy": policy}
    given |= {"--log": log, "--model-card-pr": model_card_pr, "--partial": partial}
    check_device(device)
    place, on = _store(store), resolved_device(device)
    if demo:
        keep_in(out)
        also = [name for name, value in {**given, "--fresh": fresh}.items() if value]
        if also:
            raise UserError(sentence(f"--demo takes no {also[0]}.", do="Leave it out: the demo brings its own models."))
        raise typer.Exit(_demo(out, place, on))
    running.check_summary(out)
    tracking.check(log or ())
    keep_in(out)
    inputs = read_inputs(policy, candidate=candidate, unlearned=unlearned, base=base, partial=partial)
    found = read_policy(inputs, task=task, concepts=concepts, retained=retained)
    run_word = uuid.uuid4().hex if fresh else ""
    models = read_models(inputs, store=place, run=run_word)
    gate = prepared(found, models, out=out, store=Store(place, run=run_word), device=on)
    with sharing.open_sharing(log=log or (), repo=model_card_pr, title=models.label, folder=out) as shared:
        run, written, delivery = judge(gate, out=out)
        shared.share(run, written, delivery)
    raise typer.Exit(delivery.code)


def prepared(policy: ReleasePolicy, models: Models, *, out: Path, store: Store, device: str) -> Gate:
    """A gate that can be asked, and what is known before that told; its folder is there."""
    from resurgence_harness.gate import running
    from resurgence_harness.gate.asking import Gate

    for note in models.notes:
        print(f"Lineage: {note}")
    for one in models.differences:
        print(f"Differs from its parent: {one}")
    if models.audit is not None:
        print(f"Weight audit: {models.audit.description}")
    for left in policy.stale:
        print(left)
    gate = Gate(policy, models, store=store, device=device)
    running.make(out)
    return gate


def judge(gate: Gate, *, out: Path) -> tuple[dict[str, Any], list[Path], Delivery]:
    """Draw, judge, write every report and show it; gives the content of verdict.json, every file, and the code so far.

    The files come first, and each part that follows is tried by itself.
    """
    from resurgence_harness.gate import running
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.reporting import job_summary

    with shown_progress(gate.set_progress):
        found, sheets = running.run(gate, progress=lambda group, record: None)
    delivery = Delivery(ExitCode(found["exit_code"]))
    written = delivery.part(lambda: running.write(found, out, gate.models, sheets)) or []
    delivery.part(lambda: show(found, _console()))
    if written:
        print(f"Written: {', '.join(str(path) for path in written if path.name not in sheets)}")
    delivery.part(lambda: job_summary.append(found))
    for line in job_summary.workflow_commands(found):
        print(line)
    return found, written, delivery


def show(run: dict[str, Any], console: Console) -> None:
    """The table, the reasons, and what the exit code says."""
    from rich.text import Text

    from resurgence_harness.reporting import closing

    for line in closing.gate_lines(run):
        console.print(Text.assemble(*((text, closing.RICH[style]) for text, style in line)), soft_wrap=True)


def _demo(out: Path, store: str, device: str) -> ExitCode:
    """Four candidates, four answers; 12 if one of them is not the expected one."""
    from resurgence_harness.bench import Bench
    from resurgence_harness.gate import demo, running
    from resurgence_harness.gate.asking import Gate
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.gate.models import prepare
    from resurgence_harness.gate.release_policy import resolve
    from resurgence_harness.storing import Store, check_writable
    from resurgence_harness.tasks import TASKS

    check_writable(store)
    demo_store = Store(store)
    for one in demo.CANDIDATES:
        running.make(out / one.name)
    with demo_store.here.writing():
        paths = demo.build(Bench(demo_store, device=device), Path(demo_store.root) / "demo", print)
    console, odd, delivery = _console(), [], Delivery(ExitCode.DONE)
    for one in demo.CANDIDATES:
        policy = resolve(demo.policy(one), Path.cwd(), tasks=TASKS)
        words, parent = [str(paths[one.name])], str(paths["unlearned"])
        print(f"\n{one.name}: {one.why}.")
        models = prepare(words, unlearned=parent, base="micro", folder=Path.cwd(), store=Path(demo_store.root))
        models = replace(models, label=paths[one.name].name)
        if models.audit is not None:
            print(f"Weight audit: {models.audit.description}")
        gate = Gate(policy, models, store=demo_store, device=device)
        with shown_progress(gate.set_progress):
            found, sheets = running.run(gate, progress=lambda group, record: None)
        delivery.part(partial(running.write, found, out / one.name, models, sheets))
        delivery.part(partial(show, found, console))
        said = [cell["verdict"] for cell in found["cells"]]
        if said != [one.expected]:
            odd.append(f"{one.name}: expected {one.expected}, got {', '.join(said) or 'no verdict'}")
    print(f"\nReports of each: {out}/<candidate>/. The same gate: resurgence gate --candidate … --unlearned … --base …")
    for line in odd:
        print(f"resurgence: the demonstration is not as it should be: {line}", file=sys.stderr)
    return ExitCode.HARNESS_ERROR if odd else delivery.code


@policy_app.command("init")
def policy_init_command(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where it is written.")] = Path("policy.yaml"),
) -> None:
    """Write a commented policy file; one that is there is left as it is."""
    text = Path(gate_package.__file__).with_name("policy-template.yaml").read_text(encoding="utf-8")
    _write_new(to, text)
    print(f"Written: {to}. Say which concepts were erased, then: resurgence gate --policy {to} --candidate …")


@baseline_app.command("record")
def baseline_record_command(
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="The verdict.json of a gate.")],
    reason: Annotated[str, typer.Option(help="Why it is accepted.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it: a role.")] = "",
    expires: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="The last day on which it counts.")] = "",
    to: Annotated[Path, typer.Option(metavar="FILE", help="The acceptances file.")] = Path("acceptances.yaml"),
) -> None:
    """Write the present results beyond the limits as accepted ceilings, for review. Never in CI."""
    from resurgence_harness.gate import baseline
    from resurgence_harness.limits.acceptances import read_day
    from resurgence_harness.statistics.policies import day_in_utc

    if os.environ.get("CI", "").strip():
        raise UserError(
            sentence(
                "A baseline is not recorded in CI, where every regression would accept itself.",
                CI=shown(os.environ["CI"]),
                do="Record it where a person decides, and put the file into review.",
            )
        )
    reason, owner, expires = (
        _said(name, value) for name, value in (("reason", reason), ("owner", owner), ("expires", expires))
    )
    try:
        until = read_day(expires)
    except ValueError as problem:
        raise UserError(
            sentence(f'--expires is "{shown(expires)}": {problem}.', do="Give a day such as 2027-06-30.")
        ) from None
    if until < day_in_utc():
        raise UserError(sentence(f"--expires is {until}, which is over.", do="Give a day to come."))
    entries = baseline.entries(source, reason=reason, owner=owner, expires=until)
    if not entries:
        print("Every cell holds: there is nothing to accept.")
        return
    baseline.record(to, entries)
    for entry in entries:
        print(f"{entry['method']}-{entry['count']}-{entry['finetuning']}: {baseline.describe(entry)}")
    print(f"Written: {to}. Name it in the policy: `acceptances: {to.name}`, and have it reviewed.")


def _said(name: str, value: str) -> str:
    """An option's value; asked for where a person sits at the terminal."""
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
        raise UserError(sentence(f"{path} is there already.", do="Give another path with --to.")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            sentence(f"{shown(str(path))} cannot be written.", reason=reason, do="Give another path with --to.")
        ) from None


def _store(given: str | None) -> str:
    from resurgence_harness.storing import default_root

    return given or default_root()


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=200, highlight=False)
