"""Which cells are run, and what each asks for: method × concept count × fine-tuning × run becomes recipes and probes.

Everything a person may want to tune for a model of one size stands in this file, in `PRESETS`; single values are
changed with `--resurgence-set esd.iterations=500`, and what was changed is printed and recorded with the verdict.

    selection = Selection(methods=("esd",), counts=(10,))
    for cell in cells(CELEBRITY, selection):
        plan = plan_cell(cell, base, task=CELEBRITY, selection=selection)      plan.tuned, plan.erased, …
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from resurgence_harness.diffusion.parameters import CrossAttention, Everything, NonCrossAttention, StrictKeyValue
from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning import FINETUNINGS, BenignSet, FineTuning
from resurgence_harness.specs import Base, Cell, Concept, Probe, Prompt, Recipe, Sampler
from resurgence_harness.tasks import CELEBRITY, TASKS, Task
from resurgence_harness.unlearning import (
    ESD,
    MACE,
    SDD,
    SHS,
    UCE,
    EraseDiff,
    LastSubjectToken,
    SalUn,
    SubjectAndAfter,
    Unlearning,
)

PAIRS = 125
"""Images of the erased concepts that a cell aims for: the zero-event floor at δ .05, α .01 is 90; Tango needs 103."""
RETAINED = 200
"""Images of the held-out retained concepts: with 150, a loss of 5 points cannot be told from the limit of 10."""
INSAMPLE = 25
"""Retained concepts that the figure on seen concepts is taken on; it decides nothing. The paper profile takes all."""
CONTROL_IMAGES = 100
"""Images of the base model that the positive control needs at least."""
BENIGN_SEED, RETAIN_SEED, FORGET_SEED = 100_001, 200_001, 300_001
"""First seeds of the images that fine-tunings and unlearnings learn from; probes count up from 1: none ever meet."""


class Method(NamedTuple):
    """A word of node ids, and the step that it stands for."""

    step: type[Any]
    """A class of unlearning/."""
    fixed: Mapping[str, Any]
    """Fields that make this variant what it is."""
    minutes: float
    """Rough share of a cell's build time; only decides what xdist starts first."""


METHODS: dict[str, Method] = {
    "uce": Method(UCE, {"tokens": SubjectAndAfter()}, 1),
    "uce-last": Method(UCE, {"tokens": LastSubjectToken()}, 1),
    "esd": Method(ESD, {"subset": CrossAttention()}, 8),
    "esd-strict": Method(ESD, {"subset": StrictKeyValue()}, 7),
    "esd-u": Method(ESD, {"subset": NonCrossAttention()}, 10),
    "esd-all": Method(ESD, {"subset": Everything()}, 10),
    "sdd": Method(SDD, {}, 10),
    "mace": Method(MACE, {}, 8),
    "salun": Method(SalUn, {}, 9),
    "shs": Method(SHS, {}, 9),
    "erasediff": Method(EraseDiff, {}, 9),
}
"""Every unlearning by its word in node ids. A new method is a line here and a file in unlearning/."""

Settings = Mapping[str, Mapping[str, Any]]

