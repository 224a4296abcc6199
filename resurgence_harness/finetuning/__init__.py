"""Fine-tunings, one file each. A new one is a file, an entry here, and a row in tests/finetuning/test_contract.py."""

from __future__ import annotations

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.finetuning.augmenting import NoFlip, RandomFlip
from resurgence_harness.finetuning.benign import BenignSet, benign_losses, held_out
from resurgence_harness.finetuning.contract import FineTuning, TrainingData
from resurgence_harness.finetuning.cross_attention import CrossAttentionOnly
from resurgence_harness.finetuning.dora import DoRA
from resurgence_harness.finetuning.dreambooth import DreamBooth
from resurgence_harness.finetuning.full import Full
from resurgence_harness.finetuning.given import GivenSet
from resurgence_harness.finetuning.image_folder import ImageFolder, read_folder
from resurgence_harness.finetuning.lora import LoRA
from resurgence_harness.finetuning.lora_text_encoder import LoRATextEncoder
from resurgence_harness.finetuning.schedules import Constant, Cosine
from resurgence_harness.finetuning.weighting import MinSNR, Unweighted
from resurgence_harness.registry import BUILT_IN, Given, Table, register


def _read(given: object) -> Given:
    name = getattr(given, "name", None)
    if not isinstance(given, type) or not issubclass(given, FineTuning) or not isinstance(name, str) or not name:
        raise UserError(
            sentence(
                f"A fine-tuning is expected, not {given!r:.80}.",
                got=type(given).__name__,
                do="Give a class derived from FineTuning, with name: ClassVar[str].",
            )
        )
    return Given(name, given, given)


FINETUNINGS: Table[type[FineTuning]] = Table("finetuning", _read)
"""Every fine-tuning by its name in node ids."""
for _kind in (LoRA, Full, CrossAttentionOnly, DoRA, LoRATextEncoder, DreamBooth):
    register("finetuning", _kind, BUILT_IN)


__all__ = [
    "FINETUNINGS",
    "BenignSet",
    "Constant",
    "Cosine",
    "CrossAttentionOnly",
    "DoRA",
    "DreamBooth",
    "FineTuning",
    "Full",
    "GivenSet",
    "ImageFolder",
    "LoRA",
    "LoRATextEncoder",
    "MinSNR",
    "NoFlip",
    "RandomFlip",
    "TrainingData",
    "Unweighted",
    "benign_losses",
    "held_out",
    "read_folder",
]
