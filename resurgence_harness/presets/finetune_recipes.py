"""How the paper's authors fine-tune (lora, full, xattn), and diffusers' own scripts (dora, lora-te, dreambooth).

The rate of LoRA falls along a cosine in the authors' script; in diffusers' README it is constant, which sums to twice
as much: `--resurgence-set lora.schedule=constant --resurgence-set lora.flip=none` selects the latter.
"""

from __future__ import annotations

from resurgence_harness.finetuning.augmenting import NoFlip, RandomFlip
from resurgence_harness.finetuning.schedules import Constant, Cosine
from resurgence_harness.finetuning.weighting import Unweighted
from resurgence_harness.presets.recipes import Recipe, Source

_AUTHORS = Source(
    repository="VMS-6511/MACE-Update", commit="c1337bb", place="finetuning/finetune_model.sh, scripts/finetune.sh"
)
_NO_EMA = "No moving average and no half precision here: at few steps an average still holds the old weights."
_PLAIN = {"weighting": Unweighted(), "noise_offset": 0.0}
_SCRIPT = {"schedule": Constant(), "flip": NoFlip(), **_PLAIN}
_OWN_WORDS = "Data: theirs are a few images of one subject with one prompt; here captioned images, as for lora."
_FULL = {"steps": 1000, "batch": 32, "learning_rate": 1e-5, "schedule": Constant(), "flip": RandomFlip(), **_PLAIN}


def _diffusers(place: str) -> Source:
    return Source(repository="huggingface/diffusers", commit="58eb52c", place=place)


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
            **_PLAIN,
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
    "dora": Recipe(
        title="DoRA, diffusers' script with --use_dora and its defaults",
        source=_diffusers("examples/advanced_diffusion_training/train_dreambooth_lora_sd15_advanced.py"),
        values={"batch": 4, "learning_rate": 1e-4, "rank": 4, **_SCRIPT},
        ours={"steps": (500, "theirs is one epoch; 500 as examples/dreambooth/README.md has for LoRA")},
        differs=(_OWN_WORDS, "Weight decay: 1e-2 as in the other scripts; 1e-4 in this one."),
    ),
    "lora-te": Recipe(
        title="LoRA of U-Net and text encoder, diffusers' script with --train_text_encoder",
        source=_diffusers("examples/dreambooth/train_dreambooth_lora.py, README.md"),
        values={"steps": 500, "batch": 1, "learning_rate": 1e-4, "rank": 4, **_SCRIPT},
        differs=(_OWN_WORDS,),
    ),
    "dreambooth": Recipe(
        title="DreamBooth, diffusers' script with --with_prior_preservation",
        source=_diffusers("examples/dreambooth/train_dreambooth.py, README.md"),
        values={
            "steps": 800,
            "batch": 1,
            "learning_rate": 5e-6,
            "class_images": 200,
            "prior_weight": 1.0,
            **_SCRIPT,
        },
        differs=(
            "Class images: theirs are drawn with the pipeline's default sampler; here with the run's.",
            "--snr_gamma with a prior: theirs weights images by the timesteps of others; here each has its own.",
        ),
    ),
}
"""By the step's name."""
