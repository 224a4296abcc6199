"""Stage 3: the U-Net, with classifier-free guidance trained in; then the bars.

L(θ) = E w_t ‖ε_θ(x_t, t, c) − ε‖², w_t = min(SNR_t, 5) / SNR_t (Hang et al. 2023, arXiv:2303.09556), t uniform, SD's
scaled-linear schedule, one caption in ten dropped. The shipped weights are an exponential moving average.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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


def new_unet(settings: Settings) -> Any:
    """A diffusers `UNet2DConditionModel`: SD's four levels, two layers per block, 32 attn2 K/V matrices."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=settings.unet_widths,
        layers_per_block=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        cross_attention_dim=settings.text_width,
        attention_head_dim=settings.unet_heads,
        norm_num_groups=16 if settings.unet_widths[0] >= 32 else 8,
    )


def new_scheduler() -> Any:
    """SD v1's noise schedule under DDIM."""
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


def latent_pool(vae: Any, settings: Settings, device: torch.device) -> tuple[Tensor, Tensor, list[str]]:
    """Latent means and deviations of freshly rendered pictures, scaled to unit spread, fp16, and their captions."""
    means, deviations, captions = [], [], []
    chunk = min(32_768, settings.unet_pool)
    for k in range(max(settings.unet_pool // chunk, 1)):
        pool = render_pool(chunk, seed=1_000 + k, device=device)
        for start in range(0, len(pool), 2_048):
            with torch.inference_mode(), half_precision(device):
                posterior = vae.encode(pixels(pool.images[start : start + 2_048])).latent_dist
            means.append((posterior.mean * vae.config.scaling_factor).half())
            deviations.append((posterior.std * vae.config.scaling_factor).half())
        captions += pool.captions
    return torch.cat(means).clone(), torch.cat(deviations).clone(), captions


def train_denoiser(out: Path, settings: Settings, device: torch.device) -> None:
    """Train it and save a whole diffusers pipeline in `out`."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    if (out / "model_index.json").exists():
        print("denoiser: already there", flush=True)
        return
    vae = AutoencoderKL.from_pretrained(out / "vae").float().to(device).eval()
    text = CLIPTextModel.from_pretrained(out / "text_encoder").float().to(device).eval()
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    began = time.monotonic()
    means, deviations, captions = latent_pool(vae, settings, device)
    distinct = {text_: k for k, text_ in enumerate(dict.fromkeys(["", *captions]))}
    which = torch.tensor([distinct[text_] for text_ in captions], device=device)
    with torch.inference_mode():
        ids = tokens_of(tokenizer, list(distinct)).to(device)
        states = torch.cat([text(input_ids=ids[i : i + 512]).last_hidden_state for i in range(0, len(ids), 512)])
    states = states.clone().to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    print(f"{len(means):,} latents, {len(distinct):,} captions, {time.monotonic() - began:.0f} s", flush=True)
    torch.manual_seed(41)
    unet = new_unet(settings).to(device)
    ema = {name: tensor.detach().clone() for name, tensor in unet.state_dict().items()}
    cuda = device.type == "cuda"
    rate: Any = torch.tensor(settings.unet_rate / 100, device=device) if cuda else settings.unet_rate
    optimiser = torch.optim.AdamW(
        unet.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=cuda, capturable=cuda
    )
    scheduler = new_scheduler()
    alphas = scheduler.alphas_cumprod.to(device)
    snr = alphas / (1 - alphas)
    weights = snr.clamp(max=5) / snr
    snapshots, first = Snapshots(out / "denoiser.part.pt", settings.snapshot_seconds), 0
    if state := snapshots.load(device):
        unet.load_state_dict(state["unet"])  # type: ignore[arg-type]
        optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        ema, first = state["ema"], int(state["step"]) + 1  # type: ignore[assignment, call-overload]

    def loss_of(x0: Tensor, noise: Tensor, t: Tensor, c: Tensor) -> Tensor:
        a = alphas[t].view(-1, 1, 1, 1)
        prediction = unet(a.sqrt() * x0 + (1 - a).sqrt() * noise, t, c).sample.float()
        return (weights[t] * (prediction - noise).square().mean((1, 2, 3))).mean()

    def optimise() -> Tensor:
        index = torch.randint(len(means), (settings.unet_batch,), device=device)
        x0 = means[index].float() + deviations[index].float() * torch.randn(len(index), 4, 8, 8, device=device)
        t = torch.randint(1000, (len(index),), device=device)
        said = which[index] * (torch.rand(len(index), device=device) >= 0.1)
        with half_precision(device):
            loss = loss_of(x0, torch.randn_like(x0), t, states[said])
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
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    index_ = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts}
    (out / "model_index.json").write_text(json.dumps(index_, indent=2) + "\n")
    snapshots.done()
