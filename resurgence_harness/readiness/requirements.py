"""What a verdict on a task and a base needs, whether it is here, and the command that gives it. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from shlex import quote

from resurgence_harness.diffusion.hub import is_name, locate
from resurgence_harness.errors import ResurgenceError, UserError, sentence, shown
from resurgence_harness.fetching.catalogue import item_of
from resurgence_harness.judging import Judge, judge_by_name, parts_of
from resurgence_harness.judging.calibrating import origin_of
from resurgence_harness.selection import tasks_on
from resurgence_harness.specs import EMBEDDED
from resurgence_harness.tasks import Task


class State(StrEnum):
    """Whether a requirement is met."""

    READY = "ready"
    MISSING = "missing"
    WRONG = "wrong"
    """Here, but not usable."""
    WAITING = "later"
    """Cannot be looked at before another one is met."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One thing that is needed."""

    kind: str
    """base, prompts, weights or calibration."""
    name: str
    state: State
    about: str = ""
    """What was found, or what is wrong."""
    command: str = ""
    """What gives it; empty if it is ready."""


def requirements(base: str, task: str) -> tuple[Requirement, ...]:
    """Everything that a verdict on this task and base needs; UserError for an unknown task."""
    tasks = tasks_on(base)
    if task not in tasks:
        raise UserError(
            sentence(f'There is no task "{shown(task)}" on {shown(base)}.', known=", ".join(tasks), do="Name one.")
        )
    chosen = tasks[task]
    return (_base(base), *_prompts(chosen), *(one for name in chosen.judges for one in _judge(name, base, task)))


def _base(base: str) -> Requirement:
    if base in EMBEDDED:
        return Requirement(kind="base", name=base, state=State.READY, about="ships with the package")
    try:
        found = locate(base)
    except UserError as problem:
        wrong = "not the published" in str(problem)
        return Requirement(
            kind="base",
            name=base,
            state=State.WRONG if wrong else State.MISSING,
            about=str(problem).splitlines()[0],
            command=f"resurgence fetch {quote(base)}",
        )
    if not found.directory.exists():
        fetched = is_name(base, found.directory.parent)
        command = f"resurgence fetch {quote(base)}" if fetched else "Give an existing directory."
        return Requirement(kind="base", name=base, state=State.MISSING, about=str(found.directory), command=command)
    return Requirement(kind="base", name=base, state=State.READY, about=f"{found.source}, {found.verified}")


def _prompts(task: Task) -> Iterator[Requirement]:
    """The user's copy of published prompts, if the task reads one."""
    if not task.written or isinstance(task.written, tuple):
        return
    try:
        about = task.written.describe()
    except UserError as problem:
        first = str(problem).splitlines()[0]
        state = State.MISSING if "missing" in first else State.WRONG
        yield Requirement(kind="prompts", name="i2p", state=state, about=first, command="resurgence fetch i2p")
        return
    yield Requirement(kind="prompts", name="i2p", state=State.READY, about=about)


def _judge(name: str, base: str, task: str) -> Iterator[Requirement]:
    judge = judge_by_name(name)
    present = True
    for weights in judge.given:
        item = item_of(weights)
        command = f"resurgence fetch {item.name}" if item is not None else f"Put it at {weights.place}"
        if item is not None and weights.package:
            command = item.search
        if not weights.place.exists():
            present = False
            about = weights.source or "the user's"
            yield Requirement(kind="weights", name=weights.file, state=State.MISSING, about=about, command=command)
            continue
        try:
            weights.verified()
        except UserError as problem:
            present = False
            about = str(problem).splitlines()[0]
            yield Requirement(kind="weights", name=weights.file, state=State.WRONG, about=about, command=command)
        else:
            yield Requirement(kind="weights", name=weights.file, state=State.READY, about=str(weights.place))
    for part in parts_of(judge):
        yield _calibration(part, base, task, present=present)


def _calibration(judge: Judge, base: str, task: str, *, present: bool) -> Requirement:
    command = f"resurgence calibration draw --base {quote(base)} --task {quote(task)} --judge {judge.name}"
    if not present:
        return Requirement(
            kind="calibration", name=judge.name, state=State.WAITING, about="needs the weights first", command=command
        )
    try:
        counts = judge.calibration()
    except ResurgenceError as problem:
        about = str(problem).splitlines()[0]
        return Requirement(kind="calibration", name=judge.name, state=State.WRONG, about=about, command=command)
    if not counts:
        return Requirement(
            kind="calibration", name=judge.name, state=State.MISSING, about="decides nothing without", command=command
        )
    pictures = sum(one.subjects + one.others for one in counts.values())
    about = origin_of(judge) or f"{pictures:,} answers counted, {', '.join(counts)}"
    return Requirement(kind="calibration", name=judge.name, state=State.READY, about=about)
