"""Values for Stable Diffusion v1.x and v2.x: the published recipes of recipes.py, in the form of presets.

The size of images is not among them: it is the base's own (bases.py).
"""

from __future__ import annotations

from typing import Any

from resurgence_harness.presets.finetune_recipes import FINETUNE_RECIPES
from resurgence_harness.presets.recipes import FAMILY, RECIPES
from resurgence_harness.specs import Arithmetic

TRAINING: Arithmetic = "float16"
"""Arithmetic of the passes of every unlearning and fine-tuning that takes gradients; what is stored stays float32. On
the microworld outcomes are within the spread of training seeds (reports/performance/half_outcomes.csv)."""
SAMPLING: Arithmetic = "float16"
"""Arithmetic of images: as people draw them, and several times faster on a GPU (docs/performance.md)."""

_TRAINED: dict[str, dict[str, Any]] = {"uce": {}}  # a closed form, in float32

PRESET: dict[str, dict[str, Any]] = {
    "sampler": {"steps": 50, "guidance": 7.5, "batch": 32, "arithmetic": SAMPLING},
    "benign": {"names": 50, "seeds": 5},
    "pictures": {"forget": 800, "retain": 800},
    **{step: {**own[FAMILY].settings, **_TRAINED.get(step, {"arithmetic": TRAINING})} for step, own in RECIPES.items()},
    **{step: {**own.settings, "arithmetic": TRAINING} for step, own in FINETUNE_RECIPES.items()},
}
"""By step (fields of its class), `sampler`, `benign` and `pictures`; also for users' own tasks."""

OF_TASK: dict[str, dict[str, dict[str, Any]]] = {
    task: {step: own[task].settings for step, own in RECIPES.items()} for task in RECIPES["mace"]
}
"""By name of task: every method's complete recipe."""

OF_VARIANT: dict[str, dict[str, Any]] = {
    # The authors' script of 2023 has one rate for every subset.
    "esd-u": {"learning_rate": 1e-5},
    "esd-all": {"learning_rate": 1e-5},
}
"""By name of method. `shs-gem` is SHS's recipe with the projection that methods.py fixes for it."""
