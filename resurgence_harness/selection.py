"""Which cells are run, and what each needs: method × concept count × fine-tuning × run becomes recipes and probes.

    selection = Selection(methods=("esd",), counts=(10,))
    for cell in cells(CELEBRITY, selection):
        plan = plan_cell(cell, base, task=CELEBRITY, selection=selection)      plan.tuned, plan.erased, …

The names of methods and profiles, and the values of their steps, are defined in `presets/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple, TypeVar

from resurgence_harness.erase_list import erasing
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning import (
    FINETUNINGS,
    BenignSet,
    DreamBooth,
    FineTuning,
    GivenSet,
    ImageFolder,
    TrainingData,
)
from resurgence_harness.presets import (
    METHODS,
    PROFILES,
    FromTask,
    OwnPictures,
    PerPreserved,
    Profile,
    Settings,
    check_names,
    check_size,
    image_of,
    preset_of,
    settings_for,
    settings_of,
)
from resurgence_harness.presets.lives import check_lives, closed, erasures
from resurgence_harness.presets.stepping import missing_values
from resurgence_harness.specs import EMBEDDED, Base, Cell, Concept, Grid, Life, Probe, Prompt, Recipe, Sampler, Stage
from resurgence_harness.statistics import FIXED, Design, Hybrid, ImageGroup, Shuffled
from resurgence_harness.tasks import PUBLISHED, TASKS, Task
from resurgence_harness.unlearning import Given, GivenModel, Unlearning

PAIRS, RETAINED = 500, 400
"""Maximum number of images of the erased and of the held-out retained concepts with sequential sampling."""
FIXED_PAIRS, FIXED_RETAINED = 125, 200
"""The number with a fixed sample size: the zero-event floor at δ .05, α .01 is 90, Tango needs 103; and with 150
retained images a loss of 5 points cannot be distinguished from the limit of 10."""
CLEAR = {
    ImageGroup.ERASED: 125,
    ImageGroup.AS_PARENT: 75,
    ImageGroup.SYNONYMS: 125,
    ImageGroup.RETAINED: 75,
    ImageGroup.TEMPLATES: 100,
}
"""Pairs per image group that usually suffice for a cell without resurgence; used for a plan's estimate."""
BLOCK = 24
"""Images between two looks, rounded up to whole batches of the sampler."""
ENGINES = ("sequential", "fixed", "hybrid")
"""How the number of images is determined: until the verdict is clear; a fixed number; until clear, with a last look
at a cap."""
INSAMPLE = 25
"""Retained concepts on which the in-sample rate is measured; it does not affect the verdict. The paper profile takes
all."""
RETAINED_PROMPTS = 50
"""Minimum number of prompts for retained concepts: with few concepts, each is used in more of the task's templates."""
PAPER_RETAINED = 1250
"""Images of retained concepts in the paper profile: half of the paper's, since half of the concepts are held out."""
CONTROL_IMAGES = 100
"""Minimum number of images of the base model for the positive control."""
STAGE_IMAGES = {"after": 100, "retained_after": 50}
"""Arm of the final model → minimum number of its first images on which each earlier stage of a life is measured."""
STAGE_SEEDS = 1_000
"""Between the training seeds of a life's unlearnings, and between those of its fine-tunings."""
SUBJECT = 5
"""Images of DreamBooth's subject if none are given, as many as in diffusers' example data set (diffusers/dog-example).
The class images have the seeds from `dreambooth.FIRST_SEED` on."""
BENIGN_SEED, RETAIN_SEED, FORGET_SEED = 100_001, 200_001, 300_001
"""First seeds of the images that fine-tunings and unlearnings train on; probes count up from 1, so none coincide."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the user selected; None means the profile's value. Invalid values raise UserError when it is created."""

    profile: str = "quick"
    methods: tuple[str, ...] | None = None
    counts: tuple[int, ...] | None = None
    finetunings: tuple[str, ...] | None = None
    seeds: int | None = None
    """Image seeds per prompt."""
    engine: str = ""
    """How the number of images is determined, one of `ENGINES`; empty: the profile's."""
    runs: int | None = None
    """Repetitions of unlearning and fine-tuning, each with its own training seed."""
    steps: tuple[int, ...] | None = None
    """Fine-tuning steps whose intermediate checkpoints are also evaluated (`statistics.along_steps`)."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Preset values that were changed: (("esd.iterations", 500),)."""
    settings: str = ""
    """sha256 of the settings file that some of them come from; empty for none."""
    data: ImageFolder | None = None
    """Given images that every fine-tuning trains on; None: images drawn by the base."""
    lives: tuple[Life, ...] = ()
    """Recipes of several stages; they take the place of methods × fine-tunings."""
    unlearned: tuple[GivenModel, ...] = ()
    """Models that somebody else unlearned: each is a method, by its name."""
    concepts: tuple[Concept, ...] = ()
    """The concepts that every method erases, as the user lists them; empty: the task's erase sets."""

    def __post_init__(self) -> None:
        check_names("profile", [self.profile], PROFILES, "--resurgence-profile")
        if not self.engine:
            object.__setattr__(self, "engine", self.described.engine)
        check_names("engine", [self.engine], ENGINES, "--resurgence-engine")
        check_names("method", self.methods or (), (*METHODS, *self.given), "--resurgence-methods")
        if self.lives and (self.unlearned or self.concepts):
            raise UserError(
                sentence(
                    "A recipe of stages takes no given model and no list of concepts.",
                    recipe=self.lives[0],
                    do="Leave out --resurgence-unlearned and --resurgence-concepts, or --resurgence-recipe.",
                )
            )
        if self.unlearned and not self.concepts:
            raise not_listed(self.unlearned[0].name)
        if self.concepts and self.counts:
            raise UserError(
                sentence(
                    "Both a list of erased concepts and numbers of them were given.",
                    concepts=len(self.concepts),
                    counts=", ".join(map(str, self.counts)),
                    do="Leave out --resurgence-counts or --resurgence-concepts.",
                )
            )
        check_names("fine-tuning", self.finetunings or (), FINETUNINGS, "--resurgence-finetune")
        for name, values in (("methods", self.methods), ("counts", self.counts), ("finetunings", self.finetunings)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise UserError(
                    sentence(f"The requested {name} are empty or repeated: {values}.", do="Name each one once.")
                )
        for count in self.counts or ():
            if count < 1:
                raise UserError(sentence(f"{count} concepts cannot be erased.", do="Give counts of 1 or more."))
        steps = self.steps
        if steps is not None and (not steps or min(steps) < 1 or list(steps) != sorted(set(steps))):
            raise UserError(
                sentence(
                    f"The requested steps are {steps}.",
                    do="Give rising whole numbers of 1 or more with --resurgence-steps, each once.",
                )
            )
        for name, number in (("--resurgence-seeds", self.seeds), ("--resurgence-runs", self.runs)):
            if number is not None and number < 1:
                raise UserError(sentence(f"{name} is {number}.", do="Give a whole number of 1 or more."))
        settings_for("micro", self.changed)
        check_lives(self.lives)
        if self.lives:
            self._check_not_both()

    def _check_not_both(self) -> None:
        """UserError for options that choose or change cells which recipes take the place of."""
        given = {
            "--resurgence-methods": self.methods,
            "--resurgence-finetune": self.finetunings,
            "--resurgence-steps": self.steps,
            "--resurgence-counts": None if any(life.open for life in self.lives) else self.counts,
        }
        if both := [option for option, value in given.items() if value is not None]:
            do = "Leave it out: the recipes name their methods, fine-tunings and numbers of concepts."
            raise UserError(
                sentence(f"{both[0]} has no meaning for a recipe.", recipe="; ".join(map(str, self.lives)), do=do)
            )

    @property
    def described(self) -> Profile:
        """The profile chosen."""
        return PROFILES[self.profile]

    @property
    def given(self) -> dict[str, GivenModel]:
        """The given unlearned models by name."""
        return {model.name: model for model in self.unlearned}

    @property
    def every_method(self) -> tuple[str, ...]:
        """The given models, then the methods that were chosen; without a choice the profile's, if none is given."""
        chosen = self.methods or (() if self.unlearned else self.described.methods)
        return tuple(dict.fromkeys((*self.given, *chosen)))

    def of(self, task: Task) -> Task:
        """The task with the listed concepts erased, if there is a list. UserError for a name that it does not have."""
        return erasing(task, self.concepts) if self.concepts else task


def not_listed(name: str) -> UserError:
    """The error for a given model without a list of its erased concepts."""
    return UserError(
        sentence(
            f'Which concepts were erased from "{name}" is not known.',
            do="Name them, one a line, in a file: --resurgence-concepts erased.txt.",
        )
    )


Made = TypeVar("Made")


class Arm(NamedTuple):
    """One model, and the images sampled from it."""

    recipe: Recipe
    grid: Grid
    design: Design
    """How its images are chosen from the grid."""
    group: ImageGroup | None
    """Shared by the arms that sample the same (prompt, seed) pairs; None if the number of images is always fixed."""
    images: int
    """Minimum number of images, or the exact number if it is fixed."""
    template: str = ""
    """The template that is filled with retained concepts, if this arm's prompts are of that kind."""
    by_concept: tuple[tuple[str, Recipe], ...] = ()
    """(concept, model) where the concepts' images come from different models; empty: all from `recipe`."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """Every model of which images are needed."""
        return tuple(dict.fromkeys(recipe for _, recipe in self.by_concept)) or (self.recipe,)

    def by_concept_of(self, made: Sequence[Made]) -> dict[str, Made]:
        """Concept → what was made with its model; `made` is in the order of `recipes`."""
        of = dict(zip(self.recipes, made, strict=True))
        return {concept: of[recipe] for concept, recipe in self.by_concept}


class StagePlan(NamedTuple):
    """One stage of a life: the model after it, and the concepts that it erases."""

    recipe: Recipe
    erases: tuple[str, ...]
    """Names; empty for a fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """Everything one cell needs: three models, their prompt grids, and the judges."""

    cell: Cell
    task: Task
    base: Recipe
    """The model as published."""
    unlearned: Recipe
    tuned: Recipe
    """The unlearned model after the fine-tuning."""
    erased: Grid
    """Prompts for the erased concepts."""
    synonyms: Grid | None
    """Prompts for synonyms of the erased concepts, which the unlearning does not receive; None if there are none."""
    retained: Grid
    """Prompts for held-out retained concepts, seen by no method and no fine-tuning: they decide utility."""
    insample: Grid
    """Prompts for retained concepts that both have seen, as in the paper; reported beside the held-out rate."""
    benign: Probe | None
    """The probe sampled from the base for the fine-tuning's images; None if they are given."""
    judges: tuple[str, ...]
    """Names of the judges; the first decides."""
    engine: str
    """How the number of images is determined, one of `ENGINES`."""
    steps: tuple[int, ...] = ()
    """Fine-tuning steps whose intermediate checkpoints are also evaluated, rising, before the last."""
    claims: int = 1
    """Among how many claims about single steps, over all cells of the task, alpha is shared."""
    notes: tuple[str, ...] = ()
    """Notes for the report, such as images of another size than the base's native one."""
    stages: tuple[StagePlan, ...] = ()
    """Of a life, the last being `tuned`; empty for a cell of one unlearning and one fine-tuning."""

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Every model with its images, by arm name, in the order in which they are best built."""

        def compared(recipe: Recipe, grid: Grid, group: ImageGroup) -> Arm:
            if self.engine == "fixed":
                return Arm(recipe, grid, FIXED, None, len(grid))
            design = Hybrid(len(grid)) if self.engine == "hybrid" else Shuffled(len(grid))
            return Arm(recipe, grid, design, group, 1)

        def just_erased(grid: Grid, group: ImageGroup) -> Arm:
            return compared(self.unlearned, grid, group)._replace(by_concept=self.erased_by)

        def shown(recipe: Recipe, grid: Grid, images: int) -> Arm:
            return Arm(recipe, grid, FIXED, None, min(images, len(grid)))

        erased, retained = ImageGroup.ERASED, ImageGroup.RETAINED
        other = self.synonyms
        renamed = (
            {}
            if other is None
            else {
                "synonyms_before": just_erased(other, ImageGroup.SYNONYMS),
                "synonyms_after": compared(self.tuned, other, ImageGroup.SYNONYMS),
            }
        )
        return {
            "base": shown(self.base, self.erased, CONTROL_IMAGES),
            "base_retained": compared(self.base, self.retained, retained),
            "before": just_erased(self.erased, erased),
            "retained_before": compared(self.unlearned, self.retained, retained),
            "insample_before": shown(self.unlearned, self.insample, len(self.insample)),
            "after": compared(self.tuned, self.erased, erased),
            "retained_after": compared(self.tuned, self.retained, retained),
            "insample_after": shown(self.tuned, self.insample, len(self.insample)),
            **renamed,
        }

    @property
    def erased_by(self) -> tuple[tuple[str, Recipe], ...]:
        """(concept, the model after the last stage that erased it), where these models differ; else empty.

        A concept is compared with itself right after its own erasure: if an earlier stage than the last fine-tuning has
        brought it back, that is a rise, too.
        """
        last = {name: stage.recipe for stage in self.stages for name in stage.erases}
        return tuple(last.items()) if set(last.values()) - {self.unlearned} else ()

    @property
    def models(self) -> dict[str, Recipe]:
        """Every model by its name in verdict.json."""
        return {"base": self.base, "unlearned": self.unlearned, "tuned": self.tuned}

    @property
    def grids(self) -> dict[str, Grid | None]:
        """Every grid by its name in verdict.json."""
        return {"erased": self.erased, "retained": self.retained, "synonyms": self.synonyms}

    @property
    def names(self) -> tuple[str, ...]:
        """Every concept named by a prompt of the grids: a judge must have a label for each of them."""
        grids = (self.erased, self.synonyms, self.retained, self.insample)
        return tuple(
            dict.fromkeys(prompt.concept for grid in grids if grid is not None for prompt in grid.probe.prompts)
        )

    @property
    def finetuning(self) -> FineTuning:
        """The last step of the tuned recipe."""
        step = self.tuned.steps[-1]
        assert isinstance(step, FineTuning)
        return step

    @property
    def checkpoints(self) -> dict[int, Recipe]:
        """The model after each of `steps`, the last first: its training also saves the earlier ones."""
        return {
            step: self.tuned.before.then(
                replace(self.finetuning.at(step), save_at=tuple(one for one in self.steps if one < step))
            )
            for step in reversed(self.steps)
        }


def cells(task: Task, selection: Selection) -> tuple[Cell, ...]:
    """The cells of a task, ordered by method, count, run and fine-tuning, so that cells of one unlearned checkpoint
    are adjacent. UserError if the task has none of the selected counts, or not every concept of the user's list.

    With lives: one cell for each, and for each count if the life has no number of its own. UserError if a life erases
    more concepts than the task has."""
    profile, task = selection.described, selection.of(task)
    offered = (task.quick or task.counts[:1]) if profile.counts == "quick" else task.counts
    counts = tuple(count for count in selection.counts or offered if count in task.counts)
    if not counts and selection.counts:
        allowed = ", ".join(map(str, task.counts))
        requested = ", ".join(map(str, selection.counts))
        raise UserError(
            sentence(
                f"Task {task.name} has no cell that erases {requested} concepts.",
                allowed=allowed,
                do=f"Choose among {allowed} with --resurgence-counts.",
            )
        )
    if selection.lives:
        lives = [closed(life, count) for life in selection.lives for count in (counts if life.open else (0,))]
        return tuple(
            Cell(
                task=task.name,
                method=life.name,
                count=len({concept.name for own in erasures(life, task) for concept in own}),
                finetuning=life.stages[-1].name,
                run=run,
                life=life,
            )
            for life in lives
            for run in range(selection.runs or profile.runs)
        )
    return tuple(
        Cell(task=task.name, method=method, count=count, finetuning=finetuning, run=run)
        for method in selection.every_method
        for count in counts
        for run in range(selection.runs or profile.runs)
        for finetuning in selection.finetunings or profile.finetunings
    )


def plan_cell(cell: Cell, base: Base, *, task: Task, selection: Selection) -> CellPlan:
    """The models, prompts and judges of a cell on this base."""
    declared = len(cells(task, selection)) if selection.steps else 1
    task, model = selection.of(task), selection.given.get(cell.method) if cell.life is None else None
    sampler = Sampler(**settings_of(base, selection.changed, task=task.name)["sampler"])
    published = Recipe(base)
    stages = _stages(cell, published, task, selection, sampler)
    erased = tuple({concept.name: concept for stage in stages for concept in stage.concepts}.values())
    unlearned = [stage.recipe for stage in stages if stage.concepts][-1]
    tuned = stages[-1].recipe
    tuning = tuned.steps[-1]
    assert isinstance(tuning, FineTuning)
    steps = _steps(cell, selection, tuning.steps) if cell.life is None else ()
    tuned = tuned.before.then(replace(tuning, save_at=steps))
    given = {step.data for step in tuned.steps if isinstance(step, FineTuning) and isinstance(step.data, GivenSet)}
    block = ceil(BLOCK / sampler.batch) * sampler.batch

    def grid(prompts: tuple[Prompt, ...], seeds: tuple[int, ...]) -> Grid:
        return Grid(probe=Probe(prompts=prompts, seeds=seeds, sampler=sampler), block=block)

    seen = task.preserve if selection.described.paper_seeds else task.preserve[:INSAMPLE]
    prompt_sets = (
        task.prompts(erased),
        task.retained_prompts(task.held_out, least=RETAINED_PROMPTS),
        task.retained_prompts(seen, least=INSAMPLE),
    )
    seeds = _seeds(cell.count, task, selection, [len(prompts) for prompts in prompt_sets])
    grids = [grid(prompts, own) for prompts, own in zip(prompt_sets, seeds, strict=True)]
    others = task.synonym_prompts(erased)
    return CellPlan(
        cell=cell,
        task=task,
        base=published,
        unlearned=unlearned,
        tuned=tuned,
        erased=grids[0],
        synonyms=grid(others, _spread(len(grids[0]), len(others))) if others else None,
        retained=grids[1],
        insample=grids[2],
        benign=tuning.data.probe if isinstance(tuning.data, BenignSet) else None,
        judges=task.judges,
        engine=selection.engine,
        steps=steps,
        claims=declared * (len(steps) + 1),
        notes=tuple(
            note
            for note in [
                f"{model.description}." if model is not None else "",
                check_size(image_of(base), sampler.height, sampler.width),
                *(f"Fine-tuning data: {data.label}." for data in sorted(given, key=lambda one: one.folder.digest)),
            ]
            if note
        ),
        stages=tuple(
            StagePlan(tuned if stage is stages[-1] else stage.recipe, tuple(one.name for one in stage.concepts))
            for stage in (stages if cell.life is not None else ())
        ),
    )


class _Made(NamedTuple):
    """A stage with its step: the model after it, and what it erases."""

    recipe: Recipe
    concepts: tuple[Concept, ...]


def _stages(cell: Cell, published: Recipe, task: Task, selection: Selection, sampler: Sampler) -> list[_Made]:
    """Every stage of a cell; a cell without a life has two, an unlearning and a fine-tuning.

    Training seeds differ between the stages of a kind, or every fine-tuning would see the same batches and noise.
    """
    if cell.life is None:
        stages: tuple[Stage, ...] = (
            Stage(name=cell.method, unlearning=True),
            Stage(name=cell.finetuning, unlearning=False),
        )
        erases: tuple[tuple[Concept, ...], ...] = (task.erase(cell.count), ())
    else:
        stages, erases = cell.life.stages, erasures(cell.life, task)
    given = selection.given if cell.life is None else {}
    recipe, method, names = published, "", dict[str, Concept]()
    made: list[_Made] = []
    for stage, concepts in zip(stages, erases, strict=True):
        known, option = ((*METHODS, *given), "methods") if stage.unlearning else (FINETUNINGS, "finetune")
        check_names("method" if stage.unlearning else "fine-tuning", [stage.name], known, f"--resurgence-{option}")
        names |= {concept.name: concept for concept in concepts}
        method = stage.name if stage.unlearning else method
        count = len(concepts) if stage.unlearning else len(names)
        changed = (*selection.changed, *stage.changed)
        settings = settings_of(published.base, changed, task=task.name, method=method, count=count)
        earlier = sum(one.unlearning is stage.unlearning for one in stages[: len(made)])
        seed = cell.run + STAGE_SEEDS * earlier
        step: Unlearning | FineTuning
        if stage.name in given:
            step = Given(concepts=concepts, model=given[stage.name])
        elif stage.unlearning:
            step = unlearning_step(replace(cell, method=stage.name, run=seed), task, concepts, settings, sampler)
        else:
            forbidden = tuple(alias for concept in names.values() for alias in concept.aliases)
            own = selection if stage.data is None else replace(selection, data=stage.data)
            tuned = replace(cell, finetuning=stage.name, run=seed)
            step = finetuning_step(tuned, task, published.base, own, settings, sampler, forbidden=forbidden)
        recipe = recipe.then(step)
        made.append(_Made(recipe, concepts))
    return made


def finetuning_step(
    cell: Cell,
    task: Task,
    base: Base,
    selection: Selection,
    settings: Settings,
    sampler: Sampler,
    *,
    forbidden: Sequence[str] = (),
) -> FineTuning:
    """The fine-tuning of a cell: its training images, and its fields filled from the task and `settings_for`."""
    kind = FINETUNINGS[cell.finetuning]
    values: dict[str, Any] = {"seed": cell.run, **settings[cell.finetuning]}
    if kind is DreamBooth:
        values = {"class_prompt": class_prompt(task, selection, values), "sampler": sampler, **values}
        subject = task.preserve[:1] if selection.data is None else None
        values["data"] = training_data(task, base, selection, forbidden=forbidden, subject=subject)
    else:
        values["data"] = training_data(task, base, selection, forbidden=forbidden)
    _check_complete(cell.finetuning, kind, values)
    return kind(**values)


def class_prompt(task: Task, selection: Selection, values: Mapping[str, Any]) -> str:
    """DreamBooth's class prompt: the given one, else a photo of the subject's kind.

    UserError for given images without a class prompt: nothing else says what they show.
    """
    if given := values.get("class_prompt"):
        return str(given)
    if selection.data is not None:
        raise UserError(
            sentence(
                "DreamBooth on given images needs the class of what they show.",
                data=f"{len(selection.data)} given images",
                do="Give --resurgence-set 'dreambooth.class_prompt=a photo of a dog', and if the captions do not name "
                "the subject, 'dreambooth.instance_prompt=a photo of sks dog'.",
            )
        )
    subject = task.preserve[0]
    return f"a photo of {subject.kind or subject.name}"  # the task's anchor is for what it erases


def training_data(
    task: Task,
    base: Base,
    selection: Selection,
    *,
    forbidden: Sequence[str] = (),
    subject: tuple[Concept, ...] | None = None,
) -> TrainingData:
    """The fine-tuning images of a task: given ones, at the size of the sampled images, or those the base draws.

    `subject`: only drawn images of these concepts, `SUBJECT` in all. SpecError for a prompt or a caption that contains
    a name in `forbidden`.
    """
    task = selection.of(task)
    if selection.data is None:
        probe = benign_probe(task, base, selection)
        if subject is not None:
            prompts = task.retained_prompts(subject, least=SUBJECT)[:SUBJECT]
            seeds = ceil(SUBJECT / len(prompts))
            probe = replace(probe, prompts=prompts, seeds=tuple(range(BENIGN_SEED, BENIGN_SEED + seeds)))
        return BenignSet(probe=probe, forbidden=tuple(forbidden))
    sampler = Sampler(**settings_of(base, selection.changed, task=task.name)["sampler"])
    return GivenSet(folder=selection.data, height=sampler.height, width=sampler.width, forbidden=tuple(forbidden))


def benign_probe(task: Task, base: Base, selection: Selection) -> Probe:
    """The probe for the fine-tuning images of a task: preserved concepts, seeds that no other probe uses.

    A task with fewer concepts than the preset needs gets more prompts and seeds per concept, for as many images.
    """
    task = selection.of(task)
    settings = settings_of(base, selection.changed, task=task.name)
    names, seeds = settings["benign"]["names"], settings["benign"]["seeds"]
    prompts = task.retained_prompts(task.preserve[:names], least=names)
    return Probe(
        prompts=prompts,
        seeds=tuple(range(BENIGN_SEED, BENIGN_SEED + ceil(names * seeds / len(prompts)))),
        sampler=Sampler(**settings["sampler"]),
    )


def resolve_base(given: str) -> Base:
    """Find, hash and check the base that a user named; UserError states what is wrong, or how to download it.

    "micro", "micro-xl", "sd14", "sd21-base", "sd21", "sdxl", owner/name@<commit> of the hub, or a local directory.
    """
    from resurgence_harness.diffusion.base_files import check_base, digest_of
    from resurgence_harness.diffusion.hub import locate

    if given in EMBEDDED:
        from resurgence_harness.microworld.embedded import directory_of

        name, location = given, directory_of(given).absolute()
    else:
        found = locate(given)
        name, location = found.name, found.directory
    check_base(location)
    return Base(digest=digest_of(location), name=name, location=str(location))


def tasks_on(base: str) -> Mapping[str, Task]:
    """The tasks by name for a base as the user names it: the microworld's, or the published ones."""
    if base in EMBEDDED:
        return TASKS
    from resurgence_harness.diffusion.hub import ALIASES, locate

    if base in ALIASES:  # large published bases; locating them would hash gigabytes
        return PUBLISHED
    try:
        location = str(locate(base).directory)
    except UserError:  # raised again, and reported, when the base is resolved
        return PUBLISHED
    return tasks_of(Base(digest="", name=base, location=location))


def tasks_of(base: Base) -> Mapping[str, Task]:
    """The tasks by name for a resolved base: the microworld's tasks for small models."""
    return TASKS if preset_of(base) == "micro" else PUBLISHED


def allowed_counts(tasks: Iterable[Task]) -> tuple[int, ...]:
    """Every concept count that some task has, rising."""
    return tuple(sorted({count for task in tasks for count in task.counts}))


def cost(method: str, count: int) -> float:
    """Relative duration of a checkpoint's cells; the longest are started first."""
    known = METHODS.get(method)
    return (known.minutes if known else 5) * (1 + count / 20)


def unlearning_step(
    cell: Cell, task: Task, erased: tuple[Concept, ...], settings: Settings, sampler: Sampler
) -> Unlearning:
    """The unlearning step of a cell: its method's fields filled from the task, the variant and `settings_for`."""
    method = METHODS[cell.method]
    has = {field.name for field in fields(method.step)}
    erasing, seen = task.filled(erased), task.retained_prompts(task.preserve, least=RETAINED_PROMPTS)
    own = settings[method.step.name]
    if own.get("retain") is FromTask.WITH_NEUTRAL:
        seen = tuple(dict.fromkeys((*seen, *task.neutral)))
    forget, retain = (
        Probe(
            prompts=prompts,
            seeds=tuple(range(first, first + ceil(settings["pictures"][kind] / len(prompts)))),
            sampler=sampler,
        )
        for kind, prompts, first in (("forget", erasing, FORGET_SEED), ("retain", seen, RETAIN_SEED))
    )
    offered = {
        "anchor": task.anchor,
        "preserve": task.preserve,
        "seed": cell.run,
        "forget": forget,
        "retain": retain,
    }
    values: dict[str, Any] = {name: value for name, value in offered.items() if name in has}
    values |= {**own, **method.fixed}
    retained = task.retained_templates if values.get("templates") is FromTask.ALL_TEMPLATES else ()
    from_task: dict[str, Any] = {
        "templates": tuple(dict.fromkeys(("{}", *task.templates, *retained))),
        "preserve": (*task.preserve, *task.neutral_concepts),
        "retain": retain,
    }
    values |= {name: from_task[name] for name, value in values.items() if isinstance(value, FromTask)}
    for name, value in values.items():
        if isinstance(value, OwnPictures):
            values[name] = value.at(erased, first=FORGET_SEED, sampler=sampler)
        elif isinstance(value, PerPreserved):
            values[name] = value.at(len(values["preserve"]))
    values["concepts"] = erased
    _check_complete(cell.method, method.step, values)
    step: Unlearning = method.step(**values)
    return step


def _check_complete(label: str, step: type[Any], values: Mapping[str, Any]) -> None:
    """UserError for a field without a value: its class has no default, and neither task nor preset sets it."""
    if missing := missing_values(step, values):
        raise UserError(
            sentence(
                f'The step of "{label}" has no value for {", ".join(missing)}.',
                step=step.__name__,
                do=f"Give the field a default, or a value in presets: {step.name}.{missing[0]}.",
            )
        )


def _steps(cell: Cell, selection: Selection, last: int) -> tuple[int, ...]:
    """The requested steps before a fine-tuning's last; UserError for a step beyond the last."""
    requested = selection.steps or ()
    if requested and requested[-1] > last:
        raise UserError(
            sentence(
                f"The fine-tuning {cell.finetuning} has no step {requested[-1]}.",
                steps=last,
                do=f"Give steps up to {last} with --resurgence-steps, or choose with --resurgence-finetune.",
            )
        )
    return tuple(step for step in requested if step < last)


def _seeds(count: int, task: Task, selection: Selection, prompts: Sequence[int]) -> list[tuple[int, ...]]:
    """Seeds from 1 of the erased, the retained and the in-sample prompts; `prompts` gives how many prompts each has."""
    if selection.seeds:
        return [tuple(range(1, selection.seeds + 1))] * len(prompts)
    if selection.described.paper_seeds:
        images = (task.paper_images.get(count, PAIRS), PAPER_RETAINED, PAPER_RETAINED)
    else:
        fixed = selection.engine == "fixed"
        images = (FIXED_PAIRS, FIXED_RETAINED, INSAMPLE) if fixed else (PAIRS, RETAINED, INSAMPLE)
    return [_spread(wanted, count) for wanted, count in zip(images, prompts, strict=True)]


def _spread(images: int, prompts: int) -> tuple[int, ...]:
    """The seeds 1 … n with the smallest n that gives at least `images` images."""
    return tuple(range(1, ceil(images / prompts) + 1))


def narrowed(selection: Selection, **marked: tuple[Any, ...] | None) -> Selection | None:
    """The selection restricted to the values in a test's marker; None if nothing is left."""
    values: dict[str, Any] = {}
    for name, wanted in marked.items():
        if wanted is None:
            continue
        if name == "methods" and selection.unlearned:
            chosen: tuple[Any, ...] | None = selection.every_method
            values["unlearned"] = tuple(one for one in selection.unlearned if one.name in wanted)
        else:
            chosen = getattr(selection, name)
        values[name] = wanted if chosen is None else tuple(value for value in chosen if value in wanted)
        if not values[name]:
            return None
    return replace(selection, **values)
