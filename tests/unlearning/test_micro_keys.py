"""The microworld's cells keep their keys: nothing that is stored is asked for anew when values for other bases change.

`micro_keys.txt` holds, for every cell, the first digits of the keys of the unlearned and of the fine-tuned model, and a
digest over these and the keys of everything that is drawn for the cell. A line changes where a step's meaning for the
microworld is changed on purpose, with a new `version`; never else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from resurgence_harness.planning import checkpoint_key, images_key
from resurgence_harness.selection import CellPlan, Selection, plan_cell
from resurgence_harness.specs import Base, Cell
from resurgence_harness.tasks import TASKS

pytestmark = pytest.mark.slow

KEYS = Path(__file__).with_name("micro_keys.txt")
BASE = Base(digest="ab" * 32, name="micro")


def _told(plan: CellPlan) -> list[str]:
    """Three short digests: the unlearned model, the fine-tuned one, and everything that is drawn as well."""
    models = [checkpoint_key(plan.unlearned), checkpoint_key(plan.tuned)]
    drawn = [
        images_key(arm.recipe, arm.grid.part(number)) for arm in plan.arms.values() for number in range(arm.grid.blocks)
    ]
    joined = "".join([*models, *drawn, images_key(plan.base, plan.benign)])
    return [key[:16] for key in (*models, hashlib.sha256(joined.encode()).hexdigest())]


def test_every_cell_of_the_microworld_has_the_keys_it_had() -> None:
    """All tasks, methods, counts and fine-tunings, and one cell of each task in the larger profiles."""
    found = []
    lines = KEYS.read_text(encoding="utf-8").splitlines()
    assert len(lines) > 300
    for line in lines:
        task, words, *_ = line.split()
        profile, _, cell = words.rpartition(":")
        cell, _, run = cell.partition("-run")
        method, count, finetuning = cell.rsplit("-", 2)
        selection = Selection(profile=profile, engine="fixed") if profile else Selection()
        asked = Cell(task=task, method=method, count=int(count), finetuning=finetuning, run=int(run or 0))
        found.append(" ".join([task, words, *_told(plan_cell(asked, BASE, task=TASKS[task], selection=selection))]))
    assert found == lines
