"""Fine-tunings, one file each. A new one is a file, an entry here, and a row in tests/finetuning/test_contract.py."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning.augmenting import NoFlip, RandomFlip
from resurgence_harness.finetuning.benign import BenignSet, benign_losses, held_out
from resurgence_harness.finetuning.contract import FineTuning
from resurgence_harness.finetuning.cross_attention import CrossAttentionOnly
from resurgence_harness.finetuning.full import Full
from resurgence_harness.finetuning.lora import LoRA
from resurgence_harness.finetuning.schedules import Constant, Cosine

FINETUNINGS: dict[str, type[FineTuning]] = {kind.name: kind for kind in (LoRA, Full, CrossAttentionOnly)}
"""Every fine-tuning by its name in node ids."""


def by_name(name: str) -> type[FineTuning]:
    """The fine-tuning of this name ("lora"); UserError with all names if there is none."""
    if name not in FINETUNINGS:
        raise UserError(
            sentence(
                f'There is no fine-tuning "{name}".', known=", ".join(FINETUNINGS), do="Choose one of the known names."
            )
        )
    return FINETUNINGS[name]


__all__ = [
    "FINETUNINGS",
    "BenignSet",
    "Constant",
    "Cosine",
    "CrossAttentionOnly",
    "FineTuning",
    "Full",
    "LoRA",
    "NoFlip",
    "RandomFlip",
    "benign_losses",
    "by_name",
    "held_out",
]
