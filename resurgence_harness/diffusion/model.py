"""Stable Diffusion as a bundle of five parts, in float32, read offline from safetensors.

    f_θ   unet           noise or velocity prediction            τ   text_encoder, tokenizer   text states [n, L, d]
    E, D  vae            image ↔ latent, × scaling_factor        ᾱ   scheduler                 DDIM, SD's schedule

Particulars of diffusers and transformers are handled here and in `loading`; other modules use the five parts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import BuildError, SpecError, sentence

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 100_000_000
"""Number of UNet weights above which a GPU's time is spent on arithmetic; below, on launching kernels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StableDiffusion:
    """The parts of one model. Steps change copies of it; VAE, tokenizer and scheduler are shared and never change."""

    unet: Any
    """diffusers UNet2DConditionModel."""
    vae: Any
    """diffusers AutoencoderKL."""
    text_encoder: Any
    """transformers CLIPTextModel."""
    tokenizer: Any
    """transformers CLIPTokenizer."""
    scheduler: Any
    """diffusers DDIMScheduler; its noise schedule and prediction type are the model's, its step count is not used."""

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu", *, digest: str = "") -> StableDiffusion:
        """Read a local directory in diffusers' layout; `base_files.check_base` checks one more thoroughly.

        With `digest` the bytes that are read must have that digest (`ModelDescription.digest`), whatever the files
        hold before or after; UserError otherwise.
        """
        from resurgence_harness.diffusion.loading import load_parts

        return cls(**load_parts(Path(directory), digest)).to(device)

    def to(self, device: str) -> StableDiffusion:
        """These parts on a device; modules are moved in place, as torch does."""
        for part in (self.unet, self.vae, self.text_encoder):
            part.to(device)
        return self

    def copy(self) -> StableDiffusion:
        """A model whose UNet may be changed; the other parts are shared."""
        import torch

        with torch.inference_mode(False):  # else a copy made while sampling could not be trained
            return replace(self, unet=copy.deepcopy(self.unet))

    def pipeline(self) -> Any:
        """The same parts as a StableDiffusionPipeline without a safety checker: blacked-out images would look safe."""
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline(
            unet=self.unet,
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            scheduler=type(self.scheduler).from_config(self.scheduler.config),
            safety_checker=None,  # type: ignore[arg-type]
            feature_extractor=None,  # type: ignore[arg-type]
            requires_safety_checker=False,
        )
        if pipeline.safety_checker is not None:
            raise BuildError(sentence("The pipeline has a safety checker, which would black out what must be counted."))
        return pipeline

    @property
    def prediction_type(self) -> str:
        """What f_θ predicts: "epsilon" (SD v1, v2.1-base) or "v_prediction" (SD v2.1 at 768 px)."""
        return str(self.scheduler.config.prediction_type)

    @property
    def latent_factor(self) -> int:
        """Pixels per latent: 8."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def sample_size(self) -> int:
        """Side of the images this model was made for, in pixels."""
        return int(self.unet.config.sample_size) * self.latent_factor

    @property
    def large(self) -> bool:
        """Whether the UNet has at least LARGE weights."""
        return bool(sum(value.numel() for value in self.unet.parameters()) >= LARGE)

    @property
    def device(self) -> Any:
        """The torch device of the UNet."""
        # Not unet.device: diffusers asks every submodule for offloading hooks first, milliseconds each time.
        return next(self.unet.parameters()).device


def tensors(model: StableDiffusion) -> dict[str, Tensor]:
    """Every tensor that a step may change, by name: "unet.down_blocks.0…", "text_encoder.…". Not copies."""
    parts = {"unet": model.unet, "text_encoder": model.text_encoder}
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()}


def difference(model: StableDiffusion, parent: StableDiffusion) -> dict[str, Tensor]:
    """The tensors of `model` that are not bit for bit those of `parent`, on the CPU."""
    import torch

    ours, theirs = tensors(model), tensors(parent)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise BuildError(
            sentence("The changed model has other tensors than its parent.", for_example=odd[0], count=len(odd))
        )
    changed: dict[str, Tensor] = {}
    for name, value in ours.items():
        # Compared on its own device: most tensors have not changed and need not be copied to the CPU.
        if not torch.equal(value, theirs[name].to(value.device)):
            if not bool(torch.isfinite(value).all()):
                raise BuildError(sentence("A tensor of the changed model holds NaN or infinity.", tensor=name))
            changed[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return changed


def load_difference(parent: StableDiffusion, changed: Mapping[str, Tensor]) -> StableDiffusion:
    """A copy of `parent` in which the tensors of `changed` replace those of the same name."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        model = parent.copy()
        if any(name.startswith("text_encoder.") for name in changed):
            model = replace(model, text_encoder=copy.deepcopy(parent.text_encoder))
        places = tensors(model)
        for name, value in changed.items():
            place = places.get(name)
            if place is None or place.shape != value.shape:
                raise SpecError(
                    sentence(
                        f'A difference holds the tensor "{name}", which does not fit this model.',
                        difference=tuple(value.shape),
                        model="no such tensor" if place is None else tuple(place.shape),
                        do="It was made from another base; build it again.",
                    )
                )
            place.copy_(value)
    return model
