"""Stable Diffusions of random weights in the published configurations, made without a network.

    random_base("sd21", "cuda")       v2.1 at 768 px: the classes and sizes, none of the weights

Random weights are enough for time, for memory, and to see that a path runs; nothing can be learned from them about
models. `tiny` keeps what tells the bases apart (activations, heads, projections, padding, prediction type) and makes
every layer very small.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.diffusion.trainer import write_model
from tests.tiny import save_parts, sd_scheduler

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion

END = "<|endoftext|>"
TINY_SIDE = 24
"""Side of the latents that a tiny base is made for; its images of 192 pixels are large enough for the preset "sd"."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What tells one published base from another."""

    side: int
    """Side of the latents that it is made for, an eighth of the images' in pixels."""
    text_width: int
    """Numbers of a text state."""
    text_layers: int
    text_heads: int
    activation: str
    """Of the text encoder."""
    heads: int | tuple[int, ...]
    """Attention heads of the U-Net, at each level or at all."""
    linear: bool
    """Whether the U-Net's attention is projected by linear layers rather than by convolutions."""
    upcast: bool
    """Whether the U-Net's attention is computed in float32 whatever the weights are."""
    pad_token: str
    prediction_type: str


_V21_BASE = Configuration(
    side=64,
    text_width=1024,
    text_layers=23,
    text_heads=16,
    activation="gelu",
    heads=(5, 10, 20, 20),
    linear=True,
    upcast=False,
    pad_token="!",
    prediction_type="epsilon",
)
CONFIGURATIONS = {
    "sd14": Configuration(
        side=64,
        text_width=768,
        text_layers=12,
        text_heads=12,
        activation="quick_gelu",
        heads=8,
        linear=False,
        upcast=False,
        pad_token=END,
        prediction_type="epsilon",
    ),
    "sd21-base": _V21_BASE,
    "sd21": replace(_V21_BASE, side=96, upcast=True, prediction_type="v_prediction"),
}
"""By the word that the command line has for the published base."""
XL = "sdxl"
BASES = (*CONFIGURATIONS, XL)
"""Every base that can be made."""


def random_base(name: str, device: str, *, tiny: bool = False, seed: int = 0) -> StableDiffusion:
    """A base in one of the `CONFIGURATIONS`, frozen, in float32, with the weights that its classes start from."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from resurgence_harness.diffusion.model import StableDiffusion

    if name == XL:
        return random_xl(device, tiny=tiny, seed=seed)
    known = CONFIGURATIONS[name]
    side = TINY_SIDE if tiny else known.side
    text_width, text_heads = (32, 4) if tiny else (known.text_width, known.text_heads)
    words = tokenizer(pad_token=known.pad_token)
    torch.manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=side,
            block_out_channels=(32, 40, 48, 48) if tiny else (320, 640, 1280, 1280),
            cross_attention_dim=text_width,
            attention_head_dim=_heads(known.heads, tiny=tiny),
            use_linear_projection=known.linear,
            upcast_attention=known.upcast,
            norm_num_groups=8 if tiny else 32,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
            latent_channels=4,
            norm_num_groups=4 if tiny else 32,
            sample_size=8 * side,
        )
    with torch.device("meta" if device == "meta" else "cpu"):
        text_encoder: Any = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=text_width,
                intermediate_size=4 * text_width,
                num_hidden_layers=2 if tiny else known.text_layers,
                num_attention_heads=text_heads,
                hidden_act=known.activation,
            )
        )
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False).eval()
    scheduler = sd_scheduler(known.prediction_type)
    model = StableDiffusion(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=words, scheduler=scheduler)
    return model.to(device)


def random_xl(device: str, *, tiny: bool = False, seed: int = 0) -> StableDiffusion:
    """Stable Diffusion XL in its published configuration, frozen, in float32."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from resurgence_harness.diffusion.families import SDXL
    from resurgence_harness.diffusion.model import StableDiffusion

    side, widths = (TINY_SIDE, (24, 32)) if tiny else (128, (768, 1280))
    projection, size_width = (20, 8) if tiny else (1280, 256)
    torch.manual_seed(seed)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=side,
            block_out_channels=(32, 40, 48) if tiny else (320, 640, 1280),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 1, 2) if tiny else (1, 2, 10),
            attention_head_dim=(2, 4, 4) if tiny else (5, 10, 20),
            cross_attention_dim=sum(widths),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=size_width,
            projection_class_embeddings_input_dim=projection + 6 * size_width,
            norm_num_groups=8 if tiny else 32,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
            latent_channels=4,
            norm_num_groups=4 if tiny else 32,
            sample_size=8 * side,
            scaling_factor=0.13025,
            force_upcast=True,
        )
    encoders: list[Any] = []
    kinds = ((CLIPTextModel, 12, 12, "quick_gelu"), (CLIPTextModelWithProjection, 32, 20, "gelu"))
    with torch.device("meta" if device == "meta" else "cpu"):
        for width, (kind, layers, heads, activation) in zip(widths, kinds, strict=True):
            settings = CLIPTextConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=3 if tiny else layers,
                num_attention_heads=4 if tiny else heads,
                hidden_act=activation,
                projection_dim=projection,
            )
            encoders.append(kind(settings))
    for part in (unet, vae, *encoders):
        part.requires_grad_(False).eval()
    model = StableDiffusion(
        unet=unet,
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad_token="!"),
        scheduler=sd_scheduler(),
        family=SDXL,
        index=SDXL.written({}),
    )
    return model.to(device)


def write_base(
    directory: Path, *, name: str = "sd14", device: str = "cpu", tiny: bool = False, half: bool = False
) -> None:
    """The same in diffusers' layout; `half`: float16 on disk."""
    import torch

    model = random_base(name, device, tiny=tiny)
    if name == XL:
        kept = (model.unet, model.vae, *model.encoders)
        for part in kept if half else ():
            part.to(torch.float16)
        write_model(model, directory)
        del model, kept
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        return
    parts: dict[str, Any] = {"unet": model.unet, "vae": model.vae, "text_encoder": model.text_encoder}
    if half:
        parts = {name: part.to(torch.float16) for name, part in parts.items()}
    save_parts({**parts, "tokenizer": model.tokenizer, "scheduler": model.scheduler}, directory)
    del model, parts
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # whoever uses the files has a process of its own


def tokenizer(*, pad_token: str = END) -> Any:
    """Stable Diffusion's, from the byte pairs in open_clip."""
    from transformers import CLIPTokenizer

    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise SystemExit("open_clip is not installed: pip install open_clip_torch")
    with gzip.open(Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    merges: Any = [tuple(line.split()) for line in lines[1 : 49_152 - 256 - 2 + 1]]
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        unk_token=END,
        pad_token=pad_token,
        model_max_length=77,
    )


def _heads(heads: int | tuple[int, ...], *, tiny: bool) -> Any:
    """As the published config.json has them; of a tiny base such as divide its widths."""
    if not tiny:
        return heads
    return 4 if isinstance(heads, int) else (2, 4, 6, 6)


def _letters() -> list[str]:
    """CLIP's letters for the 256 bytes: printable ones as they are, the others moved behind them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + place) for place in range(len(others)))]
