"""Stage 3: the U-Net, trained for classifier-free guidance; then the quality measurement (`bars`).

L(θ) = E w_t ‖ε_θ(x_t, t, c) − ε‖², w_t = min(SNR_t, 5) / SNR_t (Hang et al. 2023, arXiv:2303.09556), t uniform, SD's
scaled-linear schedule, one caption in ten dropped. The shipped weights are an exponential moving average.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions, joined
from resurgence_harness.diffusion.families import Family
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.microworld.training.layouts import family_of, new_unet
from resurgence_harness.microworld.training.perception import tokens_of
from resurgence_harness.microworld.training.pool import (
    GraphedStep,
    Progress,
    Snapshots,
    cosine,
    descend,
    half_precision,
    pixels,
    render_pool,
    set_rate,
)
from resurgence_harness.microworld.training.settings import Settings


def new_scheduler() -> Any:
    """A DDIM scheduler with SD v1's noise schedule."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="epsilon",
    )


def latent_pool(vae: Any, settings: Settings, device: torch.device) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Latent means and standard deviations [n, 4, 8, 8] of newly rendered pictures, scaled by the VAE's scaling
    factor, float16, their sizes [n, 6] (`resized`), and their captions."""
    means, deviations, sizes, captions = [], [], [], []
    chunk = min(32_768, settings.unet_pool)
    for k in range(max(settings.unet_pool // chunk, 1)):
        pool = render_pool(chunk, seed=1_000 + k, device=device)
        generator = torch.Generator().manual_seed(2_000 + k)
        for start in range(0, len(pool), 2_048):
            images = pixels(pool.images[start : start + 2_048])
            images, own = resized(images, generator) if settings.second_width else (images, _plain(images))
            with torch.inference_mode(), half_precision(device):
                posterior = vae.encode(images).latent_dist
            means.append((posterior.mean * vae.config.scaling_factor).half())
            deviations.append((posterior.std * vae.config.scaling_factor).half())
            sizes.append(own)
        captions += pool.captions
    return torch.cat(means).clone(), torch.cat(deviations).clone(), torch.cat(sizes), captions


def resized(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some of the pictures [n, 3, s, s] as SDXL's training sees them: enlarged from a smaller original, or cropped.

    One in eight was 32 or 48 pixels large, one in eight is a crop of 80 × 80 pixels, the others are as they were; the
    sizes [n, 6] say so: height and width of the original, top and left of the crop, height and width of the picture.
    """
    interpolate = torch.nn.functional.interpolate
    images, sizes = images.clone(), _plain(images)
    side, order = images.shape[-1], torch.randperm(len(images), generator=generator).to(images.device)
    eighth = max(len(images) // 8, 1)
    for number, small in enumerate((side // 2, side * 3 // 4)):
        rows = order[:eighth][number::2]
        if len(rows):
            shrunk = interpolate(images[rows], (small, small), mode="bilinear", antialias=True)
            images[rows] = interpolate(shrunk, (side, side), mode="bilinear")
            sizes[rows, :2] = float(small)
    rows, large = order[eighth : 2 * eighth], side * 5 // 4
    if len(rows):
        top, left = torch.randint(large - side + 1, (2,), generator=generator).tolist()
        grown = interpolate(images[rows], (large, large), mode="bilinear")
        images[rows] = grown[..., top : top + side, left : left + side]
        sizes[rows, :4] = torch.tensor([large, large, top, left], dtype=sizes.dtype, device=sizes.device)
    return images, sizes


def _plain(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    return torch.tensor([[height, width, 0, 0, height, width]], device=images.device).float().repeat(len(images), 1)


def train_denoiser(out: Path, settings: Settings, device: torch.device) -> None:
    """Train the U-Net and save a complete diffusers pipeline in `out`."""
    import transformers
    from diffusers import AutoencoderKL

    if (out / "model_index.json").exists():
        print("denoiser: present already", flush=True)
        return
    family = family_of(settings)
    vae = AutoencoderKL.from_pretrained(out / "vae").float().to(device).eval()
    parts: dict[str, Any] = {}
    for reader in family.readers:
        kind = getattr(transformers, reader.kind)
        parts[reader.encoder] = kind.from_pretrained(out / reader.encoder).float().to(device).eval()
        parts[reader.tokenizer] = transformers.CLIPTokenizer.from_pretrained(out / reader.tokenizer)
    began = time.monotonic()
    means, deviations, sizes, captions = latent_pool(vae, settings, device)
    distinct = {text_: k for k, text_ in enumerate(dict.fromkeys(["", *captions]))}
    which = torch.tensor([distinct[text_] for text_ in captions], device=device)
    torch.manual_seed(41)
    unet = new_unet(settings).to(device)
    scheduler = new_scheduler()
    model = StableDiffusion(unet=unet, vae=vae, scheduler=scheduler, family=family, index=family.written({}), **parts)
    c = conditions(model, list(distinct), device)
    print(f"{len(means):,} latents, {len(distinct):,} captions, {time.monotonic() - began:.0f} s", flush=True)
    ema = {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}
    cuda = device.type == "cuda"
    rate: Any = torch.tensor(settings.unet_rate / 100, device=device) if cuda else settings.unet_rate
    optimiser = torch.optim.AdamW(
        unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=cuda, capturable=cuda
    )
    alphas = scheduler.alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=5) / snr
    snapshots, first = Snapshots(out / "denoiser.part.pt", settings.snapshot_seconds), 0
    if state := snapshots.load(device):
        unet.load_state_dict(state["unet"])  # type: ignore[arg-type]
        optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        ema, first = state["ema"], int(state["step"]) + 1  # type: ignore[assignment, call-overload]

    def loss_of(x0: Tensor, noise: Tensor, t: Tensor, c: Conditions) -> Tensor:
        a = alphas[t].view(-1, 1, 1, 1)
        prediction = moves.predict(model, a.sqrt() * x0 + (1 - a).sqrt() * noise, t, c).float()
        return (weights[t] * (prediction - noise).square().mean((1, 2, 3))).mean()

    def optimise() -> Tensor:
        index = torch.randint(len(means), (settings.unet_batch,), device=device)
        x0 = means[index].float() + deviations[index].float() * torch.randn(len(index), 4, 8, 8, device=device)
        t = torch.randint(1000, (len(index),), device=device)
        caption = which[index] * (torch.rand(len(index), device=device) >= 0.1)  # 0 is the empty caption
        with half_precision(device):
            loss = loss_of(x0, torch.randn_like(x0), t, replace(c[caption], sizes=sizes[index]))
        return descend(unet, optimiser, loss)

    run = GraphedStep(optimise, device) if settings.graphs else optimise
    progress = Progress("denoiser", settings.unet_steps, settings.unet_batch, first, settings.seconds)
    current = unet.state_dict()
    for step in progress:
        set_rate(optimiser, settings.unet_rate * cosine(step, progress.steps))
        loss = run()
        if step % 5 == 0:
            decay = min(0.9975, (1 + step / 5) / (10 + step / 5))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.values()), [current[k] for k in ema], 1 - decay)
        progress.step(step, loss)
        snapshots.maybe(
            lambda step=step: {  # type: ignore[misc]
                "unet": unet.state_dict(),
                "optimiser": optimiser.state_dict(),
                "ema": ema,
                "step": step,
            }
        )
    unet.load_state_dict(ema)
    unet.half().save_pretrained(out / "unet", max_shard_size="14MB")
    scheduler.save_pretrained(out / "scheduler")
    classes: dict[str, object] = {part: [library, kind] for part, library, kind in _classes(family)}
    index_ = {"_class_name": family.pipeline, **family.optional, **family.written({}), **classes}
    (out / "model_index.json").write_text(json.dumps(index_, indent=2) + "\n")
    snapshots.done()


def _classes(family: Family) -> Iterator[tuple[str, str, str]]:
    """Component, library and class, as model_index.json names them."""
    for part, (library, kinds) in family.classes.items():
        yield part, library, {"scheduler": "DDIMScheduler"}.get(part, min(kinds))


def conditions(model: StableDiffusion, captions: list[str], device: torch.device) -> Conditions:
    """c of every caption, in the arithmetic of training."""
    ids = [tokens_of(tokenizer, captions).to(device) for _, tokenizer, _ in model.texts]
    with torch.inference_mode():
        parts = [
            moves.read_texts(
                model,
                [each[low : low + 512] for each in ids],
                empty=[not text for text in captions[low : low + 512]],
            )
            for low in range(0, len(captions), 512)
        ]
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    read: Conditions = joined(parts)
    return read.of([value.clone().to(kind) for value in read.tensors()])
