"""Stable Diffusion as a bundle of its parts, in float32, read offline from safetensors.

    f_θ   unet           noise or velocity prediction            τ   text_encoder, tokenizer   text states [n, L, d]
    E, D  vae            image ↔ latent, × scaling_factor        ᾱ   scheduler                 DDIM, SD's schedule

How the parts of a family work together is in `families`: SDXL has a second text encoder, and further conditions.
Particulars of diffusers and transformers are handled here and in `loading`; other modules use the parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.families import PREDICTIONS, SD, Family, Prediction, TextReader
from resurgence_harness.errors import BuildError, SpecError, sentence

if TYPE_CHECKING:
    from torch import Tensor

HUGE = 1_000_000_000
"""Number of UNet weights above which an image's activations take about twice as much memory for each latent position:
SDXL's blocks have up to ten transformer layers."""
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
    text_encoder_2: Any = None
    """transformers CLIPTextModelWithProjection, in families with a second text encoder."""
    tokenizer_2: Any = None
    """Its CLIPTokenizer: the same vocabulary, another padding."""
    family: Family = SD
    """How the parts work together."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """The family's settings in model_index.json (`Family.index`)."""
    clip_skip: int = 0
    """How many more hidden states of the text encoders are skipped, from the end. As in diffusers' pipelines, the
    empty text's are not."""

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
        for part in self.family.weights:
            getattr(self, part).to(device)
        return self

    def copy(self, *, texts: bool = False) -> StableDiffusion:
        """A model whose UNet may be changed; with `texts` its text encoders, too. The other parts are shared."""
        import torch

        own = ("unet", *(self.family.encoders if texts else ()))
        with torch.inference_mode(False):  # else a copy made while sampling could not be trained
            return replace(self, **{part: copy.deepcopy(getattr(self, part)) for part in own})

    def with_texts_of(self, other: StableDiffusion) -> StableDiffusion:
        """This model with the other's text encoders."""
        return replace(self, **{part: getattr(other, part) for part in self.family.encoders})

    @property
    def texts(self) -> tuple[tuple[TextReader, Any, Any], ...]:
        """Each text encoder: how it is read, its tokenizer, and the encoder."""
        return tuple((one, getattr(self, one.tokenizer), getattr(self, one.encoder)) for one in self.family.readers)

    @property
    def encoders(self) -> tuple[Any, ...]:
        """The text encoders."""
        return tuple(encoder for _, _, encoder in self.texts)

    def pipeline(self) -> Any:
        """The same parts as diffusers' pipeline without a safety checker: blacked-out images would look safe."""
        import diffusers

        parts = {part: getattr(self, part) for part in self.family.parts if part != "scheduler"}
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        options = {**{name: self.index[name] for name in self.family.index}, **self.family.pipeline_options}
        pipeline = getattr(diffusers, self.family.pipeline)(**parts, scheduler=scheduler, **options)
        if getattr(pipeline, "safety_checker", None) is not None:
            raise BuildError(sentence("The pipeline has a safety checker, which would black out what must be counted."))
        return pipeline

    @property
    def prediction(self) -> Prediction:
        """What f_θ predicts: noise (SD v1, v2.1-base, SDXL) or velocity (SD v2.1 at 768 px, children of SDXL)."""
        return PREDICTIONS[self.prediction_type]

    @property
    def prediction_type(self) -> str:
        """The prediction's name in a scheduler's config."""
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
    def decodes_in_float32(self) -> bool:
        """Whether images are decoded in float32 whatever the sampler's arithmetic: SDXL's own VAE overflows float16."""
        return bool(self.family.upcasts and self.vae.config.get("force_upcast", True))

    @property
    def large(self) -> bool:
        """Whether the UNet has at least LARGE weights."""
        return self._weights >= LARGE

    @property
    def huge(self) -> bool:
        """Whether the UNet has at least HUGE weights."""
        return self._weights >= HUGE

    @property
    def _weights(self) -> int:
        return int(sum(value.numel() for value in self.unet.parameters()))

    @property
    def device(self) -> Any:
        """The torch device of the UNet."""
        # Not unet.device: diffusers asks every submodule for offloading hooks first, milliseconds each time.
        return next(self.unet.parameters()).device


def tensors(model: StableDiffusion) -> dict[str, Tensor]:
    """Every tensor that a step may change, by name: "unet.down_blocks.0…", "text_encoder.…". Not copies."""
    return {
        f"{part}.{name}": value
        for part in ("unet", *model.family.encoders)
        for name, value in getattr(model, part).state_dict().items()
    }


def of_texts(names: Iterable[str]) -> bool:
    """Whether one of these tensors is a text encoder's."""
    return any(not name.startswith("unet.") for name in names)


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
        model = parent.copy(texts=of_texts(changed))
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
