"""The paper's tables and figures as lists of conditions: models, fine-tuning data and prompts.

    table-1     every task × method at the paper's concept count → fine-tuning
    table-3     UCE → LoRA, full, cross-attention only
    table-4     erased objects in images that ask for retained ones, 3 and 5 classes erased
    figure-9    concept counts (and Appendix E)
    figure-16   ESD by the parameters that it trains
    appendix-j  size of the benign set × steps of fine-tuning, as intermediate checkpoints of one training
    domains     content of the benign set
    controls    the same fine-tuning on the base itself; an unlearned model compared with itself on other seeds

A condition is a cell's plan, possibly with another fine-tuning; every arm has a fixed number of images: on a real base
the paper's (objects 600 for three classes, copyright 30, celebrities 250 to 2,500), as `--resurgence-profile paper`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, NamedTuple

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning import BenignSet
from resurgence_harness.presets import SEVEN, preset_of
from resurgence_harness.selection import BENIGN_SEED, CellPlan, Selection, plan_cell, tasks_of
from resurgence_harness.specs import Base, Cell, Probe, Prompt, Recipe
from resurgence_harness.tasks import Task
from resurgence_harness.tasks.microworld import SCENES

HEADLINE = {"celebrity": (10, 100), "copyright": (1,), "unsafe": (4,), "object": (3,)}
"""Concept counts of Table 1. For celebrities it mixes 100 names (UCE, ESD, SDD, MACE) and 10 (the others)."""
LOADED = {"uce": "full"}
"""Methods whose fine-tuning in Table 1 is not LoRA (inferred from the authors' data)."""
SIZES, STEPS = (25, 100, 250, 2500), (5, 10, 20, 50, 100, 200, 500, 1000)
"""Appendix J: images of the benign set, and optimiser steps."""
CURVES = (("celebrity", "mace", 10), ("celebrity", "esd", 10), ("celebrity", "salun", 10))
"""Cells of appendix-j: the paper's own (MACE, ten names) and two with resurgence on the microworld."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One row of a table."""

    plan: CellPlan
    benign: str = "in domain"
    """Content of the fine-tuning's images."""
    first: Recipe | None = None
    """A longer training that saves this one's model as an intermediate checkpoint: built first."""
    again: bool = False
    """Whether the unlearned model is compared with itself, on other seeds."""


class Experiment(NamedTuple):
    """A table or figure of the paper."""

    name: str
    title: str
    conditions: Callable[[Base, int], Iterator[Condition]]
    """(base, runs) → the conditions that are measured."""


def experiment_named(name: str) -> Experiment:
    """The experiment with this name; UserError if there is none."""
    if name not in EXPERIMENTS:
        raise UserError(
            sentence(
                f'There is no experiment "{name}".',
                known=", ".join(EXPERIMENTS),
                do="Name a table, figure or appendix of the paper that is in this list.",
            )
        )
    return EXPERIMENTS[name]


def _plan(
    base: Base, task: Task, method: str, count: int, finetuning: str, run: int, *changed: tuple[str, Any]
) -> CellPlan:
    cell = Cell(task=task.name, method=method, count=count, finetuning=finetuning, run=run)
    return plan_cell(cell, base, task=task, selection=_selection(base, changed))


def _selection(base: Base, changed: tuple[tuple[str, Any], ...]) -> Selection:
    """On a real base the paper's numbers of images (profile "paper"); on the microworld those of profile "quick"."""
    profile = "quick" if preset_of(base) == "micro" else "paper"
    return Selection(profile=profile, engine="fixed", changed=changed)


def _table_1(base: Base, runs: int) -> Iterator[Condition]:
    for task in tasks_of(base).values():
        for count in HEADLINE.get(task.name, task.quick[-1:]):
            for method in SEVEN:
                for run in range(runs):
                    yield Condition(plan=_plan(base, task, method, count, LOADED.get(method, "lora"), run))


def _table_3(base: Base, runs: int) -> Iterator[Condition]:
    for count in (1, 10):
        for finetuning in ("lora", "full", "xattn"):
            for run in range(runs):
                yield Condition(plan=_plan(base, tasks_of(base)["celebrity"], "uce", count, finetuning, run))


def _table_4(base: Base, runs: int) -> Iterator[Condition]:
    for count in (3, 5):
        for method in SEVEN:
            for run in range(runs):
                yield Condition(
                    plan=_plan(base, tasks_of(base)["object"], method, count, LOADED.get(method, "lora"), run)
                )


def _figure_9(base: Base, runs: int) -> Iterator[Condition]:
    for name in ("celebrity", "object"):
        for count in tasks_of(base)[name].counts:
            for method in SEVEN:
                for run in range(runs):
                    yield Condition(plan=_plan(base, tasks_of(base)[name], method, count, "lora", run))


def _figure_16(base: Base, runs: int) -> Iterator[Condition]:
    for name in ("celebrity", "copyright"):
        for method in ("esd", "esd-all", "esd-u", "esd-strict"):
            for run in range(runs):
                yield Condition(plan=_plan(base, tasks_of(base)[name], method, 1, "lora", run))


def _appendix_j(base: Base, runs: int) -> Iterator[Condition]:
    for name, method, count in CURVES:
        for size in SIZES:
            seeds = max(1, size // len(tasks_of(base)[name].preserve))
            names = size // seeds
            for run in range(runs):
                sized = (("benign.names", names), ("benign.seeds", seeds))
                plan = _plan(base, tasks_of(base)[name], method, count, "lora", run, *sized, ("lora.steps", STEPS[-1]))
                whole = plan.unlearned.then(replace(plan.finetuning, save_at=STEPS[:-1]))
                for steps in STEPS:
                    tuned = plan.unlearned.then(plan.finetuning.at(steps))
                    yield Condition(plan=replace(plan, tuned=tuned), first=whole)


def _domains(base: Base, runs: int) -> Iterator[Condition]:
    for method in ("esd", "salun", "mace"):
        for run in range(runs):
            plan = _plan(base, tasks_of(base)["celebrity"], method, 10, "lora", run)
            drawn = plan.finetuning.data
            assert isinstance(drawn, BenignSet)
            yield Condition(plan=plan)
            erased = [concept.name for concept in tasks_of(base)["celebrity"].erase(10)]
            for content, prompts in _benign_sets(base, erased):
                probe = _as_many(drawn.probe, prompts)
                tuning = replace(plan.finetuning, data=BenignSet(probe=probe, forbidden=drawn.forbidden))
                yield Condition(plan=replace(plan, benign=probe, tuned=plan.unlearned.then(tuning)), benign=content)


def _benign_sets(base: Base, erased: Sequence[str]) -> Iterator[tuple[str, tuple[Prompt, ...]]]:
    """(content, prompts) of out-of-domain sets, and of people with and without a name in common with an erased one.

    The paper bins names by CLIP's text similarity to the erased ones; here a shared first or last name replaces it.
    """
    parts, people = {part for name in erased for part in name.split()}, tasks_of(base)["celebrity"]
    near = [concept for concept in people.preserve if parts & set(concept.name.split())]
    far = [concept for concept in people.preserve if concept not in near]
    for content, concepts in (("people who share a name", near), ("people who share none", far)):
        if concepts:
            yield content, people.retained_prompts(tuple(concepts), least=1)
    for content, task in (("objects", tasks_of(base)["object"]), ("characters", tasks_of(base)["copyright"])):
        yield content, task.retained_prompts((*task.preserve, *task.held_out), least=1)
    things = tasks_of(base)["object"].preserve + tasks_of(base)["object"].held_out
    painted = zip(things, cycle(("a sketch of a {}", "an oil painting of a {}")), strict=False)
    yield "art", tuple(Prompt(text=medium.format(one.name), concept=one.name) for one, medium in painted)
    if preset_of(base) == "micro":
        yield "scenes", tuple(Prompt(text=scene, concept=scene) for scene in SCENES)


def _as_many(like: Probe, prompts: Sequence[Prompt]) -> Probe:
    """A probe of these prompts with about as many images as `like`."""
    seeds = max(1, round(len(like) / len(prompts)))
    return replace(like, prompts=tuple(prompts), seeds=tuple(range(BENIGN_SEED, BENIGN_SEED + seeds)))


def _controls(base: Base, runs: int) -> Iterator[Condition]:
    published = Recipe(base)
    for task in tasks_of(base).values():
        count = task.quick[-1]
        for run in range(runs):
            plan = _plan(base, task, "uce", count, "lora", run)
            yield Condition(plan=replace(plan, unlearned=published, tuned=published.then(plan.finetuning)))
            for method in ("uce", "esd"):
                plan = _plan(base, task, method, count, "lora", run)
                yield Condition(plan=replace(plan, tuned=plan.unlearned), again=True)


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        Experiment("table-1", "Table 1: erased concepts before and after fine-tuning", _table_1),
        Experiment("table-3", "Table 3: UCE by what the fine-tuning trains", _table_3),
        Experiment("table-4", "Table 4: erased objects drawn where retained ones were asked for", _table_4),
        Experiment("figure-9", "Figure 9 and Appendix E: by number of erased concepts", _figure_9),
        Experiment("figure-16", "Figure 16: ESD by the parameters that it trains", _figure_16),
        Experiment("appendix-j", "Appendix J: by benign images and steps of fine-tuning", _appendix_j),
        Experiment("domains", "In-domain and out-of-domain benign images", _domains),
        Experiment("controls", "The same fine-tuning on the base; a model compared with itself", _controls),
    )
}
"""The experiments of `resurgence paper`, by name."""
