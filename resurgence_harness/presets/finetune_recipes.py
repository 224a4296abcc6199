"""How the paper's authors fine-tune, and what diffusers' own scripts do instead.

The rate of LoRA falls along a cosine in the authors' script; in diffusers' README it is constant, which sums to twice
as much: `--resurgence-set lora.schedule=constant --resurgence-set lora.flip=none` selects the latter.
"""

from __future__ import annotations

from resurgence_harness.finetuning.augmenting import RandomFlip
from resurgence_harness.finetuning.schedules import Constant, Cosine
from resurgence_harness.presets.recipes import Recipe, Source

_AUTHORS = Source(
    repository="VMS-6511/MACE-Update", commit="c1337bb", place="finetuning/finetune_model.sh, scripts/finetune.sh"
)
_NO_EMA = "No moving average and no half precision here: at few steps an average still holds the old weights."
_FULL = {"steps": 1000, "batch": 32, "learning_rate": 1e-5, "schedule": Constant(), "flip": RandomFlip()}

FINETUNE_RECIPES: dict[str, Recipe] = {
    "lora": Recipe(
        title="LoRA, the paper's authors' script",
        source=_AUTHORS,
        values={
            "steps": 1000,
            "batch": 4,
            "learning_rate": 1e-4,
            "rank": 4,
            "schedule": Cosine(),
            "flip": RandomFlip(),
        },
        differs=(
            "Batch: theirs is 1, accumulated over 4; one step here takes all four.",
            "Schedule: diffusers' script of the same name is by default constant and without a flip.",
            "Rank 4 is the script's default; theirs does not set it.",
        ),
    ),
    "full": Recipe(
        title="full, the paper's authors' script",
        source=_AUTHORS,
        values=_FULL,
        differs=("Batch: theirs is 8, accumulated over 4; one step here takes all 32, in passes.", _NO_EMA),
    ),
    "xattn": Recipe(
        title="cross-attention only, with the values of the full one",
        source=_AUTHORS,
        values=_FULL,
        nearest="the authors' data name it (cfr_full), no script of theirs was found",
        differs=(_NO_EMA,),
    ),
}
"""By the step's name."""
