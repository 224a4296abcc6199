"""Every setting of a component's config: its default, its range, and whether it can change an image. Needs no torch.

    resolved("unet", {"block_out_channels": [320, 640, 1280, 1280], …})   every setting, defaults filled in

The libraries get only the settings resolved here, so a key that would make them open another file, run code that comes
with a model, quantise or load an adapter never reaches them. Such keys are refused (`REFUSED`), since the libraries
alone would load another model from the same files than the one that is judged. Keys without a meaning for Stable
Diffusion are ignored in the configs of U-Net, VAE and scheduler, as diffusers ignores them; transformers makes every
key an attribute of the config, so in a text encoder's config only those in `IDLE` are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from resurgence_harness.diffusion.families import SD, SIZES, Family
from resurgence_harness.errors import UserError, sentence, shown

WIDEST, DEEPEST, BLOCKS = 8192, 64, 8
"""Most channels, layers and levels. Stable Diffusion has 1,280, 24 and 4."""
_REPAIR = "Give the file that save_pretrained() wrote for these weights."


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a config."""

    default: Any
    """The library's value for a missing key."""
    fits: Callable[[Any], bool]
    expected: str
    """The allowed values, for people."""
    draws: bool = True
    """Whether another value can change an image; if not, it does not count as a difference from a parent."""


def _whole(least: int, most: int, default: int, *, draws: bool = True) -> Setting:
    return Setting(
        default=default,
        fits=lambda value: type(value) is int and least <= value <= most,
        expected=f"a whole number from {least} to {most:,}",
        draws=draws,
    )


def _number(least: float, most: float, default: float | None, *, draws: bool = True, null: bool = False) -> Setting:
    return Setting(
        default=default,
        fits=lambda value: (null and value is None) or (is_number(value) and least <= value <= most),
        expected=f"a number from {least:g} to {most:g}" + (", or null" if null else ""),
        draws=draws,
    )


def _one_of(*choices: Any, draws: bool = True) -> Setting:
    """The first is the default."""
    return Setting(
        default=choices[0],
        fits=lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        expected=" or ".join(repr(choice) for choice in choices),
        draws=draws,
    )


def _switch(default: bool, *, draws: bool = True) -> Setting:
    return _one_of(default, not default, draws=draws)


def _widths(*default: int) -> Setting:
    return Setting(
        default=list(default),
        fits=lambda value: _listed(value, lambda one: type(one) is int and 1 <= one <= WIDEST),
        expected=f"a list of whole numbers from 1 to {WIDEST:,}",
    )


def _kinds(*default: str, of: tuple[str, ...]) -> Setting:
    return Setting(
        default=list(default),
        fits=lambda value: _listed(value, lambda one: isinstance(one, str) and one in of),
        expected=f"a list of {' and '.join(of)}",
    )


