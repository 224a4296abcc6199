"""A single file in the original layout of SD 1.x and 2.x: the U-Net, the VAE and the text encoder under one roof.

    model.diffusion_model.…      U-Net                        model_ema.…                left aside, as diffusers does
    first_stage_model.…          VAE                          betas, alphas_cumprod, …   must be the base's schedule
    cond_stage_model.transformer.…  CLIP (v1)                 cond_stage_model.model.…   OpenCLIP (v2)

A part that is not there stays the base's. The names are converted by diffusers' own converters (see contract.Piece),
but nothing may be left over: a converter that drops what it does not know would hand back the base unedited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, final

import numpy as np

from resurgence_harness.diffusion.formats.contract import Changes, Format, Piece, replaced
from resurgence_harness.diffusion.model_files import ModelFiles, canonical
from resurgence_harness.diffusion.tensor_files import TensorFile, read_json, shown
from resurgence_harness.errors import UserError, sentence

UNET, VAE, CLIP, OPEN_CLIP = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
)
SCHEDULE = frozenset(
    {
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "logvar"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        *("lvlb_weights", "scale_factor", "v_pred", "ztsnr"),
    }
)
"""Buffers of the noise schedule, and the two markers that other interfaces leave for v prediction and zero end SNR."""
UNUSED = frozenset({"text_projection", "logit_scale", "attn_mask"})
"""OpenCLIP's, which Stable Diffusion does not use."""
TOLERANCE = 2e-3
"""Of alphas_cumprod: half precision."""


@final
@dataclass(frozen=True, kw_only=True)
class Original(Format):
    """Whatever parts the file holds, in place of the base's."""

    words: ClassVar[str] = "a single file in the original layout"
    order: ClassVar[int] = 0

    file: TensorFile

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file.path,)

    def changes(self, parent: ModelFiles) -> Changes:
        """Every weight of every part that the file holds, replaced."""
        self._check_schedule(parent)
        pieces = {
            name: Piece(file=self.file, name=name)
            for name, entry in self.file.entries.items()
            if entry.floating and name not in SCHEDULE and not name.startswith("model_ema.")
        }
        if any(name.startswith("input_blocks.") for name in pieces):  # a U-Net without its roof
            pieces = {UNET + name: piece for name, piece in pieces.items()}
        left = dict(pieces)
        changes: Changes = {}
        for part, prefix in (("unet", UNET), ("vae", VAE), ("text_encoder", CLIP), ("text_encoder", OPEN_CLIP)):
            mine = {name: piece for name, piece in pieces.items() if name.startswith(prefix)}
            if not mine:
                continue
            found = {canonical(part, name): piece for name, piece in _converted(prefix, mine, parent).items()}
            changes |= replaced(part, found, parent, self.source)
            used = {piece.name for piece in found.values()}
            left = {name: piece for name, piece in left.items() if piece.name not in used}
            left = {name: piece for name, piece in left.items() if not _unused(name, parent)}
        if left or not changes:
            raise UserError(
                sentence(
                    f"{self.file.path} holds tensors that belong to no part of the base.",
                    unknown=f"{len(left)} of {len(self.file.entries)}, first {shown(min(left, default='none'))}",
                    do="Give a Stable Diffusion v1 or v2 checkpoint, and the base of its version.",
                )
            )
        return changes

    def _check_schedule(self, parent: ModelFiles) -> None:
        """Raise where the file says that it has another noise schedule or prediction type than the base."""
        settings = read_json(parent.directory / "scheduler" / "scheduler_config.json")
        predicts = settings.get("prediction_type", "epsilon")
        noted = self.file.metadata.get("modelspec.prediction_type", "")
        said = "v_prediction" if noted.startswith("v") or "v_pred" in self.file.entries else None
        said = "epsilon" if noted.startswith("eps") else said
        if said not in (None, predicts):
            raise UserError(
                sentence(
                    f"{self.file.path} does not predict what the base predicts.",
                    file_says=said,
                    base=predicts,
                    do="Give the base of its kind: sd21 predicts velocity, sd14 and sd21-base predict noise.",
                )
            )
        if "alphas_cumprod" not in self.file.entries and "ztsnr" not in self.file.entries:
            return
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        ours = DDIMScheduler.from_config(settings, clip_sample=False).alphas_cumprod.numpy()
        theirs = self.file.values("alphas_cumprod") if "alphas_cumprod" in self.file.entries else None
        if theirs is None or theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=0, atol=TOLERANCE):
            raise UserError(
                sentence(
                    f"{self.file.path} has another noise schedule than the base.",
                    do="Give its own model in diffusers' layout, whose scheduler says what the schedule is.",
                )
            )


def _converted(prefix: str, pieces: Mapping[str, Piece], parent: ModelFiles) -> dict[str, Piece]:
    """Name in diffusers' layout → which rows of which tensor."""
    from diffusers.loaders import single_file_utils as diffusers

    convert: Any = diffusers
    try:
        if prefix == UNET:
            found = convert.convert_ldm_unet_checkpoint(dict(pieces), _config(parent, "unet"))
        elif prefix == VAE:
            found = convert.convert_ldm_vae_checkpoint(dict(pieces), _config(parent, "vae"))
        elif prefix == CLIP:
            found = {name.removeprefix(CLIP): piece for name, piece in pieces.items()}
        else:
            width = parent["text_encoder.embeddings.token_embedding.weight"].entry.shape[1]
            text = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
            used = {name: piece for name, piece in pieces.items() if not _unused(name, parent)}
            found = convert.convert_open_clip_checkpoint(text, used, prefix=OPEN_CLIP)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        first = next(iter(pieces.values()))
        raise UserError(
            sentence(
                f"{first.file.path} is not a Stable Diffusion in the original layout.",
                problem=shown(f"{type(problem).__name__}: {problem}"),
                do="Give a Stable Diffusion v1 or v2 checkpoint, and the base of its version.",
            )
        ) from None
    return {name: piece for name, piece in found.items() if piece is not None}


def _unused(name: str, parent: ModelFiles) -> bool:
    """Whether a tensor of OpenCLIP is one that Stable Diffusion leaves aside: v2 uses all blocks but the last."""
    if not name.startswith(OPEN_CLIP):
        return False
    blocks = {name.split(".")[3] for name in parent if name.startswith("text_encoder.encoder.layers.")}
    short = name.removeprefix(OPEN_CLIP)
    return short in UNUSED or short.startswith(f"transformer.resblocks.{len(blocks)}.")


def _config(parent: ModelFiles, part: str) -> dict[str, Any]:
    """A part's config, with the defaults that old files leave out."""
    defaults = {"layers_per_block": 2, "down_block_types": (), "up_block_types": ()}
    return defaults | read_json(parent.directory / part / "config.json")