PRESETS: dict[str, Settings] = {
    "micro": {  # the embedded microworld: 64 px, narrow, minutes on a laptop
        "sampler": {"steps": 10, "guidance": 4.0, "height": 64, "width": 64, "batch": 25},
        "benign": {"names": 50, "seeds": 2},
        "pictures": {"forget": 50, "retain": 100},
        # Searched on other names, by erasure and utility (reports/microworld/tuning.csv); UCE's erase_scale was lowered
        # after fine-tuned models had been seen, by the same measures (reports/microworld/README.md). UCE edits text
        # states, and every template makes other ones. ESD learns from bare names: the words of a template would be
        # steered away from, too, and every face with them.
        "uce": {"templates": ("{}", *CELEBRITY.templates), "erase_scale": 0.2, "preserve_scale": 1.0, "ridge": 1.0},
        "esd": {
            "iterations": 100,
            "batch": 16,
            "learning_rate": 1e-3,
            "away": 2.0,
            "trajectories": 24,
            "trajectory_steps": 10,
        },
        # Of the trials that erase ten names best and keep most people at one and five, too. SDD keeps them at one only:
        # its target, what it says to the empty text, drifts along with what it learns.
        "sdd": {
            "iterations": 120,
            "iterations_per_concept": 0,
            "batch": 8,
            "learning_rate": 1e-4,
            "ema": 0.9,
            "trajectory_steps": 10,
            "trajectories": 8,
        },
        "mace": {
            "templates": ("{}", *CELEBRITY.templates),
            "iterations": 30,
            "learning_rate": 1e-3,
            "preserve_weight": 4e4,
            "together": 5,
        },
        "salun": {"iterations": 160, "batch": 8, "learning_rate": 2e-4},
        "shs": {"iterations": 70, "batch": 8, "learning_rate": 1e-4, "trim_batches": 4, "sparsity": 0.9},
        "erasediff": {"iterations": 120, "batch": 8, "learning_rate": 3e-4},
        # 100 steps: after 50, held-out benign images were not shown to be denoised better in 7 of 20 runs after UCE.
        "lora": {"steps": 100, "batch": 8, "learning_rate": 1e-3},
        "full": {"steps": 100, "batch": 8, "learning_rate": 1e-4},
        "xattn": {"steps": 100, "batch": 8, "learning_rate": 1e-4},
    },
    "sd": {  # Stable Diffusion v1.x and v2.x: public recipes; the paper's own values are not published
        "sampler": {"steps": 50, "guidance": 7.5, "height": 512, "width": 512, "batch": 8},
        "benign": {"names": 50, "seeds": 5},
        "pictures": {"forget": 400, "retain": 400},
        "uce": {},
        # ESD: the 1,000 samples of the 2023 script at the rate of those of 2025. SDD: the authors' 1,500 samples,
        # in batches of 4; the rate and what is left of the given weights (.22) go with the steps.
        # SalUn: as many steps as the authors' nudity recipe; SHS and EraseDiff: as they give for a class.
        "esd": {"iterations": 250, "batch": 4, "learning_rate": 5e-5},
        "sdd": {
            "iterations": 375,
            "iterations_per_concept": 4,
            "batch": 4,
            "learning_rate": 4e-5,
            "ema": 0.996,
            "refresh": 25,
        },
        "mace": {},
        "salun": {"iterations": 100},
        "shs": {"batch": 8, "iterations": 79},
        "erasediff": {"iterations": 60},
        "lora": {"steps": 1000, "batch": 4, "learning_rate": 1e-4},
        "full": {"steps": 1000, "batch": 32, "learning_rate": 1e-5},
        "xattn": {"steps": 1000, "batch": 32, "learning_rate": 1e-5},
    },
}
"""Values by size of model, then by step (fields of its class), `sampler` (of Sampler), `benign` (names × seeds) or
`pictures` (about how many forget and retain images the unlearnings that learn from images share)."""


class Profile(NamedTuple):
    """A named size of run."""

    methods: tuple[str, ...]
    counts: tuple[int, ...]
    """Those that the task has; the task's first two where it has none of them."""
    finetunings: tuple[str, ...]
    runs: int
    paper_seeds: bool
    """Whether images are as many as in the paper (250 to 2,500 of erased names) or as a decision needs."""


SEVEN = ("uce", "esd", "sdd", "mace", "salun", "shs", "erasediff")
"""One variant of each published method."""

