"""What differs between Stable Diffusion 1 and 2 and Stable Diffusion XL, as values. Needs no torch.

                    SD 1, 2                              SDXL
    text encoders   text_encoder                         text_encoder, text_encoder_2, states side by side
    text states c   last hidden state, normalised        hidden state before the last, of both
    added           nothing                              pooled text of text_encoder_2; sizes (time ids)
    empty text c_0  its states                           its states, or zeros (model_index.json)
    decoder         in the sampler's arithmetic          in float32, unless vae/config.json says force_upcast = false

Latent factor and size, prediction type and noise schedule are the model's own settings in both (`model`). A prediction
is a value here, too: what f_θ returns, as a target and as a weight of its error.

    x_t = a_t x_0 + s_t ε        Noise: ε        Velocity: a_t ε − s_t x_0

The rest of the package reads these values; it never asks which family a model belongs to. Flow matching would be
another prediction, ε − x_0, and another schedule, a_t = 1 − t and s_t = t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class TextReader:
    """One text encoder with its tokenizer."""

    encoder: str
    """The component's name: "text_encoder"."""
    tokenizer: str
    kind: str
    """The encoder's class in transformers."""
    layer: int
    """Which hidden state is read, from the end: 1 the last, 2 the one before it."""
    normalised: bool
    """Whether the final layer norm is applied to it."""
    pooled: bool
    """Whether its pooled, projected state is read, too."""
    prefix: str = ""
    """What the names of its tensors begin with."""
    original: tuple[str, ...]
    """What they begin with in a single file of the original layout: ….transformer. for CLIP's, ….model. for OpenCLIP's
    names."""
    kohya: str
    """What they begin with in a LoRA of kohya's trainers."""


