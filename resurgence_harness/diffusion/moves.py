"""The operations that every method is built from: encode a text, add noise, predict it, denoise.

Notation   x_0 latents [n, 4, h, w]     x_t = a_t x_0 + s_t ε,   a_t = √ᾱ_t,   s_t = √(1 − ᾱ_t)     t in 0 … 999
           c conditions: text states [n, L, d], and what the family adds (conditions.py)
           f_θ(x_t, t, c) → ε, or v = a_t ε − s_t x_0 for a v-prediction model (families.py)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from resurgence_harness.diffusion.conditions import Conditions, conditions_of, joined
from resurgence_harness.diffusion.families import SIZES
from resurgence_harness.diffusion.precision import exact_products, half_training
from resurgence_harness.errors import SpecError, UserError, sentence

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion

BATCH = 64
"""Texts or images per forward pass of the two encoders."""
PIXELS = 128 * 128
"""Pixels of an image up to which the autoencoder takes BATCH at once; at 512 × 512 that many would need 50 GB."""


# Texts


def check_texts(tokenizer: Any, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> None:
    """UserError for a text that the tokenizer cannot represent, or that is too long and not in `may_be_cut`."""
    room = tokenizer.model_max_length - 2
    for text, ids in zip(texts, _ids(tokenizer, texts), strict=True):
        if tokenizer.unk_token_id in ids:
            words = text.split()
            odd = [w for w, ids in zip(words, _ids(tokenizer, words), strict=True) if tokenizer.unk_token_id in ids]
            raise UserError(
                sentence(
                    f'The base model\'s tokenizer cannot represent "{text}".',
                    unknown=", ".join(odd) or text,
                    do="Use letters that the tokenizer has; an unknown word becomes <unk> and has no effect on images.",
                )
            )
        if len(ids) > room and text not in may_be_cut:
            raise UserError(
                sentence(
                    f'The text "{text}" does not fit the base model.',
                    tokens=len(ids),
                    room=room,
                    do="Shorten it: the rest would be cut off silently.",
                )
            )


@exact_products()
def conditions(model: StableDiffusion, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> Conditions:
    """c of each text, padded to L as the model was trained with. The same text is encoded once.

    Texts in `may_be_cut` are truncated to L, as in diffusers' pipelines; UserError for any other that is too long.
    """
    import torch

    distinct = list(dict.fromkeys(texts))
    ids = text_ids(model, distinct, may_be_cut=may_be_cut)
    parts = []
    with torch.no_grad():
        for low in range(0, len(distinct), BATCH):
            some = slice(low, low + BATCH)
            parts.append(read_texts(model, [each[some] for each in ids], empty=[not text for text in distinct[some]]))
    place = {text: index for index, text in enumerate(distinct)}
    whole: Conditions = joined(parts)
    return whole[[place[text] for text in texts]]


def encode_texts(model: StableDiffusion, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> Tensor:
    """The text states [n, L, d] of `conditions`: what cross-attention reads of each text."""
    return conditions(model, texts, may_be_cut=may_be_cut).states


def read_texts(model: StableDiffusion, ids: Sequence[Tensor], *, empty: Sequence[bool] | None = None) -> Conditions:
    """c of token ids [n, L], one tensor per text encoder; gradients flow if they are enabled.

    The text encoders' states stand side by side. `empty`: which rows are of the empty text; none if None.
    """
    import torch

    empty = empty or [False] * len(ids[0])
    states, pooled = [], None
    for (reader, _, encoder), each in zip(model.texts, ids, strict=True):
        skipped = reader.layer + model.clip_skip
        if reader.normalised and not model.clip_skip:
            states.append(encoder(each)[0])
            continue
        found = encoder(each, output_hidden_states=True)
        hidden = found.hidden_states
        _check_skip(model, len(hidden), skipped)
        read = hidden[-skipped]
        if model.clip_skip and any(empty):
            read = torch.where(_rows(empty, read), hidden[-reader.layer], read)
        states.append(encoder.final_layer_norm(read) if reader.normalised else read)
        if reader.pooled:
            pooled = found.text_embeds
    c = states[0] if len(states) == 1 else torch.cat(states, dim=-1)
    if any(model.index.values()) and any(empty):  # force_zeros_for_empty_prompt
        c = c.masked_fill(_rows(empty, c), 0)
        pooled = None if pooled is None else pooled.masked_fill(_rows(empty, pooled), 0)
    return Conditions(c, pooled)


def _rows(which: Sequence[bool], like: Tensor) -> Tensor:
    """The rows as a mask that can be broadcast to a tensor [n, …]."""
    import torch

    return torch.tensor(list(which), device=like.device).view(-1, *[1] * (like.ndim - 1))


def _check_skip(model: StableDiffusion, found: int, skipped: int) -> None:
    if not 1 <= skipped <= found:
        raise SpecError(
            sentence(
                f"A text encoder with {found} hidden states has none to read.",
                clip_skip=model.clip_skip,
                do=f"Skip at most {found - skipped + model.clip_skip}.",
            )
        )


def text_ids(model: StableDiffusion, texts: Sequence[str], *, may_be_cut: Collection[str] = ()) -> list[Tensor]:
    """Token ids [n, L] on the model's device for each text encoder, padded to L as the model was trained with.

    Texts in `may_be_cut` are truncated to L; UserError for any other that is too long, or that has unknown words.
    """
    found = []
    for _, tokenizer, _ in model.texts:
        check_texts(tokenizer, texts, may_be_cut=may_be_cut)
        padded = tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,  # only those in may_be_cut are longer
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        )
        found.append(padded.input_ids.to(model.device))
    return found


def filled(tokenizer: Any, template: str, subject: str) -> tuple[str, range]:
    """The template with `subject` in the place of "{}", and the positions of its tokens there, in the padded text.

    The positions are those of "{}": in "{} at the beach" filled with "the beach" they are those of the first "the
    beach". An empty subject has no tokens.
    """
    text, before = template.format(subject).strip(), template.partition("{}")[0].strip()
    ids, sought, start = _ids(tokenizer, [text, subject, before])
    low = len(start)
    if sought and ids[low : low + len(sought)] != sought:
        return text, subject_tokens(tokenizer, text, subject)  # the tokenizer merged it with its neighbours
    return text, range(low + 1, low + 1 + len(sought))  # the begin token stands at 0


def last_subject_token(tokenizer: Any, text: str, subject: str) -> int:
    """Position, in the padded text, of the last token of the last occurrence of `subject`; SpecError without any.

    For an empty subject it is the position of the text's last token, or of the begin token if the text is empty too,
    as in UCE's official code.
    """
    return subject_tokens(tokenizer, text, subject).stop - 1


def subject_tokens(tokenizer: Any, text: str, subject: str) -> range:
    """Positions, in the padded text, of the tokens of the last occurrence of `subject`; SpecError without any.

    Empty for an empty subject.
    """
    ids, sought = _ids(tokenizer, [text, subject])
    starts = [low for low in range(len(ids) - len(sought) + 1) if ids[low : low + len(sought)] == sought]
    if not starts:
        raise SpecError(
            sentence(
                f'The text "{text}" does not contain "{subject}".',
                do='Write the place of the name as "{}", apart from other words.',
            )
        )
    return range(starts[-1] + 1, starts[-1] + 1 + len(sought))  # the begin token stands at 0


def end_token(tokenizer: Any, text: str) -> int:
    """Position, in the padded text, of the end token; everything after it is padding."""
    return len(_ids(tokenizer, [text])[0]) + 1


def words_of(text: str) -> list[str]:
    """Case-folded words: letters, digits and the apostrophes inside them."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())


