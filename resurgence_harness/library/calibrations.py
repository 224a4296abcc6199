"""From names and files to the pictures of a calibration; used by `resurgence calibration` and `resurgence setup`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.specs import EMBEDDED

if TYPE_CHECKING:
    import numpy as np

    from resurgence_harness.calibration import Wish
    from resurgence_harness.judging import Judge
    from resurgence_harness.labelling import PictureSet
    from resurgence_harness.tasks import Task

FAMILIES = {"celebrity": "celebrity", "copyright": "character", "unsafe": "hazard", "object": "object"}
"""Task → the microworld's family of pictures, for references."""


def task_named(name: str, base: str) -> Task:
    """The task of that name on a base; UserError if there is none."""
    from resurgence_harness.selection import tasks_on

    tasks = tasks_on(base)
    if name not in tasks:
        raise UserError(
            sentence(f'There is no task "{shown(name)}" on {shown(base)}.', known=", ".join(tasks), do="Name one.")
        )
    return tasks[name]


def judge_of(task: Task, name: str | None) -> Judge:
    """The judge of that name, else the one that decides the task; UserError for a combined one."""
    from resurgence_harness.judging import calibrated_by_name

    return calibrated_by_name(name or task.judges[0])


def wish_for(
    *,
    base: str,
    task: str,
    judge: str | None = None,
    pictures: int = 300,
    unlearned: Sequence[str] = (),
    concepts: Path | None = None,
    changed: Sequence[str] = (),
    store: str | None = None,
) -> Wish:
    """What to draw, from the command line's words. UserError for a mistake in them, and for missing weights."""
    from resurgence_harness.calibration import Wish
    from resurgence_harness.gate.release_policy import read_concepts
    from resurgence_harness.given_models import check_names, named, read_unlearned
    from resurgence_harness.presets import METHODS
    from resurgence_harness.presets.settings import parse_change
    from resurgence_harness.selection import Selection, not_listed, resolve_base
    from resurgence_harness.storing import Store, default_root

    chosen = task_named(task, base)
    asked = judge_of(chosen, judge)
    for weights in asked.given:
        weights.verified()
    listed = read_concepts(concepts) if concepts is not None else ()
    found = [named(word) for word in unlearned]
    if found and not listed:
        raise not_listed(found[0].name)
    check_names(found, METHODS)
    resolved = resolve_base(base)
    models = read_unlearned(found, base=resolved, folder=Path.cwd(), store=Path(Store(store or default_root()).root))
    selection = Selection(
        changed=tuple(map(parse_change, changed)), unlearned=models, concepts=tuple(listed) if models else ()
    )
    return Wish(task=chosen, base=resolved, judge=asked, pictures=pictures, selection=selection)


def drawn(wish: Wish, folder: Path, *, device: str = "auto", store: str | None = None) -> PictureSet:
    """Draw the pictures with progress on the terminal; those that are there already are used."""
    from resurgence_harness.bench import Bench
    from resurgence_harness.calibration import choices_of, draw
    from resurgence_harness.diffusion.devices import check_device, resolved_device
    from resurgence_harness.storing import Store, check_writable, default_root
    from resurgence_harness.watching import watched

    check_device(device)
    place = store or default_root()
    check_writable(place)
    kept = Store(place)
    bench = Bench(kept, device=resolved_device(device))
    erased, retained = choices_of(wish)
    with kept.here.writing(), watched() as view:
        bench.set_progress(view.recorder.update)
        found = draw(wish, bench, folder, references=references(wish, [one.name for one in (*erased, *retained)]))
    bench.release()
    return found


def references(wish: Wish, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """A rendered picture of each of the microworld's inventions, whom nobody knows; none on other bases."""
    if wish.base.name not in EMBEDDED or wish.task.name not in FAMILIES:
        return {}
    import torch

    from resurgence_harness.microworld import world
    from resurgence_harness.tasks.microworld import CHARACTERS, HAZARDS, OBJECTS

    family = FAMILIES[wish.task.name]
    subjects = {"celebrity": world.CELEBRITIES, "character": CHARACTERS, "hazard": HAZARDS, "object": tuple(OBJECTS)}
    known = [name for name in names if name in subjects[family]]
    if not known:
        return {}
    places = torch.tensor([subjects[family].index(name) for name in known])
    made = world.draw(family, places, generator=torch.Generator().manual_seed(1)).images
    return {name: image.permute(1, 2, 0).numpy() for name, image in zip(known, made, strict=True)}
