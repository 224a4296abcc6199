"""Measures conditions as rows of a table: models are built, sampled and judged through the bench, and hits counted.

A row is written as soon as it is measured, so that an interrupted run continues where it stopped. Processes share one
store, so artifacts that several conditions need are built once.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.examining import Examined, Laboratory, Rule, examine
from resurgence_harness.experiments.conditions import Condition
from resurgence_harness.planning import checkpoint_key
from resurgence_harness.process import signals
from resurgence_harness.selection import CellPlan
from resurgence_harness.specs import Base, Grid
from resurgence_harness.statistics import Evidence, Policy, Rate

if TYPE_CHECKING:
    from resurgence_harness.bench import Bench

ARMS = (
    "base",
    "before",
    "after",
    "base_retained",
    "retained_before",
    "retained_after",
    "synonyms_before",
    "synonyms_after",
    "incidental_before",
    "incidental_after",
)
"""Rates in the tables, in the order of the columns of the committed files."""
ASKED = ("experiment", "task", "method", "concepts", "finetuning", "run", "benign", "benign_images", "steps")
"""The columns that identify the condition of a row."""
COLUMNS = (*ASKED, *(f"{arm}_{what}" for arm in ARMS for what in ("hits", "images")), "outcome", "verdict")

_COUNTED = (
    "concepts",
    "run",
    "benign_images",
    "steps",
    *(name for name in COLUMNS if name.endswith(("_hits", "_images"))),
)

Row = dict[str, str]
"""A line of the CSV, by column."""


class Place(NamedTuple):
    """The store, base and device of a process."""

    store: str
    base: Base
    device: str


def label(experiment: str, condition: Condition) -> Row:
    """The columns that identify this condition."""
    plan = condition.plan
    control = not plan.unlearned.steps
    tuning = None if condition.again else plan.finetuning
    return {
        "experiment": experiment,
        "task": plan.cell.task,
        "method": "none (base)" if control else plan.cell.method,
        "concepts": str(plan.cell.count),
        "finetuning": "none (other seeds)" if tuning is None else plan.cell.finetuning,
        "run": str(plan.cell.run),
        "benign": "" if tuning is None else condition.benign,
        "benign_images": "" if tuning is None else str(len(tuning.data)),
        "steps": "" if tuning is None else str(tuning.steps),
    }


def measure(bench: Bench, condition: Condition) -> Row:
    """The counts of one condition, and the verdict by the default policy."""
    if condition.first is not None:
        bench.checkpoint(condition.first)
    if condition.again:
        return _compared_with_itself(bench, condition)
    examined = _examined(bench, condition)
    evidence, verdict = examined.evidence, examined.verdict
    rates = {name: Rate.of(arm) for name, arm in evidence.arms()}
    erased = evidence.after.concepts
    for name, arm in (("before", evidence.retained_before), ("after", evidence.retained_after)):
        if arm is not None:
            rates[f"incidental_{name}"] = Rate.of_answers(arm, erased)
    outcome = verdict.outcome.value if verdict.outcome is not None and condition.plan.unlearned.steps else ""
    return {**_counts(rates), "outcome": outcome, "verdict": verdict.kind.value}


def _examined(bench: Bench, condition: Condition) -> Examined[CellPlan]:
    from resurgence_harness.judging import judge_by_name

    plan = condition.plan
    judges = [judge_by_name(name) for name in plan.judges]
    laboratory = Laboratory(
        bench_of=lambda recipe: bench, judges=judges, effect=lambda inquiry: bench.losses(plan.tuned)
    )
    return examine(plan, Rule(policy=Policy.for_task(plan.cell.task)), laboratory)


def _compared_with_itself(bench: Bench, condition: Condition) -> Row:
    """A/A: the unlearned model on the cell's seeds and on as many others, without a verdict."""
    from resurgence_harness.judging import judge_by_name

    plan = condition.plan
    judge = judge_by_name(plan.judges[0])
    seeds = plan.erased.probe.seeds
    moved = replace(plan.erased.probe, seeds=tuple(seed + max(seeds) for seed in seeds))
    arms = {"before": plan.erased, "after": replace(plan.erased, probe=moved)}
    rates = {name: Rate.of(_whole(bench, condition, grid, judge)) for name, grid in arms.items()}
    return {**_counts(rates), "outcome": "", "verdict": ""}


