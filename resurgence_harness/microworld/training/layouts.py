"""The two layouts in which the microworld is trained: Stable Diffusion's, and Stable Diffusion XL's.

    sd   one text encoder; cross-attention on the three finer of four levels
    xl   two text encoders of different width, pooled text and sizes; attention on the two coarser of three levels

Both share the drawn world, the autoencoder and the judges; `micro-xl` is trained from the shipped autoencoder.
"""

from __future__ import annotations

from typing import Any

from resurgence_harness.diffusion.families import FAMILIES, SD, SDXL, Family
from resurgence_harness.microworld import vocabulary
from resurgence_harness.microworld.training.settings import Settings

PADDING = {"tokenizer": vocabulary.END, "tokenizer_2": "!"}
"""Tokenizer → its padding, as SD v1's and SDXL's."""


def family_of(settings: Settings) -> Family:
    """Stable Diffusion, or Stable Diffusion XL."""
    return SDXL if settings.second_width else SD


def new_tokenizers(settings: Settings) -> dict[str, Any]:
    """The family's tokenizers, by name."""
    return {
        name: vocabulary.build_tokenizer(pad_token=PADDING[name])
        for family in FAMILIES
        if family is family_of(settings)
        for name in family.tokenizers
    }


def new_text_encoders(settings: Settings, tokenizers: dict[str, Any]) -> dict[str, Any]:
    """The family's text encoders, by name."""
    import transformers

    family, made = family_of(settings), {}
    sizes = ((settings.text_width, settings.text_layers), (settings.second_width, settings.second_layers))
    for reader, (width, layers) in zip(family.readers, sizes, strict=False):
        tokenizer = tokenizers[reader.tokenizer]
        made[reader.encoder] = getattr(transformers, reader.kind)(
            transformers.CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=settings.text_inner * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                max_position_embeddings=vocabulary.TOKENS,
                hidden_act="quick_gelu",
                projection_dim=width,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    return made


def new_unet(settings: Settings) -> Any:
    """A diffusers `UNet2DConditionModel` with the family's levels and two layers per block."""
    from diffusers import UNet2DConditionModel

    common: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": settings.unet_widths,
        "layers_per_block": 2,
        "attention_head_dim": settings.unet_heads,
        "norm_num_groups": 16 if settings.unet_widths[0] >= 32 else 8,
        "cross_attention_dim": settings.text_width + settings.second_width,
    }
    if not settings.second_width:
        return UNet2DConditionModel(
            down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
            **common,
        )
    return UNet2DConditionModel(
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        up_block_types=(*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        transformer_layers_per_block=settings.unet_depths,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=settings.size_width,
        projection_class_embeddings_input_dim=settings.second_width + 6 * settings.size_width,
        **common,
    )
