"""A single file in the original layout: the U-Net, the VAE and the text encoders together.

    model.diffusion_model.…      U-Net                        model_ema.…                not read, only noted
    first_stage_model.…          VAE                          betas, alphas_cumprod, …   must be the base's schedule
    cond_stage_model.transformer.…  CLIP (v1)                 cond_stage_model.model.…   OpenCLIP (v2)
    conditioner.embedders.0.transformer.… · conditioner.embedders.1.model.…              CLIP and OpenCLIP (XL)

A part that is missing is the base's. diffusers' own converters rename the tensors (see contract.Piece), and no tensor
may be left over: a converter that drops unknown names would return the base unchanged.

A child of XL may predict velocity and end in pure noise; the scheduler of its directory says so then (`settle`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, final

import numpy as np

from resurgence_harness.diffusion.families import FAMILIES
from resurgence_harness.diffusion.formats.contract import Changes, Format, Piece, integer_weights, replaced
from resurgence_harness.diffusion.formats.kinship import check_family
from resurgence_harness.diffusion.formats.predicting import EPSILON, check_prediction, stated_prediction, zero_snr
from resurgence_harness.diffusion.model_files import ModelFiles, canonical
from resurgence_harness.diffusion.tensor_files import TensorFile, is_index, read_json, shown
from resurgence_harness.errors import UserError, sentence

UNET, VAE = "model.diffusion_model.", "first_stage_model."
TEXTS = tuple(prefix for family in FAMILIES for reader in family.readers for prefix in reader.original)
"""Beginnings of the names of text encoders: ….transformer. for CLIP's names, ….model. for OpenCLIP's."""
EMA, COUNTERS = "model_ema.", frozenset({"decay", "num_updates"})
"""Prefix of an averaged copy of the U-Net, and names of its counters."""
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
"""OpenCLIP's tensors that Stable Diffusion does not use; XL uses the projection."""
TOLERANCE = 2e-3
"""Absolute tolerance of alphas_cumprod, for half precision."""


@final
@dataclass(frozen=True, kw_only=True)
class Original(Format):
    """The parts that the file holds, in place of the base's."""

    label: ClassVar[str] = "a single file in the original layout"
    order: ClassVar[int] = 0

    file: TensorFile

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.file.path,)

    def changes(self, parent: ModelFiles) -> Changes:
        """Replaces every weight of the parts that the file holds; UserError if a tensor belongs to no part."""
        check_family(self.file, parent)
        self._check_schedule(parent)
        pieces: dict[str, Piece] = {}
        for name, entry in self.file.entries.items():
            if name in SCHEDULE or name.startswith(EMA) or is_index(name):
                continue
            if not entry.floating:
                raise integer_weights(self.file, name)
            pieces[name] = Piece(file=self.file, name=name)
        if any(name.startswith("input_blocks.") for name in pieces):  # a U-Net without a whole model's prefix
            pieces = {UNET + name: piece for name, piece in pieces.items()}
        self._check_average(pieces)
        left = dict(pieces)
        changes: Changes = {}
        texts = [(reader.encoder, prefix) for reader in parent.description.family.readers for prefix in reader.original]
        for part, prefix in (("unet", UNET), ("vae", VAE), *texts):
            mine = {name: piece for name, piece in pieces.items() if name.startswith(prefix)}
            if not mine:
                continue
            found = {canonical(part, name): piece for name, piece in _converted(part, prefix, mine, parent).items()}
            if twice := next((name for name in changes if name.startswith(f"{part}.")), None):
                raise UserError(
                    sentence(
                        f"{self.file.path} holds two text encoders, so it is not clear which one is meant.",
                        second=f"{prefix}…, after {twice}",
                        do="Give a file with one text encoder: CLIP's for v1, OpenCLIP's for v2.",
                    )
                )
            changes |= replaced(part, found, parent, self.source)
            used = {piece.name for piece in found.values()}
            left = {name: piece for name, piece in left.items() if piece.name not in used}
            left = {name: piece for name, piece in left.items() if not _unused(name, part, prefix, parent)}
        if left or not changes:
            raise UserError(
                sentence(
                    f"{self.file.path} holds tensors that belong to no part of the base.",
                    unknown=f"{len(left)} of {len(self.file.entries)}, first {shown(min(left, default='none'))}",
                    do="Give a Stable Diffusion checkpoint, and the base of its version.",
                )
            )
        return changes

    def settle(self, folder: Path, parent: ModelFiles) -> None:
        """Write the file's own prediction and noise schedule into the scheduler's config, if it states others."""
        own = self._own_schedule(parent)
        if own:
            path = folder / "scheduler" / "scheduler_config.json"
            path.write_text(json.dumps({**read_json(path), **own}, indent=2), encoding="utf-8")

    def _own_schedule(self, parent: ModelFiles) -> dict[str, Any]:
        """Settings of the scheduler that the file states and its base does not have; empty for a U-Net that has none.

        A schedule that ends in pure noise is sampled from its end, as in diffusers with "trailing" timesteps.
        """
        if not parent.description.family.own_schedule or not any(
            name.startswith((UNET, "input_blocks.")) for name in self.file.entries
        ):
            return {}
        settings = parent.description.config("scheduler")
        kind, base = stated_prediction(self.file), settings.get("prediction_type", EPSILON)
        found: dict[str, Any] = {}
        if kind and kind != base:
            found["prediction_type"] = kind
        if zero_snr(self.file) and not settings.get("rescale_betas_zero_snr"):
            found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return found

    def remarks(self, parent: ModelFiles) -> tuple[str, ...]:
        """Remarks on parts that are missing, on a schedule of its own, and on an averaged copy, which is not judged."""
        names, readers = self.file.entries, parent.description.family.readers
        parts = {
            "U-Net": any(name.startswith((UNET, "input_blocks.")) for name in names),
            "VAE": any(name.startswith(VAE) for name in names),
        }
        for number, reader in enumerate(readers):
            words = "text encoder" if len(readers) == 1 else ("first text encoder", "second text encoder")[number]
            parts[words] = any(name.startswith(reader.original) for name in names)
        own = self._own_schedule(parent)
        missing = [part for part, present in parts.items() if not present]
        found = []
        if own:
            stated = ", ".join(f"{name} {value}" for name, value in own.items())
            found.append(
                f"{shown(self.file.path.name)} states its own noise schedule, with which it was drawn: {stated}."
            )
        if self._averaged():
            found.append(
                f"{shown(self.file.path.name)} also holds an averaged copy of its U-Net (model_ema), which was "
                "not judged: as in diffusers, the plain weights were used."
            )
        if missing and len(missing) < len(parts) and "U-Net" in missing:
            name = shown(self.file.path.name)
            found.append(f"{name} holds no {' and no '.join(missing)}: images were drawn with its parent's.")
        return tuple(found)

    def _averaged(self) -> list[str]:
        """Tensors of an averaged copy, without its counters."""
        return [name for name in self.file.entries if name.startswith(EMA) and name.removeprefix(EMA) not in COUNTERS]

    def _check_average(self, pieces: Mapping[str, Piece]) -> None:
        """UserError if the U-Net is only present as an averaged copy: images would be drawn with the parent's."""
        averaged = self._averaged()
        if averaged and not any(name.startswith(UNET) for name in pieces):
            raise UserError(
                sentence(
                    f"{self.file.path} holds its U-Net only as an averaged copy (EMA), which is not read here.",
                    tensors=f"{len(averaged)}, first {shown(min(averaged))}",
                    do="Load it where it was trained, put the averaged weights into the model, and save that.",
                )
            )

    def _check_schedule(self, parent: ModelFiles) -> None:
        """UserError if the file states another noise schedule or prediction type than the base's, or than its own."""
        own = self._own_schedule(parent)
        check_prediction(self.file, parent, own=own)
        if "alphas_cumprod" not in self.file.entries:
            return
        settings = {**read_json(parent.directory / "scheduler" / "scheduler_config.json"), **own}
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        ours = DDIMScheduler.from_config(settings, clip_sample=False).alphas_cumprod.numpy()
        theirs = self.file.values("alphas_cumprod")
        if theirs.shape != ours.shape or not np.allclose(theirs, ours, rtol=0, atol=TOLERANCE):
            raise UserError(
                sentence(
                    f"{self.file.path} has another noise schedule than the base.",
                    do="Give its own model in diffusers' layout, whose scheduler config defines the schedule.",
                )
            )


