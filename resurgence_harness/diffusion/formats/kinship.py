"""Which family a file of weights was made for, by names that only one family has.

A LoRA of one family would change a few layers of the other, or none, and look like a model that learned nothing; so a
file of another family than its base is refused before its names are matched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from resurgence_harness.diffusion.families import SD, SDXL, Family
from resurgence_harness.diffusion.model_files import ModelFiles
from resurgence_harness.diffusion.tensor_files import TensorFile, shown
from resurgence_harness.errors import UserError, sentence

SIGNS = (
    (
        SDXL,
        re.compile(
            r"(^|[._])(conditioner\.embedders|label_emb|add_embedding|lora_te2|text_encoder_2)[._]"
            r"|transformer_blocks[._][1-9]|^text_projection\.weight$|(^|[._])clip_g$"
        ),
    ),
    (SD, re.compile(r"^cond_stage_model\.|(^|[._])input_blocks[._]1[._]1[._]|down_blocks[._]0[._]attentions[._]")),
)
"""A family and the names that it alone has: a second text encoder, sizes, several transformer layers per block; one
text encoder, attention on the finest level."""


def family_of_names(names: Iterable[str]) -> tuple[Family, str] | None:
    """The family that some name tells, with that name; None if no name tells one."""
    names = list(names)
    for family, sign in SIGNS:
        found = next((name for name in names if sign.search(name)), None)
        if found is not None:
            return family, found
    return None


def check_family(file: TensorFile, parent: ModelFiles) -> None:
    """UserError if the file was made for another family than its base."""
    found = family_of_names(file.entries)
    base = parent.description.family
    if found is not None and found[0] is not base:
        raise UserError(
            sentence(
                f"{file.path} is of {found[0].name}, and its base is of {base.name}.",
                recognised_by=f"the tensor {shown(found[1])}",
                base=parent.directory,
                do="Give the base of its family.",
            )
        )
