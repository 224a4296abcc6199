"""Origins of values that no recipe sets: those that a cell fills in, and a step's own defaults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from resurgence_harness.presets import choices
from resurgence_harness.presets.finetune_recipes import FINETUNE_RECIPES
from resurgence_harness.presets.methods import METHODS
from resurgence_harness.presets.recipes import RECIPES, Recipe
from resurgence_harness.presets.sd import TRAINING
from resurgence_harness.presets.values import FILLED_IN

SEED = ("the cell's run", "theirs: 2024 (MACE), 42 (SDD), 1337 (fine-tuning), none (others)")
FILLED: dict[str, tuple[str, str]] = {
    "concepts": ("the task's erase set", "paper"),
    "forget": ("pictures.forget images of the task's prompts", "ours: drawn by the base"),
    "retain": ("pictures.retain images of the task's retained prompts", "ours: drawn by the base"),
    "data": ("benign.names × benign.seeds images", "paper's authors: 250 images drawn by SD v1.4 (inferred)"),
    "save_at": ("--resurgence-steps", "ours"),
    "sampler": ("those of the run", "ours"),
    "seed": SEED,
    "arithmetic": (TRAINING, "ours: one for every method (docs/performance.md)"),
}
"""Fields that a cell fills in → (with what, its origin)."""
FILLED_FOR: dict[str, dict[str, tuple[str, str]]] = {
    "dreambooth": {
        "data": ("five images of one retained concept, or given ones", "diffusers/dog-example has five"),
        "instance_prompt": ("each image's own caption", "ours: set it for images of one subject"),
        "class_prompt": ("a photo of the concept's kind; to be set for given images", "ours: after their README"),
    },
}
"""The same for fields of one step, which take precedence."""
DEFAULTS: dict[str, dict[str, str]] = {
    "uce": {
        "anchor": "paper's: an abstract class; the authors give one for a whole run (Chewbacca towards bear)",
        "preserve": "ours: the task's retained concepts that methods may see",
        "tokens": "the method's name",
    },
    "esd": {"subset": "the method's name"},
    "mace": {
        "anchor": "code: mapping_concept, here the kind of the task's concepts",
        "masks": "ours: theirs are Grounded-SAM's (mace.masks: {kind: segmented, …})",
        "preserve": "ours: theirs is an undocumented cache of captions",
        "templates": "ours: thirty, as many as theirs",
    },
    "salun": {"anchor": "ours: theirs is the next class, or a clothed person"},
    "shs": {"anchor": "ours: theirs is a clothed person", "scope": "code: output_blocks.4 and .7, attn1"},
}
"""Fields that a recipe leaves at the class's default, or to the task → their origin."""


class Line(NamedTuple):
    """One value of a step."""

    field: str
    value: str
    origin: str


def recipe_of(step: str, task: str) -> Recipe | None:
    """The recipe of an unlearning for a task, or of a fine-tuning; None for a user's own task."""
    return FINETUNE_RECIPES.get(step) or RECIPES.get(step, {}).get(task)


def lines_of(step: str, recipe: Recipe) -> Iterator[Line]:
    """Every field of a step under a recipe, with its value and origin; KeyError for a field without an origin."""
    kind = choices.owners()[step]
    for one in fields(kind):
        name = one.name
        if name in recipe.ours:
            value, why = recipe.ours[name]
            yield Line(name, shown(value), f"ours: {why}")
        elif name in recipe.values:
            yield Line(name, shown(recipe.values[name]), "code")
        elif name in FILLED_FOR.get(step, {}):
            yield Line(name, *FILLED_FOR[step][name])
        elif name in FILLED:
            yield Line(name, *FILLED[name])
        else:
            filled = {"anchor": "the concept's kind, or the task's anchor", "preserve": "the task's preserved concepts"}
            word = "set by the method's name" if any(name in own.fixed for own in METHODS.values()) else ""
            default = one.default if one.default_factory is MISSING else one.default_factory()
            yield Line(name, filled.get(name) or word or shown(default), DEFAULTS[step][name])


def shown(value: Any) -> str:
    """A value as it is written in a table."""
    if isinstance(value, FILLED_IN):
        return str(value)
    if getattr(value, "captions", None) is not None:
        return f"{len(value.captions)} captions of our own, for {value.stand_for:,}"
    if is_dataclass(value) and not isinstance(value, type):
        own = ", ".join(f"{one.name} {shown(getattr(value, one.name))}" for one in fields(value))
        return f"{getattr(value, 'name', type(value).__name__)}" + (f" ({own})" if own else "")
    text = choices.written(value)
    return {"": '""', " ": '" "'}.get(text, text) if len(text) <= 100 else f"{len(value)} texts"
