"""Values for Stable Diffusion XL: those of its authors' own scripts where there are any, else those of sd.py.

ESD has an official script for SDXL, and UCE's of 2025 takes any pipeline (the method uce-last). For the other methods
nothing was published, so their recipes for Stable Diffusion v1 are used: ours, on SDXL. The size of images is the
base's own.
"""

from __future__ import annotations

from typing import Any

from resurgence_harness.finetuning.augmenting import RandomFlip
from resurgence_harness.finetuning.schedules import Constant
from resurgence_harness.finetuning.weighting import Unweighted
from resurgence_harness.presets import sd
from resurgence_harness.presets.recipes import Recipe, Source

_DIFFUSERS = "examples/text_to_image/README_sdxl.md"
_PLAIN = {"schedule": Constant(), "flip": RandomFlip(), "weighting": Unweighted(), "noise_offset": 0.0}


def _diffusers(title: str, **values: Any) -> Recipe:
    return Recipe(
        title=title,
        source=Source(repository="huggingface/diffusers", commit="09f80e1", place=_DIFFUSERS),
        values={**values, **_PLAIN},
        ours={"steps": (1_000, "theirs is a number of epochs, or 10,000; as for Stable Diffusion")},
        differs=(
            "Empty captions: their script for the whole U-Net drops one in five; no caption is dropped here.",
            "Arithmetic: float32 here, float16 there; their optimiser of eight bits is not used.",
            "Size: images and time ids are 1024 pixels here; their example of the whole U-Net has 512.",
        ),
    )


XL_RECIPES: dict[str, Recipe] = {
    "esd": Recipe(
        title="ESD, the script for SDXL",
        source=Source(repository="rohitgandikota/erasing", commit="25613d2", place="esd_sdxl.py"),
        values={
            "iterations": 200,
            "iterations_per_concept": 0,
            "batch": 1,
            "learning_rate": 2e-4,
            "away": 0.0,
            "guidance": 2.0,
            "trajectory_steps": 50,
            "templates": ("{}",),
        },
        ours={"trajectories": (8, "theirs draws one for each update; 32 of 1024 pixels would take a gigabyte")},
        differs=(
            "Their negative guidance of 1 is this file's η of 0: the target is f*(c_0).",
            "Their c_0 is the encoded empty text in the target and zeros in the sampler; here it is the model's own in "
            "both (model_index.json).",
            "Theirs computes in bfloat16, and warns that subsets other than esd-x do not work as expected.",
        ),
    ),
    "lora": _diffusers("LoRA, diffusers' script for SDXL", batch=1, learning_rate=1e-4, rank=4),
    "full": _diffusers("full, diffusers' script for SDXL", batch=4, learning_rate=1e-6),
    "xattn": _diffusers("cross-attention only, with the values of the full one", batch=4, learning_rate=1e-6),
}
"""Step → its recipe where it differs from Stable Diffusion's."""
SAMPLER: dict[str, Any] = {**sd.PRESET["sampler"], "steps": 30, "guidance": 5.0, "batch": 8}
"""Guidance as in diffusers' pipeline for SDXL (theirs is 50 steps); steps and batch are ours: cost and memory."""
PICTURES = {"forget": 200, "retain": 200}
"""Ours: Stable Diffusion's 800 of each would take hours to draw at 1024 pixels."""

_OWN: dict[str, dict[str, Any]] = {step: recipe.settings for step, recipe in XL_RECIPES.items()}
PRESET: dict[str, dict[str, Any]] = {
    **{group: {**values, **_OWN.get(group, {})} for group, values in sd.PRESET.items()},
    "sampler": SAMPLER,
    "pictures": PICTURES,
}
OF_TASK: dict[str, dict[str, dict[str, Any]]] = {
    task: {step: {**values, **_OWN.get(step, {})} for step, values in own.items()} for task, own in sd.OF_TASK.items()
}
OF_VARIANT: dict[str, dict[str, Any]] = {
    # The script's rate for subsets other than esd-x.
    "esd-u": {"learning_rate": 1e-5},
    "esd-all": {"learning_rate": 1e-5},
}