def _whole(bench: Bench, condition: Condition, grid: Grid, judge: object) -> Evidence:
    plan = condition.plan
    parts = [bench.evidence(plan.unlearned, grid.part(number), judge) for number in range(grid.blocks)]  # type: ignore[arg-type]
    return Evidence.joined(parts, parts[0].design)


def _counts(rates: Mapping[str, Rate]) -> Row:
    row: Row = {}
    for arm in ARMS:
        rate = rates.get(arm)
        row[f"{arm}_hits"] = "" if rate is None else str(rate.hits)
        row[f"{arm}_images"] = "" if rate is None else str(rate.images)
    return row


def read(path: Path) -> list[Row]:
    """The rows in a file, empty if there is no file; UserError for a file that was not written by this version."""
    if not path.is_file():
        return []
    away = "Give another folder with --to, or move the file away."
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if tuple(lines.fieldnames or ()) != COLUMNS:
                columns = ", ".join(lines.fieldnames or ())[:120]
                raise UserError(sentence(f"{path} is not a table of this version.", columns=columns, do=away))
            rows = [row for row in lines if row["verdict"] is not None]
    except UserError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(sentence(f"{path} cannot be read as a table.", reason=error, do=away)) from None
    for row in rows:
        odd = next((name for name in _COUNTED if row[name] and not row[name].isdecimal()), None)
        if odd is not None:
            raise UserError(sentence(f"{path} has an invalid count.", column=odd, value=shown(row[odd]), do=away))
    return rows


def run(
    experiment: str,
    conditions: Sequence[Condition],
    place: Place,
    path: Path,
    *,
    jobs: int,
    progress: Callable[[int, int, Row], None],
) -> list[Row]:
    """Measure the conditions missing from the file, append them, and return all rows in the conditions' order.

    UserError if the file cannot be read or written. `progress(done, total, row)` is called after each condition.
    """
    known = {_name(row): row for row in read(path)}
    wanted = {_name(label(experiment, one)): one for one in conditions}
    missing = [one for name, one in wanted.items() if name not in known]
    done = len(wanted) - len(missing)
    new = not path.is_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a", newline="", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            sentence(f"{path} cannot be written.", reason=reason, do="Give another folder with --to.")
        ) from None
    with opened as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            table.writeheader()
        for row in _measured(experiment, missing, place, jobs=jobs):
            table.writerow(row)
            file.flush()
            known[_name(row)] = row
            done += 1
            progress(done, len(wanted), row)
    return [known[name] for name in wanted]


def held(experiment: str, conditions: Iterable[Condition], path: Path) -> list[Row]:
    """The rows of these conditions that are in the file, in their order."""
    known = {_name(row): row for row in read(path)}
    names = dict.fromkeys(_name(label(experiment, one)) for one in conditions)
    return [known[name] for name in names if name in known]


def _measured(experiment: str, conditions: Sequence[Condition], place: Place, *, jobs: int) -> Iterator[Row]:
    if jobs == 1:
        for one in conditions:
            yield _row(experiment, one, place)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # A fork after torch was imported would inherit its thread locks, and CUDA does not work after a fork.
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_share_cores, initargs=(threads,)) as pool:
        waiting = [pool.submit(_row, experiment, one, place) for one in _apart(conditions)]
        try:
            for row in as_completed(waiting):
                yield row.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            signals.end_children()
            raise


def _apart(conditions: Iterable[Condition]) -> list[Condition]:
    """Conditions with the same unlearned model far apart, so that processes do not wait for one build."""
    seen: Counter[str] = Counter()
    turns = []
    for one in conditions:
        build = checkpoint_key(one.first or one.plan.unlearned)
        turns.append((seen[build], one))
        seen[build] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]


def _share_cores(threads: int) -> None:
    """Limit threads before torch is imported: with more threads than cores, processes mostly wait for one another."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    signals.for_worker()


_BENCHES: dict[Place, Bench] = {}
"""The benches of this process: a base is loaded once."""


def _row(experiment: str, condition: Condition, place: Place) -> Row:
    from resurgence_harness.bench import Bench
    from resurgence_harness.storing import Store

    if place not in _BENCHES:
        _BENCHES[place] = Bench(Store(place.store), base_location=place.base, device=place.device)
    return {**label(experiment, condition), **measure(_BENCHES[place], condition)}


def _name(row: Row) -> tuple[str, ...]:
    return tuple(row[column] for column in ASKED)
