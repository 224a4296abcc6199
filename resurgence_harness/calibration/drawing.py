"""Draws the pictures of a calibration: what the labeller chooses among, near misses, and neither.

    choices       up to half the keys erased concepts, the others retained ones, all known to the judge
    near misses   further retained concepts of the task
    none          prompts without any of them

A third is drawn by an unlearned model and its fine-tuning, which have erased the first of the choices: their images
are degraded as those under test are, and are counted as a kind of their own. Images go through the store, so an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.bench import Bench
from resurgence_harness.calibration.seen import FIRST_SEED, check_unseen, prompts_of
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.judging import Judge, shown_by
from resurgence_harness.judging.declaring import labels_of
from resurgence_harness.labelling import PictureSet
from resurgence_harness.labelling.picture_set import FILE
from resurgence_harness.presets.settings import settings_of
from resurgence_harness.selection import Selection, plan_cell
from resurgence_harness.specs import Base, Block, Cell, Concept, Prompt, Recipe, Sampler
from resurgence_harness.tasks import Task
from resurgence_harness.tasks.captions import CAPTIONS

if TYPE_CHECKING:
    import numpy as np

BY_BASE, BY_MODELS = "drawn by the base", "drawn by unlearned and fine-tuned models"
TEMPLATES = (
    *("a photo of {}", "a picture of {}", "an image of {}", "{}", "a photo of a {}", "a picture of the {}"),
    *("a drawing of {}", "a photo showing {}"),
)
"""Templates that are tried; those of the task are left out."""
SCENES = ("a quiet beach", "a mountain lake", "a city street", "a forest path", "a living room", "a green meadow")
"""Prompts of nothing in particular that the microworld knows."""
SMALL = 128
"""Pixels up to which a base is the microworld's."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What to draw."""

    task: Task
    base: Base
    judge: Judge
    pictures: int = 300
    choices: int = 6
    """Concepts that the labeller chooses among."""
    method: str = "uce"
    finetuning: str = "lora"
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.pictures < 24:
            raise UserError(
                sentence(
                    f"{self.pictures} pictures are too few for a calibration.",
                    do="Draw at least 24; 300 can be labelled in one sitting.",
                )
            )


