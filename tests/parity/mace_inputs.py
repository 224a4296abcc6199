"""What MACE's three stages are given: concepts of anchors of different lengths, prompts, LoRAs, masks and draws."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np
import torch

from resurgence_harness.diffusion.examples import Examples
from resurgence_harness.diffusion.model import StableDiffusion, tensors
from resurgence_harness.diffusion.parameters import StrictKeyValue, selected
from resurgence_harness.specs import Concept
from resurgence_harness.unlearning import MACE
from resurgence_harness.unlearning.mace import ScaledTwice
from resurgence_harness.unlearning.mace_lora import LoRA, LoRAs
from tests.parity.given import ERASED, PRESERVED, examples, pictures
from tests.tiny import portraits

CONCEPTS = (Concept(name=ERASED[0], kind="a celebrity"), Concept(name=ERASED[1], kind="an official public person"))
KEPT = tuple(Concept(name=name, kind="a celebrity") for name in PRESERVED)
TEMPLATES = ("{}", "a photo of {}", "{} at the event", "an oil painting of {} in public")
GENERAL = ("a photo of a person at an event", "an oil painting", "a public image")
TRAIN, FUSE, WEIGHT, RIDGE = 0.2, 0.05, 3.0, 0.1
"""t, u, w and λ: large enough for every term to count on this model."""
ALIGNED = np.block([[np.ones((4, 4)), np.zeros((4, 4))], [np.ones((4, 8))]])
"""A mask on the latents' grid that reads the same at the corner and at the centre of every coarser cell."""
UNALIGNED = np.random.default_rng(7).random((8, 8)) > 0.5
"""One that does not."""
PHOTO = "A photo of {}"
"""The only prompt of stage 2: what the authors' code takes without augmentation."""
STEPS, RATE = 3, 1e-2
IMAGES = pictures(2, seed=3)


def step(**others: Any) -> MACE:
    """MACE as the authors' code scales it, with every term in play."""
    usual: dict[str, Any] = {
        "concepts": CONCEPTS,
        "forget": portraits(ERASED, seeds=1),
        "preserve": KEPT,
        "general": GENERAL,
        "templates": TEMPLATES,
        "train_preserve_scale": TRAIN,
        "fuse_preserve_scale": FUSE,
        "preserve_weight": WEIGHT,
        "scaling": ScaledTwice(),
        "ridge": RIDGE,
    }
    return MACE(**(usual | others))


def stage2_step() -> MACE:
    """One concept with one image, three updates."""
    return step(
        concepts=CONCEPTS[:1],
        forget=portraits(ERASED[:1], seeds=1),
        templates=(PHOTO,),
        iterations=STEPS,
        learning_rate=RATE,
        together=1,
    )


def matrices(model: StableDiffusion) -> dict[str, torch.Tensor]:
    """The 32 key and value matrices of a model, by name."""
    found = tensors(model)
    return {name: found[name] for name in selected(StrictKeyValue(), found)}


def given_loras(model: StableDiffusion, name: str) -> LoRAs:
    """LoRAs of rank 1 that change something, float32."""
    loras: LoRAs = {}
    for matrix, weight in matrices(model).items():
        rng = np.random.default_rng(crc32(f"{name} {matrix}".encode()))
        up, down = rng.standard_normal((len(weight), 1)) / 4, rng.standard_normal((1, weight.shape[1])) / 4
        loras[matrix] = LoRA(torch.from_numpy(down).float(), torch.from_numpy(up).float())
    return loras


def pictures_of(model: StableDiffusion) -> Examples:
    """The image of stage 2."""
    return examples(model, IMAGES[:1], [f"a portrait of {ERASED[0]}"])