def _listed(value: Any, one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= BLOCKS and all(one(entry) for entry in value)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number; booleans are not."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


_NUMBERS = Setting(
    default=None,
    fits=lambda value: value is None or (isinstance(value, list) and len(value) <= 64 and all(map(is_number, value))),
    expected="null, or a list of numbers",
)
_IDENTITY = Setting(
    default=None,
    fits=lambda value: value is None or (type(value) is int and abs(value) < 2**31),
    expected="a token id, or null",
    draws=False,
)
_IDENTITIES = Setting(
    default=None,
    fits=lambda value: _IDENTITY.fits(value) or (_listed(value, _IDENTITY.fits) and None not in value),
    expected="a token id, a list of them, or null",
    draws=False,
)


def _whole_or_none(most: int) -> Setting:
    return Setting(
        default=None,
        fits=lambda value: value is None or (type(value) is int and 2 <= value <= most),
        expected=f"null, or a whole number from 2 to {most:,}",
    )


_LAYERS = Setting(
    default=1,
    fits=lambda value: (
        (type(value) is int and 1 <= value <= DEEPEST)
        or _listed(value, lambda one: type(one) is int and 1 <= one <= DEEPEST)
    ),
    expected=f"a whole number from 1 to {DEEPEST}, or a list of them",
)
_HEADS = Setting(
    default=8,
    fits=lambda value: (
        (type(value) is int and 1 <= value <= WIDEST)
        or _listed(value, lambda one: type(one) is int and 1 <= one <= WIDEST)
    ),
    expected="a whole number from 1, or a list of them",
)
_BETAS = Setting(
    default=None,
    fits=lambda value: (
        value is None
        or (isinstance(value, list) and 100 <= len(value) <= 10_000 and all(is_number(b) and 0 < b < 1 for b in value))
    ),
    expected="null, or a list of numbers between 0 and 1",
)
_ACTIVATION = _one_of("silu", "swish", "mish", "gelu", "relu")
_NONE = _one_of(None)
_CROSS, _PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")

SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "unet": {
        "sample_size": _whole(1, 1024, 64, draws=False),  # the sampler's settings give the size of images
        "in_channels": _whole(1, 64, 4),
        "out_channels": _whole(1, 64, 4),
        "center_input_sample": _switch(False),
        "flip_sin_to_cos": _switch(True),
        "freq_shift": _number(0, 1, 0),
        "down_block_types": _kinds(*[_CROSS[0]] * 3, _PLAIN[0], of=(_CROSS[0], _PLAIN[0])),
        "mid_block_type": _one_of("UNetMidBlock2DCrossAttn"),
        "up_block_types": _kinds(_PLAIN[1], *[_CROSS[1]] * 3, of=(_CROSS[1], _PLAIN[1])),
        "only_cross_attention": _one_of(False),
        "block_out_channels": _widths(320, 640, 1280, 1280),
        "layers_per_block": _whole(1, DEEPEST, 2),
        "downsample_padding": _whole(0, 1, 1),
        "mid_block_scale_factor": _number(1e-3, 1e3, 1),
        "dropout": _number(0, 1, 0.0, draws=False),  # off while images are drawn
        "act_fn": _ACTIVATION,
        "norm_num_groups": _whole(1, WIDEST, 32),
        "norm_eps": _number(1e-12, 1, 1e-5),
        "cross_attention_dim": _whole(1, WIDEST, 1280),
        "transformer_layers_per_block": _LAYERS,
        "reverse_transformer_layers_per_block": _NONE,
        "encoder_hid_dim": _NONE,
        "encoder_hid_dim_type": _NONE,
        "attention_head_dim": _HEADS,
        "num_attention_heads": _NONE,
        "dual_cross_attention": _one_of(False),
        "use_linear_projection": _switch(False),
        "class_embed_type": _NONE,
        "addition_embed_type": _one_of(None, "text_time"),
        "addition_time_embed_dim": _whole_or_none(WIDEST),
        "num_class_embeds": _NONE,
        "upcast_attention": _switch(False),
        "resnet_time_scale_shift": _one_of("default"),
        "resnet_skip_time_act": _one_of(False),
        "resnet_out_scale_factor": _number(1e-3, 1e3, 1.0),
        "time_embedding_type": _one_of("positional"),
        "time_embedding_dim": _NONE,
        "time_embedding_act_fn": _NONE,
        "timestep_post_act": _NONE,
        "time_cond_proj_dim": _NONE,
        "conv_in_kernel": _one_of(3, 1, 5, 7),
        "conv_out_kernel": _one_of(3, 1, 5, 7),
        "projection_class_embeddings_input_dim": _whole_or_none(16 * WIDEST),
        "attention_type": _one_of("default"),
        "class_embeddings_concat": _one_of(False),
        "mid_block_only_cross_attention": _one_of(None, False),
        "cross_attention_norm": _NONE,
        "addition_embed_type_num_heads": _whole(1, WIDEST, 64, draws=False),  # of an embedding that is refused
    },
    "vae": {
        "in_channels": _one_of(3),
        "out_channels": _one_of(3),
        "down_block_types": _kinds("DownEncoderBlock2D", of=("DownEncoderBlock2D",)),
        "up_block_types": _kinds("UpDecoderBlock2D", of=("UpDecoderBlock2D",)),
        "block_out_channels": _widths(64),
        "layers_per_block": _whole(1, DEEPEST, 1),
        "act_fn": _ACTIVATION,
        "latent_channels": _whole(1, 64, 4),
        "norm_num_groups": _whole(1, WIDEST, 32),
        "sample_size": _whole(1, 8192, 32, draws=False),  # used only by tiling, which is always off
        "scaling_factor": _number(1e-6, 1e6, 0.18215),
        "shift_factor": _number(-1e6, 1e6, None, null=True),
        "latents_mean": _NUMBERS,
        "latents_std": _NUMBERS,
        "force_upcast": _switch(True, draws=False),  # the decoder's arithmetic alone, and only that of SDXL
        "use_quant_conv": _switch(True),
        "use_post_quant_conv": _switch(True),
        "mid_block_add_attention": _switch(True),
    },
    "text_encoder": {
        "vocab_size": _whole(2, 1_000_000, 49408, draws=False),  # the tokenizer says which rows are read
        "hidden_size": _whole(1, WIDEST, 512),
        "intermediate_size": _whole(1, 4 * WIDEST, 2048),
        "projection_dim": Setting(
            default=512,
            fits=lambda value: value is None or (type(value) is int and 0 <= value <= WIDEST),
            expected="a whole number, or null",
            draws=False,  # of a layer that a CLIPTextModel does not have
        ),
        "num_hidden_layers": _whole(1, DEEPEST, 12),
        "num_attention_heads": _whole(1, WIDEST, 8),
        "max_position_embeddings": _whole(3, 4096, 77),
        "hidden_act": _one_of("quick_gelu", "gelu", "gelu_new", "relu", "silu"),
        "layer_norm_eps": _number(1e-12, 1, 1e-5),
        "attention_dropout": _number(0, 1, 0.0, draws=False),  # off while images are drawn
        "initializer_range": _number(0, 1e3, 0.02, draws=False),  # weights are read, not initialised
        "initializer_factor": _number(0, 1e3, 1.0, draws=False, null=True),
        # The ids are read for the pooled state, which Stable Diffusion does not use; padding is the tokenizer's.
        "pad_token_id": _IDENTITY,
        "bos_token_id": _IDENTITY,
        "eos_token_id": _IDENTITIES,
    },
    "scheduler": {
        "num_train_timesteps": _whole(100, 10_000, 1000),
        "beta_start": _number(1e-9, 0.999, 0.0001),
        "beta_end": _number(1e-9, 0.999, 0.02),
        "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
        "trained_betas": _BETAS,
        "clip_sample": _switch(True, draws=False),  # always off: latents are not confined to [-1, 1]
        "set_alpha_to_one": _switch(True),
        "steps_offset": _whole(0, 1, 0),
        "prediction_type": _one_of("epsilon", "v_prediction"),
        "thresholding": _one_of(False),
        "dynamic_thresholding_ratio": _number(0, 1, 0.995, draws=False),  # of a thresholding that is refused
        "clip_sample_range": _number(1e-6, 1e6, 1.0, draws=False),
        "sample_max_value": _number(1e-6, 1e6, 1.0, draws=False),
        "timestep_spacing": _one_of("leading", "trailing", "linspace"),
        "rescale_betas_zero_snr": _switch(False),
    },
}
"""Component → key → setting. The scheduler's are DDIM's, which is used whatever scheduler the model names."""
SETTINGS = {
    **SETTINGS,
    "text_encoder_2": {
        **SETTINGS["text_encoder"],
        "projection_dim": _whole(1, WIDEST, 512),  # its pooled, projected state is read
        "eos_token_id": replace(_IDENTITIES, draws=True),  # says at which token
    },
}