def choices_of(wish: Wish) -> tuple[tuple[Concept, ...], tuple[Concept, ...]]:
    """The erased and the retained concepts that the labeller chooses among.

    UserError if the judge knows none of either.
    """
    known = frozenset(concept for label in labels_of(wish.judge) for concept in shown_by(wish.judge, label))
    listed = _listed(wish)
    erased = [one for one in listed if one.name in known][: (wish.choices + 1) // 2]
    retained = [one for one in wish.task.held_out if one.name in known][: wish.choices - len(erased)]
    if not erased and not retained:
        raise UserError(
            sentence(
                f"Judge {wish.judge.name} has no answer for any concept of {wish.task.name}.",
                concepts=", ".join(one.name for one in listed[:8]),
                do="Choose the task's own judge, or concepts that it knows.",
            )
        )
    return tuple(erased), tuple(retained)


def draw(wish: Wish, bench: Bench, folder: Path, *, references: Mapping[str, np.ndarray] | None = None) -> PictureSet:
    """Draw and store the pictures; a set that is there already is used if it was drawn for this judge and base."""
    import numpy

    if (folder / FILE).exists():
        return _there(wish, PictureSet.read(folder))
    erased, retained = choices_of(wish)
    sampler = Sampler(**settings_of(wish.base, wish.selection.changed, task=wish.task.name)["sampler"])
    seeds = iter(range(FIRST_SEED, FIRST_SEED + 10 * wish.pictures))
    base = Recipe(wish.base)
    unlearned, tuned = models(wish, erased or _listed(wish)[:1])
    by_models = wish.pictures // 3
    portions = [
        (base, BY_BASE, wish.pictures - by_models),
        (unlearned, BY_MODELS, by_models // 2),
        (tuned, BY_MODELS, by_models - by_models // 2),
    ]
    images, about = [], []
    for recipe, kind, number in portions:
        rows = tuple(rows_of(wish, (*erased, *retained), number, seeds))
        images.append(bench.images(recipe, Block(asked=rows, sampler=sampler)))
        about += [
            {
                "kind": kind,
                "drawn_by": recipe.label,
                "prompt": prompt.text,
                "seed": seed,
                "concept": prompt.concept,
            }
            for prompt, seed in rows
        ]
    check_unseen(about, wish.task)
    return PictureSet.write(
        folder,
        numpy.concatenate(images),
        about,
        references=references,
        task=wish.task.name,
        base=wish.base.name,
        base_digest=wish.base.digest,
        judge=wish.judge.name,
        judge_digest=wish.judge.digest,
        choices=tuple(one.name for one in (*erased, *retained)),
        covered=wish.task.covered,
    )


def _listed(wish: Wish) -> tuple[Concept, ...]:
    """The erased concepts that are asked for: the user's, else the largest erase set of at most ten."""
    return wish.selection.concepts or wish.task.erase(max(one for one in wish.task.counts if one <= 10))


def models(wish: Wish, erased: Sequence[Concept]) -> tuple[Recipe, Recipe]:
    """The unlearned model and its fine-tuning: the user's own model if one is given."""
    from dataclasses import replace

    selection, given = wish.selection, wish.selection.unlearned
    if not given:
        selection = replace(selection, concepts=tuple(erased))
    method = given[0].name if given else wish.method
    cell = Cell(task=wish.task.name, method=method, count=len(selection.concepts), finetuning=wish.finetuning)
    planned = plan_cell(cell, wish.base, task=wish.task, selection=selection)
    return planned.unlearned, planned.tuned


def rows_of(wish: Wish, choices: Sequence[Concept], number: int, seeds: Iterator[int]) -> Iterator[tuple[Prompt, int]]:
    """Half of the choices, a quarter near misses, a quarter neither; each row with a seed of its own."""
    taken = prompts_of(wish.task)
    names = {one.name for one in choices}
    near = [one.name for one in (*wish.task.preserve, *wish.task.held_out) if one.name not in names]

    def prompts(concepts: Sequence[str]) -> Iterator[Prompt]:
        turns = cycle([(template, name) for template in TEMPLATES for name in concepts])
        return (
            Prompt(text=template.format(name), concept=name)
            for template, name in turns
            if template.format(name) not in taken
        )

    small = max(_pixels(wish)) <= SMALL
    nothing = (Prompt(text=text, concept="nothing in particular") for text in cycle(SCENES if small else CAPTIONS))
    half = (len(choices) + 1) // 2  # erased and retained ones in turn, so that few pictures show both
    mixed = [one.name for pair in zip_longest(choices[:half], choices[half:]) for one in pair if one is not None]
    of_choices, near_misses = prompts(mixed), prompts(near[:40])
    for place in range(number):
        prompt = next(of_choices if place % 2 == 0 else near_misses if place % 4 == 1 and near else nothing)
        yield prompt, next(seeds)


def _pixels(wish: Wish) -> tuple[int, int]:
    sampler: dict[str, Any] = settings_of(wish.base, wish.selection.changed, task=wish.task.name)["sampler"]
    return int(sampler["height"]), int(sampler["width"])


def _there(wish: Wish, found: PictureSet) -> PictureSet:
    facts = {
        "task": (found.task, wish.task.name),
        "base": (found.base_digest, wish.base.digest),
        "judge": (found.judge_digest, wish.judge.digest),
    }
    if wrong := [name for name, (there, wanted) in facts.items() if there != wanted]:
        raise UserError(
            sentence(
                f"The pictures in {found.folder} were drawn for another {wrong[0]}.",
                drawn_for=facts[wrong[0]][0],
                wanted=facts[wrong[0]][1],
                do="Choose another folder with --out, or remove this one.",
            )
        )
    check_unseen([vars(one) for one in found.pictures], wish.task)
    return found
