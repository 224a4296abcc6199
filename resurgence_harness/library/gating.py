"""The release gate as a function, and the same for the command line: `release`."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.gate import OUT
from resurgence_harness.library.given import Names, as_files, models_listed
from resurgence_harness.library.results import Results, load
from resurgence_harness.process import ExitCode
from resurgence_harness.process.unforeseen import forget_folder, keep_in

if TYPE_CHECKING:
    from rich.console import Console

    from resurgence_harness.gate.asking import Gate
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.gate.models import Models
    from resurgence_harness.gate.release_policy import ReleasePolicy
    from resurgence_harness.storing import Store


def gate(
    candidate: str | Path | Sequence[str | Path],
    *,
    unlearned: str | Path | None = None,
    base: str | Path | None = None,
    task: str | None = None,
    concepts: Names = None,
    retained: Names = None,
    policy: str | Path | None = None,
    partial: bool = False,
    out: str | Path = OUT,
    store: str | None = None,
    device: str = "auto",
    fresh: bool = False,
    workers: int | str = 1,
) -> Results:
    """Test whether a fine-tuned checkpoint is safe to publish; the same as `resurgence gate`.

    `candidate`: a directory in diffusers' layout, a file, or a name on the hub; a sequence for LoRAs on top, each with
    an optional weight ("style.safetensors=0.8"). `concepts` and `retained`: names, or a file with one per line.
    `policy`: a policy file. All reports are written into `out`. `workers`: processes that sample and judge on a CPU, or
    "auto"; they import the caller's script, so with more than one its code is below `if __name__ == "__main__":`.
    UserError for a mistake in these; HarnessError if a
    report could not be written.
    """
    folder = Path(out)
    with as_files(concepts=concepts, retained=retained) as lists, _kept_apart():
        delivery = release(
            candidate=models_listed(candidate),
            unlearned=None if unlearned is None else str(unlearned),
            base=None if base is None else str(base),
            task=task,
            concepts=lists["concepts"],
            retained=lists["retained"],
            policy=None if policy is None else Path(policy),
            partial=partial,
            out=folder,
            store=store,
            device=device,
            fresh=fresh,
            workers=workers,
        )
    results = load(folder)
    if delivery.code is not results.exit_code:
        raise HarnessError(
            sentence(
                "The gate reached a verdict, and a report of it could not be written.", verdict=str(results.folder)
            )
        )
    return results


@contextmanager
def _kept_apart() -> Iterator[None]:
    """Without output, and without a folder for tracebacks afterwards: the caller's process goes on."""
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        forget_folder()


def release(
    *,
    candidate: list[str] | None,
    unlearned: str | None = None,
    base: str | None = None,
    task: str | None = None,
    concepts: Path | None = None,
    retained: Path | None = None,
    policy: Path | None = None,
    partial: bool = False,
    out: Path = OUT,
    store: str | None = None,
    device: str = "auto",
    fresh: bool = False,
    workers: int | str = 1,
    log: Sequence[str] = (),
    model_card_pr: str | None = None,
) -> Delivery:
    """Run a whole gate: remove earlier results, read the models, judge every group, write and print the reports."""
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.gate import out_lock, running, sharing
    from resurgence_harness.gate.inputs import read_inputs, read_models, read_policy
    from resurgence_harness.gate.workers import read_workers, start_early
    from resurgence_harness.reporting import tracking
    from resurgence_harness.storing import Store, default_root

    with out_lock.held([out]):
        running.remove_stale_outputs(out)  # a run that fails must not leave the reports of an earlier one
        number = read_workers(workers)
        check_device(device)
        place, on = store or default_root(), resolved_device(device)
        running.check_summary(out)
        tracking.check(log)
        keep_in(out)
        inputs = read_inputs(policy, candidate=candidate, unlearned=unlearned, base=base, partial=partial)
        found = read_policy(inputs, task=task, concepts=concepts, retained=retained)
        fresh_run = uuid.uuid4().hex if fresh else ""
        opened = Store(place, run=fresh_run)
        start_early(opened, device=on, number=number)
        models = read_models(inputs, store=place, run=fresh_run)
        ready = prepared(found, models, out=out, store=opened, device=on, workers=number)
        with sharing.open_sharing(log=log, repo=model_card_pr, title=models.label, folder=out) as shared:
            run, written, delivery = judge(ready, out=out)
            shared.share(run, written, delivery)
    return delivery


def prepared(
    policy: ReleasePolicy, models: Models, *, out: Path, store: Store, device: str, workers: int | None = 1
) -> Gate:
    """Print the notes on lineage, weights and acceptances, and return the gate, ready to run; creates `out`."""
    from resurgence_harness.gate import running
    from resurgence_harness.gate.asking import Gate, given_notes

    for note in models.notes:
        print(f"Lineage: {note}")
    for one in models.differences:
        print(f"Differs from its parent: {one}")
    if models.audit is not None:
        print(f"Weight audit: {models.audit.description}")
    for left in policy.stale:
        print(left)
    for note in given_notes(policy):
        print(note)
    gate = Gate(policy, models, store=store, device=device, workers=workers)
    running.make(out)
    return gate


def judge(gate: Gate, *, out: Path) -> tuple[dict[str, Any], list[Path], Delivery]:
    """Run the gate, write its reports and print the result.

    Returns the content of verdict.json, the files written, and the delivery with the exit code so far. The files are
    written first; a failure in one of the later parts does not stop the others.
    """
    from resurgence_harness.gate import running
    from resurgence_harness.gate.delivery import Delivery
    from resurgence_harness.reporting import job_summary
    from resurgence_harness.watching import watched

    with watched(gate.cells) as view:
        gate.watch(view)
        found, sheets = running.run(gate, progress=lambda group, record: None)
    delivery = Delivery(ExitCode(found["exit_code"]))
    written = delivery.part(lambda: running.write(found, out, gate.models, sheets)) or []
    delivery.part(lambda: show(found, console()))
    if written:
        print(f"Written: {', '.join(str(path) for path in written if path.name not in sheets)}")
    delivery.part(lambda: job_summary.append(found))
    for line in job_summary.workflow_commands(found):
        print(line)
    return found, written, delivery


def show(run: dict[str, Any], console: Console) -> None:
    """Print the table, the reasons and the meaning of the exit code."""
    from rich.text import Text

    from resurgence_harness.reporting import closing

    for line in closing.gate_lines(run):
        console.print(Text.assemble(*((text, closing.RICH[style]) for text, style in line)), soft_wrap=True)


def console() -> Console:
    """A console that invents no colours where there is no terminal, and breaks no line."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(width=200, highlight=False)
