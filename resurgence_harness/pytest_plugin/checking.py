"""Checks base, store, limits, names, prompts and judges before any worker starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resurgence_harness.diffusion.devices import check_device, slow_on
from resurgence_harness.diffusion.texts import check_texts
from resurgence_harness.examining import WrittenPrompts, check_prompts
from resurgence_harness.pytest_plugin.engine import Engine
from resurgence_harness.pytest_plugin.options import Options
from resurgence_harness.specs import Base
from resurgence_harness.tasks import Task
from resurgence_harness.watching import Recorder


class Checked(NamedTuple):
    """Results of the checks before any worker starts."""

    base: Base
    notes: tuple[str, ...]
    """Sources of prompts that are written out in full, how many of them the base's tokenizer truncates, and settings
    that were resolved automatically."""


def check(options: Options, tasks: Sequence[Task], suites: Sequence[Path]) -> Checked:
    """Find mistakes before any worker starts; nothing is stored.

    UserError for a base, store or limits file that cannot be used, an erased name in the fine-tuning data, a text that
    the base's tokenizer cannot represent, a judge with missing weights or without a label for a name, missing prompts.
    """
    from resurgence_harness.judging import check_different, check_names
    from resurgence_harness.selection import cells
    from resurgence_harness.storing import check_readable, check_usable

    engine = Engine(options, progress=Recorder())
    for suite in suites:
        engine.limits(suite)
    check_device(options.device)
    if options.no_build:
        check_readable(engine.store)
    else:
        check_usable(options.store)
    base = engine.base
    notes = list(options.notes)
    drawn: set[str] = set()
    for task in tasks:
        plans = [engine.plan(cell, task) for cell in cells(task, options.selection)]
        for plan in plans:
            for suite in suites if plan.stages else ():
                engine.rule(plan, suite)
        names = tuple(dict.fromkeys(name for plan in plans for name in plan.names))
        benign = [prompt for plan in plans if plan.benign is not None for prompt in plan.benign.prompts]
        notes += _notes(task, check_prompts(plans, base, also=benign))
        for name in task.judges:
            judge = engine.judge(name)
            _ = judge.digest  # raises UserError if weights are missing and not pinned
            check_names(judge, names)
        check_different([engine.judge(name) for name in task.judges])
        drawn |= {plan.erased.probe.sampler.arithmetic for plan in plans}
    notes += filter(None, (slow_on(options.device, arithmetic) for arithmetic in sorted(drawn)))
    notes += _caption_notes(options, base)
    return Checked(base, tuple(notes))


def _caption_notes(options: Options, base: Base) -> list[str]:
    """Check the captions of given fine-tuning data with the base's tokenizer; a note on truncated ones."""
    if options.selection.data is None:
        return []
    captions = sorted({row.caption for row in options.selection.data.rows})
    cut, room = check_texts(Path(base.location), captions, may_be_cut=frozenset(captions))
    if not cut:
        return []
    return [
        f"Fine-tuning data: {cut} of {len(captions)} different captions are longer than the {room} tokens that the "
        "base reads and are truncated."
    ]


def _notes(task: Task, read: WrittenPrompts) -> list[str]:
    """Notes about prompts that are written out in full."""
    source = "" if isinstance(task.written, tuple) else task.written.describe()
    notes = [f"Prompts of {task.name}: {source}"] if source else []
    if read.cut:
        notes.append(
            f"Prompts of {task.name}: {read.cut} of {read.written} are longer than the {read.room} tokens that the "
            "base reads and are truncated."
        )
    return notes
