"""Calibration pictures must not be pictures that a suite samples: a judge would be counted on its own evidence.

Probes count their seeds up from 1, and training images have those from `selection.BENIGN_SEED` on; calibration
pictures have the seeds from `FIRST_SEED` on and prompts that the task does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resurgence_harness.errors import UserError, sentence, shown
from resurgence_harness.tasks import Task

FIRST_SEED = 900_001
"""First seed of calibration pictures; no other image has one from here on."""


def prompts_of(task: Task) -> frozenset[str]:
    """Every prompt that the task's cells can sample."""
    concepts = (*task.erasable, *task.preserve, *task.held_out)
    templates = {*task.templates, *task.retained_templates}
    return frozenset(template.format(word) for one in concepts for word in one.aliases for template in templates)


def check_unseen(pictures: Iterable[Mapping[str, Any]], task: Task) -> None:
    """UserError for a picture with a suite's seed, or with a suite's prompt."""
    known = prompts_of(task)
    for one in pictures:
        seed, prompt = one.get("seed"), str(one.get("prompt", ""))
        if not isinstance(seed, int) or seed < FIRST_SEED or prompt in known:
            raise UserError(
                sentence(
                    "A picture of the calibration is one that a suite samples, too.",
                    prompt=shown(prompt),
                    seed=seed,
                    do=f"Calibrate on pictures with seeds from {FIRST_SEED:,} on and prompts that no suite uses.",
                )
            )
