"""Fine-tunings, one file each. A new one is a file, an entry here, and a row in tests/finetuning/test_contract.py."""

from __future__ import annotations

from resurgence_harness.finetuning.augmenting import NoFlip, RandomFlip
from resurgence_harness.finetuning.benign import BenignSet, benign_losses, held_out
from resurgence_harness.finetuning.contract import FineTuning, TrainingData
from resurgence_harness.finetuning.cross_attention import CrossAttentionOnly
from resurgence_harness.finetuning.full import Full
from resurgence_harness.finetuning.given import GivenSet
from resurgence_harness.finetuning.image_folder import ImageFolder, read_folder
from resurgence_harness.finetuning.lora import LoRA
from resurgence_harness.finetuning.schedules import Constant, Cosine

FINETUNINGS: dict[str, type[FineTuning]] = {kind.name: kind for kind in (LoRA, Full, CrossAttentionOnly)}
"""Every fine-tuning by its name in node ids."""


__all__ = [
    "FINETUNINGS",
    "BenignSet",
    "Constant",
    "Cosine",
    "CrossAttentionOnly",
    "FineTuning",
    "Full",
    "GivenSet",
    "ImageFolder",
    "LoRA",
    "NoFlip",
    "RandomFlip",
    "TrainingData",
    "benign_losses",
    "held_out",
    "read_folder",
]