def _converted(part: str, prefix: str, pieces: Mapping[str, Piece], parent: ModelFiles) -> dict[str, Piece]:
    """Name in diffusers' layout → which rows of which tensor."""
    from diffusers.loaders import single_file_utils as diffusers

    convert: Any = diffusers
    try:
        if prefix == UNET:
            found = convert.convert_ldm_unet_checkpoint(dict(pieces), _config(parent, "unet"))
        elif prefix == VAE:
            found = convert.convert_ldm_vae_checkpoint(dict(pieces), _config(parent, "vae"))
        elif prefix.endswith(".transformer."):
            found = {name.removeprefix(prefix): piece for name, piece in pieces.items()}
        else:
            reader = parent.description.family.reader(part)
            start = f"{part}.{reader.prefix if reader else ''}"
            width = parent[f"{start}embeddings.token_embedding.weight"].entry.shape[1]
            text = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
            used = {name: piece for name, piece in pieces.items() if not _unused(name, part, prefix, parent)}
            found = convert.convert_open_clip_checkpoint(text, used, prefix=prefix)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        first = next(iter(pieces.values()))
        raise UserError(
            sentence(
                f"{first.file.path} is not a Stable Diffusion in the original layout.",
                problem=shown(f"{type(problem).__name__}: {problem}"),
                do="Give a Stable Diffusion checkpoint, and the base of its version.",
            )
        ) from None
    return {name: piece for name, piece in found.items() if piece is not None}


def _unused(name: str, part: str, prefix: str, parent: ModelFiles) -> bool:
    """Whether a tensor of OpenCLIP is one that the base does not use: v2 uses all blocks but the last, XL all."""
    reader = parent.description.family.reader(part)
    if reader is None or prefix.endswith(".transformer.") or not name.startswith(prefix):
        return False
    start = f"{part}.{reader.prefix}encoder.layers."
    blocks = {name.removeprefix(start).partition(".")[0] for name in parent if name.startswith(start)}
    short = name.removeprefix(prefix)
    unused = short in UNUSED and not (short == "text_projection" and reader.pooled)
    return unused or short.startswith(f"transformer.resblocks.{len(blocks)}.")


def _config(parent: ModelFiles, part: str) -> dict[str, Any]:
    """A part's config, with the defaults that old files leave out."""
    defaults = {"layers_per_block": 2, "down_block_types": (), "up_block_types": ()}
    return defaults | read_json(parent.directory / part / "config.json")