REFUSED = {
    "quantization_config": "weights would be interpreted in another way",
    "compression_config": "weights would be interpreted in another way",
    "auto_map": "code that comes with the model would run",
    "custom_pipelines": "code that comes with the model would run",
    "custom_pipeline": "code that comes with the model would run",
    "trust_remote_code": "code that comes with the model would run",
    "transformers_weights": "weights would be read from another file",
    "weights_name": "weights would be read from another file",
    "variant": "weights would be read from another file",
    "gguf_file": "weights would be read from another file",
    "subfolder": "weights would be read from another folder",
    "adapter_kwargs": "an adapter would change the weights",
    "peft_config": "an adapter would change the weights",
    "per_layer_config": "layers would have settings of their own",
    "text_config": "the settings would be another config's",
    "pruned_heads": "attention heads would be left out",
}
"""Keys in a component's config that change what a library loads → how. Empty values are accepted."""
IDLE = frozenset(
    (
        *("_name_or_path", "name_or_path", "_commit_hash", "architectures", "model_type"),
        *("transformers_version", "torch_dtype", "dtype", "add_cross_attention", "bad_words_ids"),
        *("begin_suppress_tokens", "chunk_size_feed_forward", "cross_attention_hidden_size"),
        *("decoder_start_token_id", "diversity_penalty", "do_sample", "dropout", "early_stopping"),
        *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task"),
        *("forced_bos_token_id", "forced_eos_token_id", "gradient_checkpointing", "id2label", "is_decoder"),
        *("is_encoder_decoder", "label2id", "length_penalty", "max_length", "min_length"),
        *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_labels", "num_return_sequences"),
        *("output_attentions", "output_hidden_states", "output_scores", "prefix", "problem_type"),
        *("remove_invalid_values", "repetition_penalty", "return_dict", "return_dict_in_generate"),
        *("sep_token_id", "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss"),
        *("tie_encoder_decoder", "tie_word_embeddings", "tokenizer_class", "top_k", "top_p", "torchscript"),
        *("typical_p", "use_bfloat16", "use_cache", "use_return_dict", "_attn_implementation_autoset"),
    )
)
"""Keys of a text encoder's config without effect on its states: provenance, generation, classification heads."""
_TYPES = {"dtype", "torch_dtype"}
_PRECISIONS = {"float64", "float32", "float16", "bfloat16"}