def holds(row: Sequence[object], sought: Sequence[object]) -> bool:
    """Whether `sought` (words or tokens) is not empty and occurs in `row` without a gap."""
    size = len(sought)
    return bool(size) and any(list(row[low : low + size]) == list(sought) for low in range(len(row) - size + 1))


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids without begin, end and padding."""
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids]


# Latents


@exact_products()
def latent_moments(model: StableDiffusion, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [n, 4, h, w] of the VAE's posterior of uint8 images [n, H, W, 3], scaled as x_0."""
    import torch

    means, deviations = [], []
    scale = model.vae.config.scaling_factor
    with torch.no_grad():
        each = max(1, min(BATCH, BATCH * PIXELS // (images.shape[1] * images.shape[2])))
        for low in range(0, len(images), each):
            pixels = torch.from_numpy(images[low : low + each].copy()).to(model.device)
            posterior = model.vae.encode(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
            means.append(posterior.mean * scale)
            deviations.append(posterior.std * scale)
    return torch.cat(means), torch.cat(deviations)


def initial_noise(model: StableDiffusion, seeds: Sequence[int], *, height: int, width: int) -> Tensor:
    """x_T [n, 4, h, w], each image from its own seed on the CPU: the same on every device and in every batch."""
    import torch

    factor = model.latent_factor
    shape = (model.unet.config.in_channels, height // factor, width // factor)
    noise = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
    return torch.stack(noise).to(model.device)


def on_device(value: Tensor, device: Any) -> Tensor:
    """The tensor there. A GPU that still computes is not waited for, as it would be without pinned memory.

    A training that waits at every copy of indices or noise leaves the GPU idle while Python prepares the next step.
    """
    if value.device.type == "cpu" and getattr(device, "type", device) == "cuda":
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


# Diffusion


def signal(model: StableDiffusion, t: Tensor) -> Tensor:
    """a_t = √ᾱ_t as [n, 1, 1, 1]."""
    value: Tensor = on_device(model.scheduler.alphas_cumprod, t.device)[t].sqrt().view(-1, 1, 1, 1)
    return value


def add_noise(model: StableDiffusion, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = a_t x_0 + s_t ε."""
    a = signal(model, t)
    return a * x_0 + (1 - a**2).sqrt() * noise


def target(model: StableDiffusion, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The training target of f_θ(x_t, t, ·): ε, or v = a_t ε − s_t x_0."""
    a = signal(model, t)
    return model.prediction.target(x_0, noise, a, (1 - a**2).sqrt())


def predict(model: StableDiffusion, x_t: Tensor, t: Tensor | int, c: Conditions | Tensor) -> Tensor:
    """f_θ(x_t, t, c): ε or v, [n, 4, h, w]."""
    c = conditions_of(c)
    added = added_conditions(model, x_t, c)
    if (training := half_training()) is not None:
        return training.predict(model.unet, x_t, t, c.states, added)
    value: Tensor = model.unet(
        x_t, t, encoder_hidden_states=c.states, added_cond_kwargs=added or None, return_dict=False
    )[0]
    return value


def added_conditions(model: StableDiffusion, x_t: Tensor, c: Conditions) -> dict[str, Tensor]:
    """What the U-Net reads besides text states: nothing, or "text_embeds" [n, p] and "time_ids" [n, 6].

    Without sizes of their own, images are as large as they were and not cropped. SpecError without a pooled text.
    """
    import torch

    if model.family.added is None:
        return {}
    if c.pooled is None:
        raise SpecError(
            sentence(
                f"A prediction of {model.family.name} lacks the pooled text.",
                states=tuple(c.states.shape),
                do="Encode texts with moves.conditions, which returns all that the model reads.",
            )
        )
    sizes = c.sizes
    if sizes is None:
        height, width = (side * model.latent_factor for side in x_t.shape[-2:])
        # Filled on the device: numbers that are copied to it cannot be captured in a graph.
        sides = (height, width, 0, 0, height, width)
        sizes = torch.stack([torch.full((len(x_t),), float(side), device=x_t.device) for side in sides], dim=1)
    if sizes.shape[-1] != SIZES:
        raise SpecError(
            sentence(
                f"{model.family.name} reads {SIZES} sizes.",
                given=sizes.shape[-1],
                do="Give height and width of the original, top and left of the crop, height and width of the image.",
            )
        )
    return {"text_embeds": c.pooled, "time_ids": sizes}


def noise_weight(model: StableDiffusion, t: Tensor) -> Tensor | None:
    """The factor [n, 1, 1, 1] that makes squared errors of predictions those of the noise; None for 1."""
    return model.prediction.noise_weight(signal(model, t))


def noise_errors(model: StableDiffusion, predicted: Tensor, aim: Tensor, t: Tensor) -> Tensor:
    """‖ε − ε'‖² of two predictions, mean over an image's elements, [n]; for a v-prediction model a_t² ‖v − v'‖²."""
    error = ((predicted - aim) ** 2).mean(dim=(1, 2, 3))
    weight = noise_weight(model, t)
    return error if weight is None else weight.flatten() * error


def timesteps(model: StableDiffusion, steps: int) -> list[int]:
    """The t that a DDIM sampler visits in `steps` steps, from noise to image."""
    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    scheduler.set_timesteps(steps)
    return [int(t) for t in scheduler.timesteps]


class Moment(NamedTuple):
    """The state of a sampler before a step, and the model's two predictions there."""

    t: int
    x_t: Tensor
    prompted: Tensor
    """f_θ(x_t, t, c)."""
    empty: Tensor
    """f_θ(x_t, t, c_0), c_0 the states of the empty text."""


Predictions = Callable[["Tensor", int], tuple["Tensor", "Tensor"]]
"""(x_t [n, 4, h, w], t) → f_θ(x_t, t, c_0) and f_θ(x_t, t, c), each [n, 4, h, w] in float32."""


@exact_products()
def denoise(
    model: StableDiffusion,
    noise: Tensor,
    states: Conditions | Tensor,
    empty: Conditions | Tensor,
    *,
    steps: int,
    guidance: float,
    watch: Callable[[Moment], None] | None = None,
    predictions: Predictions | None = None,
) -> Tensor:
    """x_0 by DDIM (η = 0) with classifier-free guidance; `watch` is called with the Moment before each step.

    Prompted and empty predictions are one forward pass of 2n rows. The guided prediction is
    f(c_0) + guidance · (f(c) − f(c_0)). `states` is c, `empty` one row, c_0. `predictions` replaces the model's own, in
    float32 (half/drawing.py).
    """
    import torch

    scheduler = type(model.scheduler).from_config(model.scheduler.config)
    scheduler.set_timesteps(steps)
    both = joined([conditions_of(empty).expand(len(states)), conditions_of(states)])
    x = noise

    def of_model(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        # Filled on the device: a number that is copied to it cannot be captured in a graph (replaying.py).
        moment = torch.full((), t, device=x.device)
        nothing, prompted = predict(model, torch.cat([x, x]), moment, both).chunk(2)
        return nothing, prompted

    with _text_read_once(model):
        for t in scheduler.timesteps.tolist():
            nothing, prompted = (predictions or of_model)(x, t)
            if watch is not None:
                watch(Moment(t, x, prompted, nothing))
            x = scheduler.step(nothing + guidance * (prompted - nothing), t, x, eta=0.0, return_dict=False)[0]
    return x


@contextmanager
def _text_read_once(model: StableDiffusion) -> Iterator[None]:
    """Within the context the text's keys and values are computed at the first step and reused: they never change."""

    def once(project: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        kept: list[Tensor] = []

        def read(states: Tensor) -> Tensor:
            if not kept:
                kept.append(project(states))
            return kept[0]

        return read

    projections = [module for name, module in model.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    try:
        for module in projections:
            module.forward = once(module.forward)
        yield
    finally:
        for module in projections:
            vars(module).pop("forward", None)


@exact_products()
def decode(model: StableDiffusion, x_0: Tensor) -> Tensor:
    """Latents to images, uint8 [n, H, W, 3], rounded as diffusers' pipeline rounds."""
    return rounded(decode_pixels(model, x_0))


@exact_products()
def decode_pixels(model: StableDiffusion, x_0: Tensor) -> Tensor:
    """Latents to pixels [n, 3, H, W], about −1 to 1."""
    pixels: Tensor = model.vae.decode(x_0 / model.vae.config.scaling_factor, return_dict=False)[0]
    return pixels


def rounded(pixels: Tensor) -> Tensor:
    """Pixels [n, 3, H, W] to uint8 [n, H, W, 3]; NaN would become black without a notice."""
    import torch

    image: Tensor = ((pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    return image.contiguous()