PROFILES: dict[str, Profile] = {
    "quick": Profile(SEVEN, (1, 10), ("lora",), 1, False),
    "full": Profile(SEVEN, (1, 5, 10, 100), ("lora",), 1, False),
    "paper": Profile(SEVEN, (1, 5, 10, 100), ("lora", "full", "xattn"), 3, True),
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a person chose; None means what the profile says. Values are checked where they are written."""

    profile: str = "quick"
    methods: tuple[str, ...] | None = None
    counts: tuple[int, ...] | None = None
    finetunings: tuple[str, ...] | None = None
    seeds: int | None = None
    """Image seeds per prompt."""
    runs: int | None = None
    """Repetitions of unlearning and fine-tuning, each with a training seed of its own."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Preset values that were changed: (("esd.iterations", 500),)."""

    def __post_init__(self) -> None:
        _known("profile", [self.profile], PROFILES, "--resurgence-profile")
        _known("method", self.methods or (), METHODS, "--resurgence-methods")
        _known("fine-tuning", self.finetunings or (), FINETUNINGS, "--resurgence-finetune")
        for name, values in (("methods", self.methods), ("counts", self.counts), ("finetunings", self.finetunings)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise UserError(
                    sentence(f"The {name} asked for are empty or repeated: {values}.", do="Name each one once.")
                )
        for count in self.counts or ():
            if count < 1:
                raise UserError(sentence(f"{count} concepts cannot be erased.", do="Give counts of 1 or more."))
        for name, number in (("--resurgence-seeds", self.seeds), ("--resurgence-runs", self.runs)):
            if number is not None and number < 1:
                raise UserError(sentence(f"{name} is {number}.", do="Give a whole number of 1 or more."))
        settings_for("micro", self.changed)

    @property
    def described(self) -> Profile:
        """The profile chosen."""
        return PROFILES[self.profile]


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """Everything one cell asks for: three models, four probes, and who judges."""

    cell: Cell
    task: Task
    base: Recipe
    """The model as published."""
    unlearned: Recipe
    tuned: Recipe
    """The unlearned model after the fine-tuning."""
    erased: Probe
    """Prompts for the erased concepts."""
    retained: Probe
    """Prompts for held-out retained concepts, which no method and no fine-tuning has seen: utility is decided here."""
    insample: Probe
    """Prompts for retained concepts that both have seen: the paper's way, shown beside it."""
    benign: Probe
    """What the base is asked to draw the fine-tuning's images."""
    judges: tuple[str, ...]
    """Names of the judges; the first decides."""

    @property
    def arms(self) -> dict[str, tuple[Recipe, Probe]]:
        """Every (model, probe) that the verdict needs, by the word of its arm."""
        return {
            "base": (self.base, self.erased),
            "before": (self.unlearned, self.erased),
            "after": (self.tuned, self.erased),
            "base_retained": (self.base, self.retained),
            "retained_before": (self.unlearned, self.retained),
            "retained_after": (self.tuned, self.retained),
            "insample_before": (self.unlearned, self.insample),
            "insample_after": (self.tuned, self.insample),
        }

    @property
    def finetuning(self) -> FineTuning:
        """The last step of the tuned recipe."""
        step = self.tuned.steps[-1]
        assert isinstance(step, FineTuning)
        return step


def cells(task: Task, selection: Selection) -> tuple[Cell, ...]:
    """The cells of a task, checkpoints together: methods, then counts, then fine-tunings, then runs."""
    profile = selection.described
    counts = tuple(count for count in selection.counts or profile.counts if count in task.counts)
    if not counts and selection.counts:
        allowed = ", ".join(map(str, task.counts))
        asked = ", ".join(map(str, selection.counts))
        raise UserError(
            sentence(
                f"Task {task.name} has no cell that erases {asked} concepts.",
                allowed=allowed,
                do=f"Choose among {allowed} with --resurgence-counts.",
            )
        )
    return tuple(
        Cell(task=task.name, method=method, count=count, finetuning=finetuning, run=run)
        for method in selection.methods or profile.methods
        for count in counts or task.counts[:2]
        for run in range(selection.runs or profile.runs)
        for finetuning in selection.finetunings or profile.finetunings
    )


def plan_cell(cell: Cell, base: Base, *, task: Task, selection: Selection) -> CellPlan:
    """What this cell asks for on this base."""
    _known("method", [cell.method], METHODS, "--resurgence-methods")
    _known("fine-tuning", [cell.finetuning], FINETUNINGS, "--resurgence-finetune")
    settings = settings_for(preset_of(base), selection.changed)
    sampler = Sampler(**settings["sampler"])
    erased = task.erase(cell.count)
    benign = benign_probe(task, base, selection)
    published = Recipe(base)
    unlearned = published.then(_unlearning(cell, task, erased, settings, sampler))
    forbidden = tuple(word for concept in erased for word in concept.words)
    tuned = unlearned.then(
        FINETUNINGS[cell.finetuning](
            data=BenignSet(probe=benign, forbidden=forbidden), seed=cell.run, **settings[cell.finetuning]
        )
    )
    seeds, retained_seeds, insample_seeds = _seeds(cell.count, task, selection)
    seen = task.preserve if selection.described.paper_seeds else task.preserve[:INSAMPLE]
    return CellPlan(
        cell=cell,
        task=task,
        base=published,
        unlearned=unlearned,
        tuned=tuned,
        erased=Probe(prompts=task.prompts(erased), seeds=seeds, sampler=sampler),
        retained=Probe(prompts=_rotating(task.held_out, task.templates), seeds=retained_seeds, sampler=sampler),
        insample=Probe(prompts=_rotating(seen, task.templates), seeds=insample_seeds, sampler=sampler),
        benign=benign,
        judges=task.judges,
    )


def benign_probe(task: Task, base: Base, selection: Selection) -> Probe:
    """What the base is asked to draw the images of a task's fine-tunings: preserved names, seeds that no probe uses."""
    settings = settings_for(preset_of(base), selection.changed)
    images = settings["benign"]
    return Probe(
        prompts=_rotating(task.preserve[: images["names"]], task.templates),
        seeds=tuple(range(BENIGN_SEED, BENIGN_SEED + images["seeds"])),
        sampler=Sampler(**settings["sampler"]),
    )


def base_model(word: str) -> Base:
    """The base that a person named, "micro" or a local directory, read and checked; UserError says what is wrong."""
    from resurgence_harness.diffusion.base_files import check_base, digest_of

    name, location = word, Path(word).expanduser()
    if word == "micro":
        from resurgence_harness.microworld import weights

        location = Path(weights.directory())
    location = location.absolute()
    check_base(location)
    return Base(digest=digest_of(location), name=name if word == "micro" else location.name, location=str(location))


def preset_of(base: Base) -> str:
    """The preset for a base: "micro" for models at most 128 pixels wide, else "sd"."""
    import json

    try:
        unet = json.loads((Path(base.location) / "unet" / "config.json").read_text(encoding="utf-8"))
        return "micro" if 8 * int(unet["sample_size"]) <= 128 else "sd"
    except (OSError, ValueError, KeyError, TypeError):
        return "micro" if base.name == "micro" else "sd"


def settings_for(preset: str, changed: Iterable[tuple[str, Any]] = ()) -> dict[str, dict[str, Any]]:
    """A preset's values with a person's changes; UserError for a value there is not."""
    settings = {group: dict(values) for group, values in PRESETS[preset].items()}
    for key, value in changed:
        group, _, field = key.partition(".")
        allowed = _fields(group)
        if field not in allowed:
            raise UserError(
                sentence(
                    f'There is no setting "{key}".',
                    settings=", ".join(f"{group}.{name}" for name in allowed) or ", ".join(settings),
                    do="Write --resurgence-set GROUP.NAME=VALUE, for example esd.iterations=500.",
                )
            )
        if allowed[field] == "int" and not isinstance(value, int):
            raise UserError(sentence(f"{key} is {value}.", do="Give a whole number."))
        settings[group][field] = value
    return settings


def parse_change(text: str) -> tuple[str, Any]:
    """ "esd.iterations=500" as ("esd.iterations", 500)."""
    key, equals, value = (part.strip() for part in text.partition("="))
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    if not key or not equals or not isinstance(parsed, int | float) or isinstance(parsed, bool):
        raise UserError(
            sentence(
                f'"{text}" does not set a number.',
                do="Write --resurgence-set GROUP.NAME=VALUE, for example esd.iterations=500.",
            )
        )
    return key, parsed


def allowed_counts() -> tuple[int, ...]:
    """Every count that some task has."""
    return tuple(sorted({count for task in TASKS.values() for count in task.counts}))


def cost(method: str, count: int) -> float:
    """How long a checkpoint's cells take against each other; larger ones are started first."""
    known = METHODS.get(method)
    return (known.minutes if known else 5) * (1 + count / 20)


def _unlearning(
    cell: Cell, task: Task, erased: tuple[Concept, ...], settings: Settings, sampler: Sampler
) -> Unlearning:
    """The cell's unlearning step, its own fields filled from task, variant and preset."""
    method = METHODS[cell.method]
    has = {field.name for field in fields(method.step)}
    asked, seen = task.prompts(erased), _rotating(task.preserve, task.templates)
    forget, retain = (
        Probe(
            prompts=prompts,
            seeds=tuple(range(first, first + ceil(settings["pictures"][kind] / len(prompts)))),
            sampler=sampler,
        )
        for kind, prompts, first in (("forget", asked, FORGET_SEED), ("retain", seen, RETAIN_SEED))
    )
    offered = {
        "anchor": task.anchor,
        "preserve": task.preserve,
        "seed": cell.run,
        "forget": forget,
        "retain": retain,
    }
    values = {name: value for name, value in offered.items() if name in has}
    step: Unlearning = method.step(concepts=erased, **{**values, **method.fixed, **settings[method.step.name]})
    return step


def _seeds(count: int, task: Task, selection: Selection) -> list[tuple[int, ...]]:
    """Seeds of the erased, the retained and the in-sample probe, from 1; the last decides nothing and is small."""
    if selection.seeds:
        numbers = (selection.seeds, selection.seeds, selection.seeds)
    elif selection.described.paper_seeds:
        numbers = (max(5, ceil(50 / count)), 25, 25)
    else:
        each = ceil(max(PAIRS, CONTROL_IMAGES) / (count * len(task.templates)))
        numbers = (each, ceil(RETAINED / len(task.held_out)), 1)
    return [tuple(range(1, number + 1)) for number in numbers]


def _rotating(concepts: tuple[Concept, ...], templates: tuple[str, ...]) -> tuple[Prompt, ...]:
    """One prompt per concept, the templates taken in turn."""
    return tuple(
        Prompt(text=templates[place % len(templates)].format(concept.name), concept=concept.name)
        for place, concept in enumerate(concepts)
    )


def _fields(group: str) -> dict[str, str]:
    """The numbers of a group that a person may change, and whether each is "int" or "float"."""
    steps: dict[str, Any] = {method.step.name: method.step for method in METHODS.values()} | dict(FINETUNINGS)
    if group in ("benign", "pictures"):
        return dict.fromkeys(("names", "seeds") if group == "benign" else ("forget", "retain"), "int")
    owner = Sampler if group == "sampler" else steps.get(group)
    if owner is None:
        return {}
    return {field.name: str(field.type) for field in fields(owner) if field.type in ("int", "float")}


def _known(what: str, values: Iterable[str], known: Iterable[str], flag: str) -> None:
    known = tuple(known)
    for value in values:
        if value not in known:
            raise UserError(
                sentence(
                    f'There is no {what} "{value}".',
                    known=", ".join(known),
                    do=f"Choose with {flag} among the known ones.",
                )
            )


def narrowed(selection: Selection, **marked: tuple[Any, ...] | None) -> Selection | None:
    """The selection within what a test's marker names; None where nothing is left."""
    values: dict[str, Any] = {}
    for name, wanted in marked.items():
        if wanted is None:
            continue
        chosen = getattr(selection, name)
        values[name] = wanted if chosen is None else tuple(value for value in chosen if value in wanted)
        if not values[name]:
            return None
    return replace(selection, **values)