def resolved(part: str, given: Mapping[str, Any], path: object) -> dict[str, Any]:
    """Every setting of a component ("unet", "vae", a text encoder, "scheduler"), the file's or its default.

    UserError, naming `path` and the setting, for a value that no Stable Diffusion has.
    """
    known, found = SETTINGS[part], {}
    for name in sorted(REFUSED.keys() & given.keys()):
        if given[name] not in (None, {}, [], "", False):
            raise _wrong(path, name, given[name], f"no such key: {REFUSED[name]}")
    if part.startswith("text_encoder"):
        _check_text(given, path)
    # diffusers uses the defaults of these keys, whatever values the file has.
    defaults = given.get("_use_default_values", [])
    if not isinstance(defaults, list):
        raise _wrong(path, "_use_default_values", defaults, "a list of names")
    for name, setting in known.items():
        value = given.get(name, setting.default) if name not in defaults else setting.default
        if not setting.fits(value):
            if name == "prediction_type":
                raise UserError(
                    sentence(
                        f"{path} is of a model that predicts what no method here can train: {shown(repr(value))}.",
                        expected=setting.expected,
                        do="Give a Stable Diffusion v1, v2 or XL model that predicts noise or velocity.",
                    )
                )
            raise _wrong(path, name, value, setting.expected)
        found[name] = value
    _RELATIONS[part](found, path)
    return found


