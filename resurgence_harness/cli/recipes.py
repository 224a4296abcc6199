"""The recipe of each planned cell: the source of its steps' values, and the values that were changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.cli.formatting import format_count
from resurgence_harness.cli.tables import show

if TYPE_CHECKING:
    from resurgence_harness.cli.cells import Cells
    from resurgence_harness.selection import CellPlan


def show_recipes(cells: Cells) -> None:
    """Print a table of recipes, cells of one recipe together; then the notes on the plans."""
    changed = tuple(name for name, _ in cells.engine.options.selection.changed)
    show("cells", "recipe", "values", rows=list(rows(cells.plans, changed)), title="Recipes (docs/settings.md)")
    notes = dict.fromkeys(note for plan, suite in cells.plans for note in cells.engine.notes(plan, suite))
    for note in notes:
        print(note)
    if notes:
        print()


def rows(plans: Sequence[tuple[CellPlan, Path]], changed: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
    """(cells, recipe, values) of every step; `changed` are the settings that the user changed, such as esd.batch."""
    found: dict[tuple[str, str], list[str]] = {}
    for plan, _ in plans:
        for step in plan.tuned.steps:
            own = [name.partition(".")[2] for name in changed if name.partition(".")[0] == step.name]
            recipe = describe_recipe(plan, step) + (f", but for {', '.join(own)}" if own else "")
            row = recipe, describe_values(step)
            found.setdefault(row, []).append(f"{plan.cell.task}/{plan.cell.id}")
    for (recipe, values), names in found.items():
        names = list(dict.fromkeys(names))
        yield names[0] if len(names) == 1 else f"{names[0]} and {format_count(len(names) - 1, 'other')}", recipe, values


def describe_recipe(plan: CellPlan, step: object) -> str:
    """ "esd: ESD, the script of 2023 (rohitgandikota/erasing@a2189e9, …)"; "esd: the microworld's values"."""
    from resurgence_harness.presets import PRESETS, preset_of
    from resurgence_harness.presets.origins import recipe_of
    from resurgence_harness.presets.recipes import FAMILY
    from resurgence_harness.unlearning import Given

    name = str(getattr(step, "name", ""))
    if hasattr(step, "command"):
        return f"{name}: a command of the settings file"
    if isinstance(step, Given):
        return f"{step.model.name}: {step.model.label}"
    if preset_of(plan.base.base) == "micro" and name in PRESETS["micro"]:
        return f"{name}: the microworld's values"
    recipe = recipe_of(name, plan.task.name) or recipe_of(name, FAMILY)
    return f"{name}: {recipe.description}" if recipe is not None else f"{name}: the defaults of its class"


def describe_values(step: object) -> str:
    """The settings of a step, in one line."""
    from dataclasses import fields

    from resurgence_harness.diffusion.commands import Command
    from resurgence_harness.presets.choices import NOT_CHOSEN
    from resurgence_harness.presets.origins import shown
    from resurgence_harness.unlearning import Given

    if isinstance(command := getattr(step, "command", None), Command):
        return command.described
    if isinstance(step, Given):
        return f"digest {step.model.digest[:12]}"
    values = []
    for one in fields(step):  # type: ignore[arg-type]
        value = getattr(step, one.name)
        if one.name in (*NOT_CHOSEN, "retain", "seed"):
            continue
        if isinstance(value, tuple):
            values.append(f"{one.name} {len(value)}")
        else:
            values.append(f"{one.name} {shown(value)}")
    return ", ".join(values)
