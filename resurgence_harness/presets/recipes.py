"""The authors' published recipes for Stable Diffusion: one complete recipe for each unlearning method and task.

    RECIPES["mace"]["object"].settings            {"learning_rate": 1e-05, "iterations": 50, …}

Values were read from the authors' public code at the commits named here; none of that code is in this project. If
nothing was published for a task, `nearest` gives the reason for the recipe that is used. `ours` are values that no
author gives or that we set otherwise, each with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resurgence_harness.diffusion.parameters import CrossAttention, Everything, NonCrossAttention
from resurgence_harness.presets.values import ByCount, FromTask, OwnPictures, PerPreserved
from resurgence_harness.tasks.captions import CAPTIONS
from resurgence_harness.unlearning import (
    CaptionSample,
    Denoising,
    FixedWeight,
    FocalTimesteps,
    FrobeniusNorm,
    Guided,
    KaimingUniform,
    MostSalient,
    NameReplaced,
    NoProjection,
    Redirect,
    ScaledTwice,
    TeacherOutput,
    TextReplaced,
    UniformTimesteps,
)

Ours = Mapping[str, tuple[Any, str]]
"""Field → (value, why it is not the authors')."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a value was read."""

    repository: str
    commit: str
    place: str
    """A file, or several."""

    def __str__(self) -> str:
        """ "Shilin-LU/MACE@057e7a6, configs/object/erase_ship.yaml"."""
        return f"{self.repository}@{self.commit}, {self.place}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One published way to run one method."""

    title: str
    """The authors' name for it, or what they used it for."""
    source: Source
    values: Mapping[str, Any]
    """Fields of the step, with the authors' values."""
    ours: Ours = field(default_factory=dict)
    nearest: str = ""
    """Why it is used for a task for which nothing was published; empty if it was published for the task."""
    differs: tuple[str, ...] = ()
    """Differences between the authors' paper and code, or between their code and this package."""

    @property
    def settings(self) -> dict[str, Any]:
        """Every value; ours take precedence over theirs."""
        return {**self.values, **{name: value for name, (value, _) in self.ours.items()}}

    @property
    def description(self) -> str:
        """In one line, with its source."""
        return f"{'nearest published: ' if self.nearest else ''}{self.title} ({self.source})"


_CAPTIONS = (
    CaptionSample(captions=CAPTIONS),
    "COCO's captions cannot be shipped: forty of our own replace its 616,767; --resurgence-captions gives a file",
)
_RIDGE = (0.1, "theirs is 0, which leaves directions that no text has undetermined")
_TOGETHER = "affects memory only"

# ESD

_ESD = Recipe(
    title="ESD, the script of 2023",
    source=Source(repository="rohitgandikota/erasing", commit="a2189e9", place="train-scripts/train-esd.py, README.md"),
    values={
        "iterations": 1_000,
        "iterations_per_concept": 0,
        "batch": 1,
        "learning_rate": 1e-5,
        "away": 1.0,
        "guidance": 3.0,
        "trajectory_steps": 50,
        "templates": ("{}",),
    },
    ours={"trajectories": (32, "theirs draws one for each update and uses one step of it; here all 50 steps are used")},
    differs=(
        "Their script of 2025 (25613d2) takes 200 updates at 5e-5 in bfloat16, in which many updates vanish; its η of "
        "2 is this file's 1.",
        "The paper takes esd-x for styles and esd-u for nudity and objects: choose the method esd-u for these.",
    ),
)

# SDD

_SDD = Recipe(
    title="SDD, nudity",
    source=Source(repository="nannullna/safe-diffusion", commit="a2e820c", place="run_sdd_nudity.sh, train_sdd.py"),
    values={
        "iterations": 1_500,
        "batch": 1,
        "learning_rate": 1e-5,
        "ema": 0.999,
        "guidance": 3.0,
        "trajectory_steps": 50,
        "subset": CrossAttention(),
        "output": TeacherOutput(),
        "templates": ("{}",),
    },
    ours={
        "iterations_per_concept": (15, "what 1,500 updates give to each of 100 names; never more than theirs below"),
        "refresh": (50, "theirs draws each trajectory anew from the teacher, which moves by a thousandth a step"),
        "trajectories": (2, "as above"),
    },
)

# UCE


def _uce(
    title: str, place: str, *, values: Mapping[str, Any] | None = None, ours: Ours, differs: tuple[str, ...] = ()
) -> Recipe:
    return Recipe(
        title=title,
        source=Source(repository="rohitgandikota/unified-concept-editing", commit="35e91e2", place=place),
        values={
            "erase_scale": 1.0,
            "preserve_scale": PerPreserved(0.1),
            "ridge": 0.5,
            "templates": ("{}",),
            **(values or {}),
        },
        ours=ours,
        differs=(
            "Their code of 2025 (28c81ed) edits only the last token and preserves at 1: the method uce-last.",
            *differs,
        ),
    )


_UCE_FILE = "train-scripts/train_erase.py"
_UCE_NEUTRAL = (FromTask.WITH_NEUTRAL, "theirs preserves nothing here, at which users report noise (issues 2, 4, 27)")
_UCE_EMPTY = {"anchor": " "}

# MACE


def _mace(title: str, place: str, *, values: Mapping[str, Any], ours: Ours, nearest: str = "") -> Recipe:
    return Recipe(
        title=title,
        source=Source(repository="Shilin-LU/MACE", commit="057e7a6", place=place),
        values={
            "rank": 1,
            "batch": 1,
            "scaling": ScaledTwice(),
            "penalty": FrobeniusNorm(),
            "forget": OwnPictures("a photo of the {}", 8),
            **values,
        },
        ours={"together": (2, _TOGETHER), **ours},
        nearest=nearest,
        differs=(
            "The paper's objective squares the attention's norm, the code does not.",
            "Their code multiplies by t twice in refinement, once in fusion.",
            "Masks: theirs are Grounded-SAM's; here the base's own attention unless `mace.masks` is set.",
            "Prompts: thirty of our own wording; theirs are written by the script.",
        ),
    )


_MACE_CELEBRITY = {
    "learning_rate": 1e-4,
    "iterations": 50,
    "train_preserve_scale": 1e-4,
    "fuse_preserve_scale": 1e-4,
    "preserve_weight": ByCount.of({1: 8e3, 5: 5e4, 10: 8e4, 100: 2e5}),
    "timesteps": FocalTimesteps(),
}
_MACE_NAMES = "configs/celebrity/erase_cele_{1,5,10,100}.yaml"

# SalUn, SHS and EraseDiff

_SALUN = "OPTML-Group/Unlearn-Saliency"


def _salun_class(nearest: str) -> Recipe:
    return Recipe(
        title="SalUn, one Imagenette class",
        source=Source(repository=_SALUN, commit="a6e89fd", place="SD/README.md, SD/train-scripts/random_label.py"),
        values={
            "retain_weight": 0.5,
            "batch": 8,
            "learning_rate": 1e-5,
            "mask": MostSalient(fraction=0.5, loss=Guided(guidance=7.5)),
            "subset": Everything(),
            "pseudo": NameReplaced(),
        },
        ours={
            "iterations": (600, "their 5 epochs of the class's 960 pictures in batches of 8"),
            "iterations_per_concept": (0, "theirs erases one class"),
            "retain": (FromTask.WITH_NEUTRAL, "theirs are the nine other classes"),
        },
        nearest=nearest,
        differs=("README: α .5; the script's default: .1.", "Pictures are drawn by the base; theirs are Imagenette's."),
    )


_SALUN_NUDITY = Recipe(
    title="SalUn, nudity",
    source=Source(repository=_SALUN, commit="a6e89fd", place="SD/README.md, SD/train-scripts/nsfw_removal.py"),
    values={
        "retain_weight": 0.1,
        "iterations": 100,
        "batch": 8,
        "learning_rate": 1e-5,
        "mask": MostSalient(fraction=0.5, loss=Guided(guidance=7.5)),
        "subset": Everything(),
        "pseudo": TextReplaced(),
    },
    ours={
        "iterations_per_concept": (0, "theirs erases one word"),
        "retain": (FromTask.WITH_NEUTRAL, "theirs are 800 pictures of clothed people"),
    },
    nearest="the one recipe of theirs for harmful content",
)


def _shs(nearest: str, *, pseudo: NameReplaced | TextReplaced, why: str) -> Recipe:
    return Recipe(
        title="Scissorhands, nudity, the snapshot at 99 updates",
        source=Source(repository="JingWu321/Scissorhands", commit="73ae065", place="SD/shs_nsfw.py, SD/train_shs.sh"),
        values={
            "sparsity": 0.995,
            "forget_weight": 0.1,
            "trim_batches": 10,
            "learning_rate": 1e-5,
            "batch": 16,
            "iterations": 99,
            "projection": NoProjection(),
            "saliency": Denoising(),
            "redraw": KaimingUniform(),
            "repair": Redirect(),
            "ranked": Everything(),
            "subset": Everything(),
        },
        ours={
            "iterations_per_concept": (0, "theirs is one run"),
            "pseudo": (pseudo, why),
            "retain": (FromTask.WITH_NEUTRAL, "theirs are pictures of clothed people"),
        },
        nearest=nearest,
        differs=(
            "The paper projects gradients onto a memory; the script defines that and never calls it: method shs-gem.",
            "README: 3 epochs; train_shs.sh: 5; what they publish are snapshots at 89, 99 and 109 updates.",
            "Their recipe for a class climbs the denoising loss without a bound (79 updates, sparsity .999, 2e-5).",
        ),
    )


def _erasediff(title: str, place: str, values: Mapping[str, Any], nearest: str = "") -> Recipe:
    return Recipe(
        title=title,
        source=Source(repository="JingWu321/EraseDiff", commit="14f4e98", place=place),
        values={
            "weight": FixedWeight(value=1.0),
            "batch": 16,
            "learning_rate": 1e-5,
            "pseudo": TextReplaced(),
            "anchor": "a photo of a pokemon",
            **values,
        },
        ours={
            "iterations_per_concept": (0, "theirs does not grow with the erase set"),
            "retain": (FromTask.WITH_NEUTRAL, "theirs are the other classes, or pictures of clothed people"),
        },
        nearest=nearest,
        differs=(
            "The paper's λ adapts; their scripts for Stable Diffusion take 1 (train_*.sh), or .1 by default.",
            "Their inner loop (K steps) does not change the outer gradient, and is not run here.",
            "Until May 2024 the scripts took the next class, or a clothed person, for c'.",
        ),
    )


_MACE_EXPLICIT = {
    "learning_rate": 1e-5,
    "iterations": 120,
    "train_preserve_scale": 7e-7,
    "fuse_preserve_scale": 7e-7,
    "preserve_weight": 0.0,
    "preserve": (),
    "timesteps": UniformTimesteps(),
}
_ERASEDIFF_CLASS = {"iterations": 60, "subset": Everything()}
_NO_NAMES = "published for an Imagenette class; the authors published nothing for names of people or characters"
_ONE_SD = "the authors published nothing for this task; their only recipe for Stable Diffusion is that for nudity"

RECIPES: dict[str, dict[str, Recipe]] = {
    "esd": {
        "celebrity": _ESD,
        "copyright": _ESD,
        "object": _ESD,
        "unsafe": _ESD,
        "nudity": _ESD,
    },
    "sdd": {
        "unsafe": _SDD,
        "nudity": _SDD,
        **{
            task: Recipe(title=_SDD.title, source=_SDD.source, values=_SDD.values, ours=_SDD.ours, nearest=_ONE_SD)
            for task in ("celebrity", "copyright", "object")
        },
    },
    "uce": {
        "celebrity": _uce("UCE, 2023, concepts towards a kind", _UCE_FILE, ours={}),
        "copyright": _uce(
            "UCE, 2023, a character towards its kind",
            f"{_UCE_FILE}, data/info/erased-chewbacca-towards_bear-preserve_true-sd_1_4-method_replace.txt",
            ours={"preserve": _UCE_NEUTRAL},
        ),
        "object": _uce(
            "UCE, 2023, Imagenette classes towards the empty text",
            f"{_UCE_FILE}, data/info/erased-imagenette-towards_uncond-preserve_false-sd_1_4-method_replace.txt",
            values=_UCE_EMPTY,
            ours={"preserve": _UCE_NEUTRAL},
        ),
        "unsafe": _uce(
            'UCE, 2023, its list of unsafe words ("i2g") towards the empty text',
            _UCE_FILE,
            values=_UCE_EMPTY,
            ours={"preserve": _UCE_NEUTRAL},
            differs=("Their list has eleven words; the task's four are erased here.",),
        ),
        "nudity": _uce(
            'UCE, 2023, its list of unsafe words ("i2g") towards the empty text',
            _UCE_FILE,
            values=_UCE_EMPTY,
            ours={"preserve": _UCE_NEUTRAL},
            differs=("Their list has eleven words; the task's one is erased here.",),
        ),
    },
    "mace": {
        "celebrity": _mace(
            "MACE, celebrities by their number",
            _MACE_NAMES,
            values=_MACE_CELEBRITY,
            ours={"ridge": _RIDGE, "general": _CAPTIONS},
        ),
        "copyright": _mace(
            "MACE, one celebrity",
            "configs/celebrity/erase_cele_1.yaml",
            values={**_MACE_CELEBRITY, "preserve_weight": 8e3},
            ours={
                "ridge": _RIDGE,
                "general": _CAPTIONS,
                "preserve": (FromTask.WITH_NEUTRAL, "theirs is a cache over celebrities; the task has eight names"),
            },
            nearest="the authors published nothing for a character; the recipe for one person's name is nearest",
        ),
        "object": _mace(
            "MACE, single objects",
            "configs/object/erase_{ship,automobile,bird}.yaml",
            values={
                "learning_rate": 1e-5,
                "iterations": 50,
                "train_preserve_scale": 0.0,
                "fuse_preserve_scale": 0.0,
                "preserve_weight": 0.0,
                "preserve": (),
                "general": (),
                "timesteps": FocalTimesteps(),
            },
            ours={
                "ridge": (
                    ByCount.of({1: 1e3, 3: 1e2, 5: 1e2}),
                    "theirs: ship 1e3, automobile 1e2, bird 1e1, one at a time; for several at once the middle one",
                )
            },
        ),
        "unsafe": _mace(
            "MACE, explicit content",
            "configs/explicit_content/erase_explicit_content.yaml",
            values=_MACE_EXPLICIT,
            ours={"ridge": _RIDGE, "general": _CAPTIONS},
            nearest="their one recipe for harmful content: four words at once, as here",
        ),
        "nudity": _mace(
            "MACE, explicit content",
            "configs/explicit_content/erase_explicit_content.yaml",
            values=_MACE_EXPLICIT,
            ours={"ridge": _RIDGE, "general": _CAPTIONS},
            nearest="theirs erases four words (nudity, naked, erotic, sexual), the task one",
        ),
    },
    "salun": {
        "celebrity": _salun_class(_NO_NAMES),
        "copyright": _salun_class(_NO_NAMES),
        "object": _salun_class(""),
        "unsafe": _SALUN_NUDITY,
        "nudity": replace(_SALUN_NUDITY, nearest=""),
    },
    "shs": {
        **{
            task: _shs(
                "the bounded one of their two recipes for Stable Diffusion",
                pseudo=NameReplaced(),
                why="theirs is one text for one kind of picture",
            )
            for task in ("celebrity", "copyright", "object")
        },
        "unsafe": _shs("their recipe for harmful content", pseudo=TextReplaced(), why="theirs, with the task's anchor"),
        "nudity": _shs("", pseudo=TextReplaced(), why="theirs, with the task's anchor"),
    },
    "erasediff": {
        **{
            task: _erasediff(
                "EraseDiff, one Imagenette class",
                "sd/train_scripts/train_cls.sh, erasediff_cls.py",
                _ERASEDIFF_CLASS,
                "" if task == "object" else _NO_NAMES,
            )
            for task in ("celebrity", "copyright", "object")
        },
        "unsafe": _erasediff(
            "EraseDiff, nudity",
            "sd/train_scripts/train_nsfw.sh, erasediff_nsfw.py",
            {"iterations": 160, "subset": NonCrossAttention()},
            "their one recipe for harmful content",
        ),
        "nudity": _erasediff(
            "EraseDiff, nudity",
            "sd/train_scripts/train_nsfw.sh, erasediff_nsfw.py",
            {"iterations": 160, "subset": NonCrossAttention()},
        ),
    },
}
"""By the step's name and the task's."""

FAMILY = "celebrity"
"""The task whose recipes are used for users' own tasks: any number of names."""