def differing(part: str, child: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    """The settings that can change an image and are not equal in two resolved configs, in the order of the table."""
    return [name for name, setting in SETTINGS[part].items() if setting.draws and child[name] != parent[name]]


def _check_text(given: Mapping[str, Any], path: object) -> None:
    kind = given.get("model_type") or "clip_text_model"
    if kind != "clip_text_model":
        raise _wrong(path, "model_type", kind, "'clip_text_model'")
    for name in _TYPES & given.keys():
        value = given[name]
        if value is not None and (not isinstance(value, str) or value.removeprefix("torch.") not in _PRECISIONS):
            raise _wrong(path, name, value, " or ".join(sorted(_PRECISIONS)))
    for name in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        if given.get(name) not in (None, "eager", "sdpa"):
            raise _wrong(path, name, given[name], "'sdpa' or 'eager'")
    harmless = IDLE | REFUSED.keys() | SETTINGS["text_encoder"].keys()
    odd = [name for name in given if name not in harmless and not name.endswith(("attn_implementation", "_internal"))]
    if odd:
        raise _wrong(path, odd[0], given[odd[0]], "no such key")


def _check_blocks(found: Mapping[str, Any], path: object) -> None:
    widths, groups = found["block_out_channels"], found["norm_num_groups"]
    for name in ("down_block_types", "up_block_types"):
        if len(found[name]) != len(widths):
            raise _wrong(path, name, found[name], f"{len(widths)} of them, as block_out_channels has")
    if any(width % groups for width in widths):
        raise _wrong(path, "norm_num_groups", groups, f"a divisor of every width, {widths}")


def _check_unet(found: Mapping[str, Any], path: object) -> None:
    _check_blocks(found, path)
    widths = found["block_out_channels"]
    if widths[0] < 4 or widths[0] % 2:
        raise _wrong(path, "block_out_channels", widths, "an even number first, from 4")
    heads = found["attention_head_dim"]
    heads = heads if isinstance(heads, list) else [heads] * len(widths)
    if len(heads) != len(widths):
        raise _wrong(path, "attention_head_dim", heads, f"one number, or {len(widths)} of them")
    if any(width % count for width, count in zip(widths, heads, strict=True)):
        raise _wrong(path, "attention_head_dim", heads, f"divisors of the widths, {widths}: it is the number of heads")
    layers = found["transformer_layers_per_block"]
    if isinstance(layers, list) and len(layers) != len(widths):
        raise _wrong(path, "transformer_layers_per_block", layers, f"one number, or {len(widths)} of them")
    added = [found[name] for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim")]
    if found["addition_embed_type"] is None and added != [None, None]:
        raise _wrong(path, "addition_time_embed_dim", added[0], "null, as addition_embed_type is")
    if found["addition_embed_type"] is not None and (None in added or added[1] <= SIZES * added[0] or added[0] % 2):
        expected = f"more than {SIZES} × addition_time_embed_dim ({added[0]}), which is even"
        raise _wrong(path, "projection_class_embeddings_input_dim", added[1], expected)
    if found["in_channels"] != found["out_channels"]:
        raise _wrong(path, "in_channels", found["in_channels"], f"out_channels, {found['out_channels']}")


def _check_heads(found: Mapping[str, Any], path: object) -> None:
    if found["hidden_size"] % found["num_attention_heads"]:
        raise _wrong(path, "num_attention_heads", found["num_attention_heads"], f"a divisor of {found['hidden_size']}")


def _check_schedule(found: Mapping[str, Any], path: object) -> None:
    if found["beta_start"] > found["beta_end"]:
        raise _wrong(path, "beta_start", found["beta_start"], f"at most beta_end, {found['beta_end']}")
    betas, steps = found["trained_betas"], found["num_train_timesteps"]
    if betas is not None and len(betas) != steps:
        raise _wrong(path, "trained_betas", f"{len(betas)} numbers", f"{steps} of them, one for each timestep")
    if found["rescale_betas_zero_snr"] and found["prediction_type"] == "epsilon":
        raise UserError(
            sentence(
                f"{path} ends at pure noise, from which a model that predicts noise can draw nothing.",
                setting="rescale_betas_zero_snr = true, prediction_type = 'epsilon'",
                expected="rescale_betas_zero_snr with 'v_prediction' alone",
                do="Give the scheduler that the model was trained with.",
            )
        )
    if math.prod(1 - beta for beta in _schedule(found)) < 1e-30:
        raise _wrong(path, "beta_end", found["beta_end"], "a schedule that leaves some signal at its end")


def _schedule(found: Mapping[str, Any]) -> list[float]:
    """β_1 … β_T; empty for squaredcos_cap_v2, which always leaves some signal."""
    if found["trained_betas"] is not None:
        return list(found["trained_betas"])
    low, high, steps = found["beta_start"], found["beta_end"], found["num_train_timesteps"]
    if found["beta_schedule"] == "scaled_linear":
        low, high = low**0.5, high**0.5
    betas = [low + (high - low) * step / (steps - 1) for step in range(steps)]
    if found["beta_schedule"] == "squaredcos_cap_v2":
        return []
    return [beta**2 for beta in betas] if found["beta_schedule"] == "scaled_linear" else betas


_RELATIONS: Mapping[str, Callable[[Mapping[str, Any], object], None]] = {
    "unet": _check_unet,
    "vae": _check_blocks,
    "text_encoder": _check_heads,
    "text_encoder_2": _check_heads,
    "scheduler": _check_schedule,
}


def check_together(settings: Mapping[str, Mapping[str, Any]], directory: object, family: Family = SD) -> None:
    """UserError if the widths of a model's components do not fit together, or the U-Net is another family's."""
    unet = settings["unet"]
    if unet["addition_embed_type"] != family.added:
        raise UserError(
            sentence(
                f"The unet of the base at {directory} is of another family than its model_index.json says.",
                unet=f"addition_embed_type = {unet['addition_embed_type']!r}",
                expected=f"{family.added!r}, as {family.name} has",
                do="Give a model whose parts were saved together.",
            )
        )
    scaling = settings["vae"]["scaling_factor"]
    if scaling in family.foreign_scaling:
        raise UserError(
            sentence(
                f"The vae of the base at {directory} is of another family than its unet.",
                vae=f"scaling_factor = {scaling}",
                unet=family.name,
                do=f"Give the VAE of a {family.name}: its latents have another scale.",
            )
        )
    wide = sum(settings[part]["hidden_size"] for part in family.encoders)
    widths = " + ".join(str(settings[part]["hidden_size"]) for part in family.encoders)
    pairs = [
        (("unet", "cross_attention_dim", unet["cross_attention_dim"]), ("text_encoder", "hidden_size", wide, widths)),
        (
            ("unet", "in_channels", unet["in_channels"]),
            ("vae", "latent_channels", settings["vae"]["latent_channels"], str(settings["vae"]["latent_channels"])),
        ),
    ]
    if family.added is not None:
        pooled = next(reader.encoder for reader in family.readers if reader.pooled)
        room = unet["projection_class_embeddings_input_dim"] - SIZES * unet["addition_time_embed_dim"]
        width = settings[pooled]["projection_dim"]
        pairs.append((("unet", "width of the pooled text", room), (pooled, "projection_dim", width, str(width))))
    for (part, name, value), (other, twin, found, text) in pairs:
        if value != found:
            raise UserError(
                sentence(
                    f"The {part} and the {other} of the base at {directory} do not belong together.",
                    **{part: f"{name} = {value}", other: f"{twin} = {text}"},
                    do=f"Give a {family.name} whose parts were saved together.",
                )
            )


def _wrong(path: object, name: str, value: Any, expected: str) -> UserError:
    return UserError(
        sentence(
            f"{path} has a setting that no Stable Diffusion has.",
            setting=shown(f"{name} = {value!r}"),
            expected=expected,
            do=_REPAIR,
        )
    )


__all__ = ["IDLE", "REFUSED", "SETTINGS", "Setting", "check_together", "differing", "is_number", "resolved"]
