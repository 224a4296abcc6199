"""Recipes of several stages, as the user writes them: --resurgence-recipe, and `recipes:` in the settings file.

    uce(2) > lora > uce(+2) > full            erase two concepts, fine-tune, erase two more, fine-tune
    yearly: uce > lora > uce > lora           the same with a name, which stands in the ids of its cells

A stage is the name of a fine-tuning, or of an unlearning method with the concepts that it erases:

    uce(2)     the task's erase set of two concepts
    uce(+2)    the next two concepts that no stage before has erased
    uce        all that the stages before have erased, once more; the first unlearning: --resurgence-counts

In the settings file a recipe may be such a text or a list whose items are stages, as text or with their own values:

    recipes:
      yearly:
        - uce(2)
        - {finetuning: lora, data: customer/, settings: {steps: 200}}
        - {unlearning: uce, concepts: [Alba Drummond, Ivo Yarrow]}
        - lora

A recipe has an unlearning, and ends with a fine-tuning: the claim is that nothing comes back in one. It may begin with
a fine-tuning, as a model that was fine-tuned before anybody asked for an erasure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.finetuning import FINETUNINGS, ImageFolder
from resurgence_harness.presets import choices
from resurgence_harness.presets.methods import METHODS
from resurgence_harness.specs import Concept, Life, Stage
from resurgence_harness.tasks import Task

MOST_STAGES = 100
"""Maximum number of stages of a recipe."""
LONGEST_NAME = 60
"""Maximum characters of a recipe's given name."""
_STAGE = re.compile(r"(?P<name>[^\s():>]+)\s*(?:\(\s*(?P<more>\+?)\s*(?P<number>[0-9]{1,6})\s*\))?")
_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z][a-z0-9_]*)*")
_FLAG = 'Write stages as NAME, NAME(2) or NAME(+2), separated by >: --resurgence-recipe "uce(2) > lora".'
_KEYS = ("unlearning", "finetuning", "concepts", "data", "settings")


def parse_life(text: str, *, name: str = "") -> Life:
    """The recipe that a text describes. UserError naming stage and position of the first mistake.

    `name`: given elsewhere; otherwise the text may begin with "NAME:", else the name is made of the stages.
    """
    start = 0
    if not name and ":" in text:
        name, _, _ = text.partition(":")
        start = len(name) + 1
        name = _checked_name(name.strip(), text)
    stages = []
    for place, part in enumerate(text[start:].split(">"), start=1):
        where = start + len(part) - len(part.lstrip())
        stages.append(_stage(part.strip(), _Place(place, text, where + 1)))
        start += len(part) + 1
    return _checked(stages, name, text)


