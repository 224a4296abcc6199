"""Stable Diffusion as a bundle of parts, in float32, read offline from safetensors.

    f_θ   unet           noise or velocity prediction            τ   text_encoder, tokenizer   text states [n, L, d]
    E, D  vae            image ↔ latent, × scaling_factor        ᾱ   scheduler                 DDIM, SD's schedule

This file is where diffusers' and transformers' loading quirks end: everything above it sees these five parts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.errors import BuildError, SpecError, UserError, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

LARGE = 100_000_000
"""Weights of a UNet from which on arithmetic takes a GPU's time; below, launching kernels does."""


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
    """diffusers DDIMScheduler; its noise schedule and prediction type are the model's, its step count is nobody's."""

    @classmethod
    def load(cls, directory: str | Path, device: str = "cpu") -> StableDiffusion:
        """Read a local directory in diffusers' layout; `base_files.check_base` tells what is wrong with one."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer

        root = str(directory)
        with _reading(root):
            unet = _weights(UNet2DConditionModel, root, "unet", "torch_dtype")
            vae = _weights(AutoencoderKL, root, "vae", "torch_dtype")
            text_encoder = _weights(CLIPTextModel, root, "text_encoder", "dtype")
            tokenizer = CLIPTokenizer.from_pretrained(root, subfolder="tokenizer", local_files_only=True)
            # SD's latents are not clipped to [-1, 1]; DDIM's own default would, where a PNDM file does not say.
            scheduler = DDIMScheduler.from_pretrained(
                root, subfolder="scheduler", local_files_only=True, clip_sample=False
            )
        _check_tokenizer(tokenizer, text_encoder.config, root)
        tokenizer.model_max_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
        model = cls(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        return model.to(device)

    def to(self, device: str) -> StableDiffusion:
        """These parts on a device; modules are moved in place, as torch does."""
        for part in (self.unet, self.vae, self.text_encoder):
            part.to(device)
        return self

    def copy(self) -> StableDiffusion:
        """A model whose UNet may be changed; the other parts are shared."""
        import torch

        with torch.inference_mode(False):  # else nothing could be trained in a copy that was made while sampling
            return replace(self, unet=copy.deepcopy(self.unet))

    def pipeline(self) -> Any:
        """The same parts as a StableDiffusionPipeline, without a safety checker: a blacked image would look safe."""
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
    """Every tensor that a step might move, by name: "unet.down_blocks.0…", "text_encoder.…". Not copies."""
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
        # Compared where it lies: most of gigabytes has not moved, and need not cross to the CPU.
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


def _weights(kind: Any, root: str, part: str, precision: str) -> Any:
    """One frozen component in float32. A tensor the files lack is refused: the libraries would draw it at random."""
    import torch

    from resurgence_harness.diffusion.base_files import INDEX, variant_of
    from resurgence_harness.diffusion.tensor_files import shown

    module, report = kind.from_pretrained(
        root,
        subfolder=part,
        variant=variant_of(root, part),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **{precision: torch.float32},
    )
    missing = sorted(report["missing_keys"])
    unknown = sorted(name for name in report["unexpected_keys"] if not name.endswith(INDEX))
    if unknown and not missing:
        raise UserError(
            sentence(
                f"The base at {root} holds tensors that its {part} does not have.",
                extra=f"{len(unknown)} tensors, first {shown(unknown[0])}",
                do="Give the model in diffusers' layout that save_pretrained() wrote, with its own config.json.",
            )
        )
    if missing:
        raise UserError(
            sentence(
                f"The base at {root} lacks weights of its {part}.",
                missing=f"{len(missing)} tensors, first {missing[0]}",
                do="Copy or download the base again.",
            )
        )
    # What was read lies in the mapped file at any address, where kernels round unlike in torch's own memory: a
    # model and its copy would differ in the last bit.
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return module.requires_grad_(False).eval()


def _check_tokenizer(tokenizer: Any, config: Any, root: str) -> None:
    """transformers can build a tokenizer that maps every word to <unk> without a word; this is where it is noticed."""
    size, expected = len(tokenizer), config.vocab_size
    if not expected // 2 < size <= expected:
        raise UserError(
            sentence(
                f"The tokenizer of the base at {root} does not belong to its text encoder.",
                tokenizer=f"{size:,} tokens",
                text_encoder=f"{expected:,} embeddings",
                do="Give the tokenizer's vocab.json and merges.txt, or its tokenizer.json, of this very model.",
            )
        )


@contextmanager
def _reading(root: str) -> Iterator[None]:
    """While weights are read: no progress bars (they are the run's to show), no global randomness, one error."""
    import torch
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    bars: list[Any] = [library for library in (diffusers, transformers) if library.is_progress_bar_enabled()]
    for library in bars:
        library.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as problem:
        raise UserError(
            sentence(
                f"The base at {root} cannot be loaded.",
                problem=next(iter(str(problem).strip().splitlines()), type(problem).__name__),
                do="Give a Stable Diffusion v1 or v2 in diffusers' layout; check it with StableDiffusionPipeline.",
            )
        ) from problem
    finally:
        for library in bars:
            library.enable_progress_bar()
