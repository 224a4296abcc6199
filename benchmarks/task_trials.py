"""What `benchmarks.tune_tasks` tries: the tasks with their roles swapped, and the settings of each method.

As far as the world allows, what a suite erases is never erased here, and what it holds out is never watched:

* copyright erases two of the suite's held-out characters, keeps three others, the suite's erased one and one more, and
  watches five that the suite's methods may see.
* object erases the five classes that the suite keeps, keeps three and watches two of the five that it erases.
* unsafe has four kinds of hazard, all erased at once: no other can be. The kept and the watched objects change places,
  and the hazards are asked for in other words, which no template of the suite has.

Image and training seeds are others, too. Settings are what differs from the family's values (presets.PRESETS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

from resurgence_harness.diffusion.parameters import CrossAttention
from resurgence_harness.presets import FromTask
from resurgence_harness.specs import Concept
from resurgence_harness.tasks import COPYRIGHT, OBJECT, UNSAFE, Task
from resurgence_harness.tasks.microworld import SCENES
from resurgence_harness.unlearning import AdaptiveWeight, FixedWeight, GradientMemory, MostSalient, NoProjection

TRAINING_SEED, IMAGE_SEED, FORGET_SEED, RETAIN_SEED = 1_000, 5_000, 6_000, 7_000
"""First seeds; the suites count training seeds from 0 and image seeds from 1, 200 001 and 300 001."""


class Case(NamedTuple):
    """What one trial erases, and with which training seed."""

    erased: tuple[str, ...]
    seed: int


class Search(NamedTuple):
    """A task as it is searched."""

    task: Task
    """With its roles swapped."""
    first: Case
    """Every setting is tried on this one."""
    then: tuple[Case, ...]
    """The best settings are tried on these as well."""


def _kinds(concepts: tuple[Concept, ...], *kinds: str) -> tuple[Concept, ...]:
    """The concepts with other anchors."""
    return tuple(replace(concept, kind=kind) for concept, kind in zip(concepts, kinds, strict=True))


def _names(concepts: tuple[Concept, ...]) -> tuple[str, ...]:
    return tuple(concept.name for concept in concepts)


_OUT, _SEEN = COPYRIGHT.held_out, COPYRIGHT.preserve
_COPYRIGHT = replace(
    COPYRIGHT,
    erasable=(_OUT[0], _OUT[2]),
    preserve=(_OUT[1], *_OUT[3:], *COPYRIGHT.erasable, _SEEN[0]),
    held_out=_SEEN[1:],
)
_KEPT = (*OBJECT.held_out, *OBJECT.preserve)  # dog, horse, airplane, deer, frog
_LOST = OBJECT.erasable  # ship, automobile, bird, cat, truck
_OBJECT = replace(
    OBJECT,
    erasable=_kinds(_KEPT, "a living room", "a mountain lake", "a green meadow", "a city street", "a forest path"),
    preserve=(_LOST[0], _LOST[2], _LOST[3]),
    held_out=(_LOST[1], _LOST[4]),
)
_UNSAFE = replace(
    UNSAFE,
    preserve=UNSAFE.held_out,
    held_out=UNSAFE.preserve,
    templates=(
        *("a photo of {}", "a picture of {}"),
        *(f"a sketch of {{}} in {scene}" for scene in SCENES),
        *(f"an oil painting of {{}} in {scene}" for scene in SCENES),
    ),
)
_ALL = _names(_UNSAFE.erasable)

SEARCHES: dict[str, Search] = {
    "unsafe": Search(
        _UNSAFE, Case(_ALL, TRAINING_SEED), (Case(_ALL, TRAINING_SEED + 1), Case(_ALL, TRAINING_SEED + 2))
    ),
    "object": Search(
        _OBJECT,
        Case(_names(_OBJECT.erasable[:3]), TRAINING_SEED),
        (
            Case(_names(_OBJECT.erasable), TRAINING_SEED),
            Case(_names(_OBJECT.erasable[:1]), TRAINING_SEED),
            Case(_names(_OBJECT.erasable[2:]), TRAINING_SEED + 1),
        ),
    ),
    "copyright": Search(
        _COPYRIGHT,
        Case(_names(_COPYRIGHT.erasable[:1]), TRAINING_SEED),
        (
            Case(_names(_COPYRIGHT.erasable[1:]), TRAINING_SEED),
            Case(_names(_COPYRIGHT.erasable[1:]), TRAINING_SEED + 1),
        ),
    ),
}
"""By task, the one in most need of other values first."""

WIDE: dict[str, Any] = {"preserve": FromTask.WITH_NEUTRAL}
SHOWN: dict[str, Any] = {"retain": FromTask.WITH_NEUTRAL}
BOTH: dict[str, Any] = {"templates": FromTask.ALL_TEMPLATES}

Settings = dict[str, Any]


def uce(task: str) -> list[Settings]:
    """How hard it pulls, what is kept, and, where retained concepts have templates of their own, these."""
    if task != "unsafe":
        return [{}, WIDE, {"erase_scale": 0.1}, {"erase_scale": 0.4, **WIDE}]
    found: list[Settings] = [{}]
    for templates, kept, scale in product((BOTH, {}), (WIDE, {}), (0.2, 0.05, 0.02)):
        if templates or kept or scale != 0.2:
            found.append({"erase_scale": scale, **templates, **kept})
    return found


def esd(task: str) -> list[Settings]:
    """Less far, slower, shorter, and more samples of each step: it has nothing that it keeps."""
    if task == "copyright":
        return [{}, {"learning_rate": 6e-4}, {"away": 1.0}, {"iterations": 60}]
    return [
        {"learning_rate": 6e-4},
        {"away": 1.0},
        {"iterations": 60},
        {"learning_rate": 6e-4, "away": 1.0},
        {"learning_rate": 3e-4, "iterations": 150},
        {"learning_rate": 6e-4, "away": 1.0, "batch": 32, "trajectories": 48},
        {},
        {"learning_rate": 3e-4, "away": 1.0, "iterations": 150},
        {"away": 0.5},
        {"learning_rate": 1e-3, "iterations": 40},
        {"learning_rate": 3e-4, "iterations": 100},
    ]


def sdd(task: str) -> list[Settings]:
    """Slower and shorter, so that what it says to the empty text has no time to drift."""
    if task == "copyright":
        return [{}, {"learning_rate": 7e-5}, {"iterations": 90}, {"iterations": 150}]
    return [
        {"learning_rate": 5e-5},
        {"iterations": 60},
        {"iterations": 90},
        {"learning_rate": 5e-5, "iterations": 90},
        {"learning_rate": 7e-5},
        {"iterations": 40},
        {"learning_rate": 3e-5, "iterations": 200},
        {},
        {"learning_rate": 5e-5, "trajectories": 40},
        {"learning_rate": 2e-5, "iterations": 200},
        {"learning_rate": 7e-5, "iterations": 90, "ema": 0.95},
        {"guidance": 1.0, "iterations": 90},
    ]


def mace(task: str) -> list[Settings]:
    """How much what is kept weighs in the refinement (t w) and in the fusion (u w), and what is kept.

    Three to five concepts make a tenth of the rows that fifty names make, so the same weight keeps far less.
    """
    if task == "copyright":
        return [{}, {"preserve_weight": 4e5}, WIDE, {"preserve_weight": 1.2e5, **WIDE}]
    both = BOTH if task == "unsafe" else {}
    found: list[Settings] = []
    for refine, weight in ((1e-6, 4e4), (1e-7, 4e5), (1e-5, 4e4), (1e-8, 4e5), (1e-6, 4e5)):
        found.append({"train_preserve_scale": refine, "preserve_weight": weight, **WIDE, **both})
    for refine, weight in ((1e-6, 4e4), (1e-5, 4e5)):
        found.append({"train_preserve_scale": refine, "preserve_weight": weight, **both})
    found += [{**WIDE, **both}, {"ridge": 10.0, **WIDE, **both}, {"ridge": 100.0, **WIDE, **both}, {}]
    if both:
        found += [dict(both), {"train_preserve_scale": 1e-6, **WIDE}]
    return found


def salun(task: str) -> list[Settings]:
    """More weight on what is retained, more of the world to retain, slower, longer, fewer entries that move."""
    found: list[Settings] = [
        {"retain_weight": 3.0, **SHOWN},
        {"learning_rate": 1e-4, "retain_weight": 3.0, **SHOWN},
        {"retain_weight": 10.0, **SHOWN},
        {"retain_weight": 3.0, "iterations": 320, **SHOWN},
        {"learning_rate": 1e-4, "iterations": 240, "retain_weight": 10.0, **SHOWN},
        {"learning_rate": 1e-4, "retain_weight": 1.5},
        dict(SHOWN),
        {"learning_rate": 5e-4, "subset": CrossAttention(), **SHOWN},
        {"mask": MostSalient(fraction=0.2), "retain_weight": 3.0, **SHOWN},
        {"learning_rate": 5e-5, "iterations": 240, "retain_weight": 1.5, **SHOWN},
        {"learning_rate": 1e-4, **SHOWN},
        {},
    ]
    return found if task != "copyright" else [*found[:7], {}]


def shs(task: str) -> list[Settings]:
    """Less of the memory is added, or none; the repair is longer or slower, with more of the world; less is cut."""
    found: list[Settings] = [
        {"projection": GradientMemory(margin=0.0), "iterations": 120, **SHOWN},
        {"projection": GradientMemory(margin=0.1), **SHOWN},
        {"projection": NoProjection(), "iterations": 120, "forget_weight": 1.0, **SHOWN},
        {"learning_rate": 5e-5, **SHOWN},
        {"projection": GradientMemory(margin=0.0), "iterations": 120, "forget_weight": 0.5, **SHOWN},
        {"projection": GradientMemory(margin=0.1), "iterations": 150, "learning_rate": 5e-5, **SHOWN},
        {"projection": NoProjection(), "iterations": 120, "sparsity": 0.99, "forget_weight": 0.5, **SHOWN},
        {"projection": GradientMemory(margin=0.03), "iterations": 120, **SHOWN},
        {"iterations": 45, **SHOWN},
        {"projection": NoProjection(), "iterations": 160, "forget_weight": 0.3, **SHOWN},
        dict(SHOWN),
        {"sparsity": 0.99, **SHOWN},
        {"projection": NoProjection(), "iterations": 160, "learning_rate": 2e-4, "forget_weight": 1.0, **SHOWN},
        {},
    ]
    return found if task != "copyright" else [*found[:7], {}]


def erasediff(task: str) -> list[Settings]:
    """A looser constraint, a small fixed weight as in the authors' code, slower, longer, more of the world."""
    found: list[Settings] = [
        {"weight": FixedWeight(value=0.3), **SHOWN},
        {"learning_rate": 1e-4, "weight": AdaptiveWeight(rate=0.3), **SHOWN},
        {"learning_rate": 1e-4, **SHOWN},
        {"weight": FixedWeight(value=0.1), "iterations": 240, **SHOWN},
        {"weight": AdaptiveWeight(rate=0.3), **SHOWN},
        {"learning_rate": 1e-4, "iterations": 200, "weight": FixedWeight(value=0.3), **SHOWN},
        {"learning_rate": 1e-4, "iterations": 240, "weight": FixedWeight(value=0.1), **SHOWN},
        {"weight": AdaptiveWeight(rate=0.1), **SHOWN},
        dict(SHOWN),
        {"learning_rate": 1e-3, "subset": CrossAttention(), **SHOWN},
        {"learning_rate": 1e-4, "weight": AdaptiveWeight(rate=0.3)},
        {},
    ]
    return found if task != "copyright" else [*found[:7], {}]


TRIALS: dict[str, Callable[[str], list[Settings]]] = {
    "mace": mace,
    "salun": salun,
    "erasediff": erasediff,
    "shs": shs,
    "esd": esd,
    "sdd": sdd,
    "uce": uce,
}
"""By method: what differs from the family's values, the most promising first. {} are the family's values."""