def read_lives(content: Any, folder: Path, *, images: Callable[[Path], ImageFolder]) -> tuple[Life, ...]:
    """The recipes of a settings file's `recipes:`; UserError naming recipe and stage of the first mistake.

    `folder`: the file's, for relative paths. `images`: reads a folder of fine-tuning images.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(sentence("recipes: names no recipe.", got=shown(repr(content)), do=f"Write names and {_LIST}"))
    lives = []
    for name, written in content.items():
        _checked_name(name, f"recipes.{name}")
        if isinstance(written, str):
            lives.append(parse_life(written, name=name))
            continue
        if not isinstance(written, Sequence) or not written:
            raise UserError(
                sentence(f"The recipe {name} has no stages.", got=shown(repr(written)), do=f"Write {_LIST}")
            )
        stages = []
        for place, item in enumerate(written, start=1):
            here = _Place(place, f"recipes.{name}", 0)
            if isinstance(item, str):
                stages.append(_stage(item.strip(), here))
            else:
                stages.append(_stage_with_values(item, here, folder, images))
        lives.append(_checked(stages, name, f"recipes.{name}"))
    return tuple(lives)


def check_lives(lives: Sequence[Life]) -> None:
    """UserError if two recipes have the same name."""
    seen: dict[str, Life] = {}
    for life in lives:
        if life.name in seen:
            raise UserError(
                sentence(
                    f'Two recipes are called "{life.name}".',
                    first=seen[life.name],
                    second=life,
                    do='Give each its own name: --resurgence-recipe "NAME: uce(2) > lora".',
                )
            )
        seen[life.name] = life


def written_out(life: Life) -> str | None:
    """The text that `parse_life` reads as this recipe; None if its stages have values, data or names of concepts."""
    if any(stage.named or stage.changed or stage.data is not None for stage in life.stages):
        return None
    return str(life) if life.name == _made_name(life.stages) else f"{life.name}: {life}"


def closed(life: Life, count: int) -> Life:
    """The recipe whose first unlearning erases `count` concepts, if its number is open."""
    if not life.open:
        return life
    place = next(place for place, stage in enumerate(life.stages) if stage.unlearning)
    first = replace(life.stages[place], first=count)
    return replace(life, stages=(*life.stages[:place], first, *life.stages[place + 1 :]))


def erasures(life: Life, task: Task) -> tuple[tuple[Concept, ...], ...]:
    """The concepts that each stage of a recipe without an open number erases; () for a fine-tuning.

    UserError for more concepts than the task has, and for a name that it does not have.
    """
    known = {concept.name: concept for concept in task.erasable}
    erased: dict[str, Concept] = {}
    found = []
    for place, stage in enumerate(life.stages, start=1):
        own: tuple[Concept, ...] = ()
        if stage.unlearning:
            left = [concept for concept in task.erasable if concept.name not in erased]
            if stage.named:
                if unknown := [name for name in stage.named if name not in known]:
                    raise UserError(
                        sentence(
                            f'Stage {place} of the recipe {life.name} erases "{unknown[0]}", '
                            f"which task {task.name} does not have.",
                            known=shown(", ".join(known)),
                            do="Name concepts that the task can erase.",
                        )
                    )
                own = tuple(known[name] for name in stage.named)
            elif stage.more:
                own = tuple(left[: stage.more])
            elif stage.first:
                own = task.erase(stage.first) if stage.first <= len(task.erasable) else ()
            else:
                own = tuple(erased.values())
            if len(own) < (stage.more or stage.first or 1):
                raise UserError(
                    sentence(
                        f"Stage {place} of the recipe {life.name} erases more concepts than task {task.name} has.",
                        stage=stage,
                        concepts=f"{len(task.erasable)}, of which earlier stages erase {len(erased)}",
                        do="Erase fewer, or leave the number out to erase the same ones again.",
                    )
                )
            erased |= {concept.name: erased.get(concept.name, concept) for concept in own}
        found.append(own)
    return tuple(found)


_LIST = "a list of stages below each: - uce(2)"


class _Place:
    """Where a stage stands."""

    def __init__(self, number: int, recipe: str, character: int) -> None:
        """`number` and `character` count from 1; a character of 0 is unknown."""
        self.number, self.recipe, self.character = number, recipe, character

    def wrong(self, problem: str, *, do: str = _FLAG, **facts: object) -> UserError:
        """The error for this stage; `problem` follows "Stage 2 of the recipe"."""
        position = {"position": f"character {self.character}"} if self.character else {}
        recipe = shown(self.recipe, limit=200)
        return UserError(
            sentence(f"Stage {self.number} of the recipe {problem}.", recipe=recipe, **position, **facts, do=do)
        )


def _stage(text: str, place: _Place) -> Stage:
    if not text:
        raise place.wrong("is empty")
    found = _STAGE.fullmatch(text)
    if found is None:
        raise place.wrong(f'is "{shown(text)}", which is not readable')
    name, number = found["name"], found["number"]
    unlearning = _is_unlearning(name, place)
    if number is None:
        return Stage(name=name, unlearning=unlearning)
    if not unlearning:
        raise place.wrong(f'is "{text}", but a fine-tuning erases no concepts', do=f"Write {name} alone.")
    if not int(number):
        raise place.wrong(f'is "{text}", which erases nothing', do="Give a number of 1 or more.")
    if found["more"]:
        return Stage(name=name, unlearning=True, more=int(number))
    return Stage(name=name, unlearning=True, first=int(number))


def _is_unlearning(name: str, place: _Place) -> bool:
    if name not in METHODS and name not in FINETUNINGS:
        raise place.wrong(
            f'is "{shown(name)}", which is neither an unlearning method nor a fine-tuning',
            unlearnings=", ".join(METHODS),
            finetunings=", ".join(FINETUNINGS),
            do="Choose among the known names; `resurgence list` shows them.",
        )
    return name in METHODS


def _stage_with_values(item: Any, place: _Place, folder: Path, images: Callable[[Path], ImageFolder]) -> Stage:
    example = "Write {unlearning: uce, concepts: 2} or {finetuning: lora, data: DIR, settings: {steps: 200}}."
    if not isinstance(item, Mapping) or not item:
        raise place.wrong("is empty" if not item else f"is {shown(repr(item))}, which is no stage", do=example)
    if unknown := [key for key in item if key not in _KEYS]:
        raise place.wrong(f'has a key "{shown(str(unknown[0]))}"', keys=", ".join(_KEYS), do=example)
    kinds = [key for key in _KEYS[:2] if key in item]
    if len(kinds) != 1:
        raise place.wrong("needs either an unlearning or a fine-tuning", keys=", ".join(map(str, item)), do=example)
    unlearning = kinds[0] == "unlearning"
    name = item[kinds[0]]
    if not isinstance(name, str) or _is_unlearning(name, place) is not unlearning:
        raise place.wrong(f"names {shown(repr(name))} as {kinds[0]}, which it is not", do=example)
    if ("data" if unlearning else "concepts") in item:
        kind = "an unlearning has no data" if unlearning else "a fine-tuning erases no concepts"
        raise place.wrong(f'is "{name}": {kind}', do=example)
    group = METHODS[name].step.name if unlearning else name
    data = item.get("data")
    if "data" in item and (not isinstance(data, str) or not data):
        raise place.wrong(f"has the data {shown(repr(data))}, which is no folder", do=example)
    return Stage(
        name=name,
        unlearning=unlearning,
        **_concepts(item["concepts"], place) if "concepts" in item else {},
        changed=_changed(item["settings"], group, folder, place) if "settings" in item else (),
        data=images(folder / Path(data).expanduser()) if data else None,
    )


def _concepts(value: Any, place: _Place) -> dict[str, Any]:
    """The fields of a stage for its `concepts`: 2, "+2", or a list of names."""
    do = 'Write concepts: 2, concepts: "+2" or a list of names.'
    if isinstance(value, str) and re.fullmatch(r"\+[0-9]{1,6}", value) and int(value):
        return {"more": int(value)}
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return {"first": value}
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise place.wrong(f"erases {shown(repr(value))}, which names no concepts", do=do)
    if repeated := [one for number, one in enumerate(value) if one in value[:number]]:
        raise place.wrong(f'names the concept "{repeated[0]}" twice', do="Name each concept once.")
    return {"named": tuple(value)}


def _changed(values: Any, group: str, folder: Path, place: _Place) -> tuple[tuple[str, Any], ...]:
    if not isinstance(values, Mapping) or not values:
        raise place.wrong(f"has the settings {shown(repr(values))}, which set nothing", do="Write {steps: 200}.")
    found = []
    for name, value in values.items():
        try:
            found.append((f"{group}.{name}", choices.read(f"{group}.{name}", value, folder=folder)))
        except UserError as problem:
            raise UserError(f"Stage {place.number} of the recipe {place.recipe}: {problem}") from None
    return tuple(found)


def _checked(stages: Sequence[Stage], name: str, text: str) -> Life:
    """The recipe, if its stages make one."""
    recipe = shown(text, limit=200)
    if len(stages) > MOST_STAGES:
        raise UserError(
            sentence(f"The recipe has {len(stages)} stages.", recipe=recipe, do=f"Give at most {MOST_STAGES}.")
        )
    if not any(stage.unlearning for stage in stages):
        raise UserError(
            sentence(
                "The recipe has no unlearning, so nothing in it can come back.",
                recipe=recipe,
                methods=", ".join(METHODS),
                do='Add one before a fine-tuning: "uce(2) > lora".',
            )
        )
    if stages[-1].unlearning:
        raise UserError(
            sentence(
                "The recipe ends with an unlearning; the claim is that nothing comes back in a fine-tuning.",
                recipe=recipe,
                do="End it with a fine-tuning.",
            )
        )
    return Life(name=name or _made_name(stages), stages=tuple(stages))


def _made_name(stages: Iterable[Stage]) -> str:
    """ "uce2-lora-uce2more-full" for uce(2) > lora > uce(+2) > full."""
    return "-".join(stage.name + (f"{stage.more}more" if stage.more else str(stage.first or "")) for stage in stages)


def _checked_name(name: Any, recipe: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UserError(
            sentence(
                f'A recipe cannot be called "{shown(str(name))}".',
                recipe=shown(recipe, limit=200),
                do=f"Use up to {LONGEST_NAME} small letters, digits and hyphens, with a letter after each hyphen.",
            )
        )
    if name in METHODS:
        raise UserError(
            sentence(
                f'The recipe "{name}" has the name of an unlearning method.',
                recipe=shown(recipe, limit=200),
                do="Give it another name: accepted limits name cells by their method.",
            )
        )
    return name
