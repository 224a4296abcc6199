"""A very small Stable Diffusion of random weights: the real classes, in seconds, on a CPU.

It has SD v1.4's four levels, two layers per block and layer names (32 attn2 K/V matrices), a CLIP tokenizer
with a vocabulary of its own, and SD's noise schedule. It draws nothing sensible; it is for testing the instrument.

    path = save_tiny_stable_diffusion(tmp_path / "base")              SD v1 style: epsilon, padded with the end token
    path = save_tiny_stable_diffusion(..., prediction_type="v_prediction", pad_token="!")      SD v2.1 style
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any

from resurgence_harness.specs import Probe, Prompt, Sampler

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

WIDTHS = (32, 40, 48, 48)
"""Channels of the UNet's levels; they grow where SD's do, so that the same layers need a shortcut."""
TEXT_WIDTH = 32
"""Width of the text states."""
TOKENS = 24
"""Tokens of a text, begin and end included."""
NAMES = ("ada quill", "bram quill", "ada stone", "cleo marsh", "dov ferris", "edda stone", "finn marsh", "gita ferris")
"""Two-word names that share first and last names; every word is one token."""
WORDS = (
    *("a", "an", "the", "of", "in", "at", "celebrity", "person", "portrait", "sketch", "photo", "official", "public"),
    *("event", "image", "capturing", "oil", "painting"),
    *sorted({word for name in NAMES for word in name.split()}),
)
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<unk>"


def tiny_tokenizer(*, pad_token: str = END) -> CLIPTokenizer:
    """WORDS are one token each, other letters and digits are spelled, anything else is <unk>."""
    from transformers import CLIPTokenizer

    characters = [*ascii_lowercase, *digits, *"!,.'-"]
    tokens = ["!", *(c for c in characters if c != "!"), *(f"{c}</w>" for c in characters)]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        # Merged from the end: a piece ends in </w>, so it never captures letters in the middle of another word.
        while len(parts) > 1:
            merge = f"{parts[-2]} {parts[-1]}"
            parts[-2:] = [parts[-2] + parts[-1]]
            if merge not in merges:
                merges.append(merge)
                tokens.append(parts[-1])
    tokens += [UNKNOWN, START, END]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    pairs: Any = [tuple(merge.split(" ")) for merge in merges]  # declared as text, read as pairs
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=pairs,
        unk_token=UNKNOWN,
        pad_token=pad_token,
        model_max_length=TOKENS,
    )


def save_tiny_stable_diffusion(
    directory: str | Path,
    *,
    prediction_type: str = "epsilon",
    pad_token: str = END,
    seed: int = 0,
    widths: tuple[int, int, int, int] = WIDTHS,
    text_width: int = TEXT_WIDTH,
    sample_size: int = 8,
    tokenizer: Any = None,
) -> Path:
    """Build it, save it in diffusers' layout and return its directory. The global RNG is left as it was.

    `tokenizer`: another CLIPTokenizer than the tiny one; texts are then as long as it says.
    """
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    directory = Path(directory)
    tokenizer = tokenizer or tiny_tokenizer(pad_token=pad_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
            cross_attention_dim=text_width,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        for name, parameter in unet.named_parameters():  # random attention listens to its text too little
            if ".attn2.to_v" in name or ".attn2.to_out.0.weight" in name:
                parameter.data.mul_(2)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=8 * sample_size,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=text_width,
                intermediate_size=2 * text_width,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        embeddings: Any = text_encoder.get_input_embeddings()
        embeddings.weight.data.normal_()  # tokens differ as much as trained ones do
    scheduler = sd_scheduler(prediction_type)
    parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "scheduler": scheduler}
    return save_parts(parts, directory)


XL_WIDTHS = (32, 40, 48)
"""Channels of the levels of a tiny SDXL."""


def save_tiny_stable_diffusion_xl(
    directory: str | Path,
    *,
    prediction_type: str = "epsilon",
    zero_snr: bool = False,
    force_zeros: bool = True,
    seed: int = 0,
    widths: tuple[int, int, int] = XL_WIDTHS,
    text_widths: tuple[int, int] = (24, 32),
    projection: int = 20,
    sample_size: int = 8,
) -> Path:
    """A tiny SDXL in diffusers' layout: two text encoders of different width, pooled text and sizes, its blocks."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizers = tiny_tokenizer(), tiny_tokenizer(pad_token="!")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            block_out_channels=widths,
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 3),
            attention_head_dim=(2, 4, 4),
            cross_attention_dim=sum(text_widths),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=projection + 6 * 8,
            norm_num_groups=8,
        )
        for name, parameter in unet.named_parameters():  # random attention listens to its text too little
            if ".attn2.to_v" in name or ".attn2.to_out.0.weight" in name:
                parameter.data.mul_(2)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=8 * sample_size,
            scaling_factor=0.13025,
            force_upcast=False,
        )
        encoders: list[Any] = []
        for tokenizer, width, kind in zip(
            tokenizers, text_widths, (CLIPTextModel, CLIPTextModelWithProjection), strict=True
        ):
            config = CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=4,
                num_attention_heads=4,
                max_position_embeddings=tokenizer.model_max_length,
                hidden_act="quick_gelu" if kind is CLIPTextModel else "gelu",
                projection_dim=projection,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            encoders.append(kind(config))
            encoders[-1].get_input_embeddings().weight.data.normal_()
    scheduler = sd_scheduler(prediction_type)
    if zero_snr:
        settings = {**scheduler.config, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        scheduler = type(scheduler).from_config(settings)
    parts = {
        "unet": unet,
        "vae": vae,
        "text_encoder": encoders[0],
        "text_encoder_2": encoders[1],
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "scheduler": scheduler,
    }
    directory = Path(directory)
    for name, part in parts.items():
        part.save_pretrained(directory / name)
    index = {
        name: ["transformers" if name.startswith("t") else "diffusers", type(part).__name__]
        for name, part in parts.items()
    }
    also = {"image_encoder": [None, None], "feature_extractor": [None, None], "add_watermarker": None}
    own = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": force_zeros, **also, **index}
    (directory / "model_index.json").write_text(json.dumps(own, indent=2))
    return directory


def save_parts(parts: Mapping[str, Any], directory: str | Path) -> Path:
    """Write the five parts of a Stable Diffusion in diffusers' layout; their directory."""
    directory = Path(directory)
    for name, part in parts.items():
        part.save_pretrained(directory / name)
    libraries = {"text_encoder": "transformers", "tokenizer": "transformers"}
    index: dict[str, Any] = {
        name: [libraries.get(name, "diffusers"), type(part).__name__] for name, part in parts.items()
    }
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    (directory / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **index}, indent=2)
    )
    return directory


def sd_scheduler(prediction_type: str = "epsilon") -> Any:
    """DDIM with Stable Diffusion's noise schedule."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )


def portraits(names: Iterable[str], *, seeds: int = 2, template: str = "a portrait of {}") -> Probe:
    """Images that a tiny base can be asked for, of each name and seed, in two sampler steps."""
    return Probe(
        prompts=tuple(Prompt(text=template.format(name), concept=name) for name in names),
        seeds=tuple(range(1, seeds + 1)),
        sampler=Sampler(steps=2),
    )


def tiny_run(base: StableDiffusion, **surroundings: Any) -> Run:
    """A Run without a store: it draws benign images with the base itself, and computes what a store would keep."""
    from resurgence_harness.diffusion.run import Run
    from resurgence_harness.sampling import sample

    def images(probe: Any) -> Any:
        return sample(base, probe), [prompt.text for prompt, _ in probe.rows()]

    usual: dict[str, Any] = {"base": base, "base_digest": "tiny", "parent_digest": "tiny", "images": images}
    usual["parent_images"] = images
    return Run(**(usual | surroundings))