CONFIG = ("config.json",)
TOKENIZER = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json"),
    *("merges.txt", "special_tokens_map.json", "added_tokens.json"),
)
SCHEDULERS = {
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "UniPCMultistepScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "DEISMultistepScheduler", "LCMScheduler", "TCDScheduler"),
}
"""diffusers' schedulers for discrete diffusion. Their configs define the same noise schedule, which is used with DDIM
here; schedulers for flow matching and for continuous noise define another."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """Models with the same components, read in the same way."""

    name: str
    pipeline: str
    """The class in model_index.json, of diffusers."""
    readers: tuple[TextReader, ...]
    """The text encoders, in the order in which their states stand side by side."""
    added: str | None
    """The U-Net's addition_embed_type: "text_time" for pooled text and sizes; None for none."""
    index: Mapping[str, Any]
    """Settings in model_index.json that change images, and the pipeline's defaults; not empty: the file is digested."""
    upcasts: bool
    """Whether the decoder computes in float32 where vae/config.json says force_upcast."""
    own_schedule: bool
    """Whether a single file may state another prediction and noise schedule than its base's, which are then its own."""
    foreign_scaling: tuple[float, ...]
    """Scaling factors of another family's VAE, whose latents have the same shape."""
    pipeline_options: Mapping[str, Any]
    """Further arguments of the pipeline: no safety checker, no watermark."""
    optional: Mapping[str, Any]
    """Optional components in model_index.json, as they are written."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the text encoders."""
        return tuple(reader.encoder for reader in self.readers)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """Names of the tokenizers."""
        return tuple(reader.tokenizer for reader in self.readers)

    @property
    def weights(self) -> dict[str, str]:
        """Component → stem of its weight files."""
        stem = "diffusion_pytorch_model"
        return {"unet": stem, "vae": stem, **dict.fromkeys(self.encoders, "model")}

    @property
    def settings(self) -> dict[str, tuple[str, ...]]:
        """Component → files beside the weights that change what the model computes."""
        return {
            **dict.fromkeys(("unet", "vae", *self.encoders), CONFIG),
            "scheduler": ("scheduler_config.json",),
            **dict.fromkeys(self.tokenizers, TOKENIZER),
        }

    @property
    def classes(self) -> dict[str, tuple[str, set[str]]]:
        """Component → library and classes that model_index.json may name; any other is custom code or another model."""
        return {
            "unet": ("diffusers", {"UNet2DConditionModel"}),
            "vae": ("diffusers", {"AutoencoderKL"}),
            **{reader.encoder: ("transformers", {reader.kind}) for reader in self.readers},
            **dict.fromkeys(self.tokenizers, ("transformers", {"CLIPTokenizer", "CLIPTokenizerFast"})),
            "scheduler": ("diffusers", SCHEDULERS),
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """Every component."""
        return tuple(self.classes)

    def reader(self, part: str) -> TextReader | None:
        """The reader of a text encoder; None for another component."""
        return next((reader for reader in self.readers if reader.encoder == part), None)

    def written(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """The family's settings as a model_index.json has them."""
        return {name: index.get(name, default) for name, default in self.index.items()}


SD = Family(
    name="Stable Diffusion v1 or v2",
    pipeline="StableDiffusionPipeline",
    readers=(
        TextReader(
            encoder="text_encoder",
            tokenizer="tokenizer",
            kind="CLIPTextModel",
            original=("cond_stage_model.transformer.", "cond_stage_model.model."),
            kohya="lora_te_",
            layer=1,
            normalised=True,
            pooled=False,
        ),
    ),
    added=None,
    index={},
    upcasts=False,
    own_schedule=False,
    foreign_scaling=(0.13025,),
    pipeline_options={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    optional={"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False},
)
SDXL = Family(
    name="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    readers=(
        TextReader(
            encoder="text_encoder",
            tokenizer="tokenizer",
            kind="CLIPTextModel",
            original=("conditioner.embedders.0.transformer.",),
            kohya="lora_te1_",
            layer=2,
            normalised=False,
            pooled=False,
        ),
        TextReader(
            encoder="text_encoder_2",
            tokenizer="tokenizer_2",
            kind="CLIPTextModelWithProjection",
            original=("conditioner.embedders.1.model.",),
            kohya="lora_te2_",
            layer=2,
            normalised=False,
            pooled=True,
            prefix="text_model.",
        ),
    ),
    added="text_time",
    index={"force_zeros_for_empty_prompt": True},
    upcasts=True,
    own_schedule=True,
    foreign_scaling=(0.18215,),
    pipeline_options={"add_watermarker": False},
    optional={"image_encoder": [None, None], "feature_extractor": [None, None], "add_watermarker": None},
)
FAMILIES = (SD, SDXL)
SIZES = 6
"""Numbers of the sizes: height and width of the original, top and left of the crop, height and width of the image."""


def family_of(index: Mapping[str, Any]) -> Family | None:
    """The family of a model_index.json; None for another model."""
    return next((family for family in FAMILIES if family.pipeline == index.get("_class_name")), None)


# Predictions


class Prediction(ABC):
    """What f_θ(x_t, t, c) returns."""

    name: ClassVar[str]
    """Its prediction_type in a scheduler's config."""

    @abstractmethod
    def target(self, x_0: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """y_t of x_t = a x_0 + s ε; a and s are [n, 1, 1, 1]."""

    @abstractmethod
    def noise_weight(self, a: Tensor) -> Tensor | None:
        """The factor that makes ‖y − y'‖² an error ‖ε − ε'‖² of the noise, shaped as a; None for 1."""

    @abstractmethod
    def capped(self, ratio: Tensor, gamma: float) -> Tensor:
        """Min-SNR-γ's weight of ‖y − y'‖² at the signal-to-noise ratio a² / s²."""


@final
class Noise(Prediction):
    """ε."""

    name: ClassVar[str] = "epsilon"

    def target(self, x_0: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """ε."""
        return noise

    def noise_weight(self, a: Tensor) -> Tensor | None:
        """None: it is that error."""
        return None

    def capped(self, ratio: Tensor, gamma: float) -> Tensor:
        """min(ratio, γ) / ratio."""
        return (gamma / ratio).clamp(max=1)


@final
class Velocity(Prediction):
    """v = a_t ε − s_t x_0."""

    name: ClassVar[str] = "v_prediction"

    def target(self, x_0: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """v."""
        return a * noise - s * x_0

    def noise_weight(self, a: Tensor) -> Tensor | None:
        """a_t²: ε = a_t v + s_t x_t."""
        return a**2

    def capped(self, ratio: Tensor, gamma: float) -> Tensor:
        """min(ratio, γ) / (ratio + 1)."""
        return ratio.clamp(max=gamma) / (ratio + 1)


PREDICTIONS: Mapping[str, Prediction] = {one.name: one for one in (Noise(), Velocity())}
"""prediction_type → the prediction."""
