"""Stage 1: the autoencoder, with L1, edge and perceptual losses and a weak KL term, as SD's without adversarial loss.

The perceptual network is trained here for a minute on the renderer's labels and then discarded; it is not used as a
judge.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resurgence_harness.judging.micro_networks import ResidualNet
from resurgence_harness.microworld import weights, world
from resurgence_harness.microworld.training.pool import (
    GraphedStep,
    Pool,
    Progress,
    Snapshots,
    batches,
    cosine,
    descend,
    half_precision,
    pixels,
    render_pool,
    set_rate,
)
from resurgence_harness.microworld.training.settings import Settings


def new_autoencoder(settings: Settings) -> Any:
    """A diffusers `AutoencoderKL`: 64 px ↔ 4 × 8 × 8."""
    from diffusers import AutoencoderKL

    widths = settings.autoencoder_widths
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16 if widths[0] >= 32 else 8,
        sample_size=64,
    )


def _labels(pool: Pool, index: Tensor) -> Tensor:
    """One class per (family, subject), int64 [n]: the targets of the perceptual network."""
    offsets = torch.tensor(
        [sum(list(world.SUBJECTS.values())[:k]) for k in range(len(world.FAMILIES))], device=index.device
    )
    return offsets[pool.family[index]] + pool.subject[index].clamp(min=0)


def train_perceptual(pool: Pool, settings: Settings, device: torch.device) -> ResidualNet:
    """Train a classifier of all subjects; its activations give the perceptual loss."""
    torch.manual_seed(101)
    net = ResidualNet(sum(world.SUBJECTS.values()), (32, 64, 96, 128)).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    source = batches(len(pool), 512, generator=torch.Generator(device).manual_seed(102), device=device)
    progress = Progress("perceptual", settings.perceptual_steps, 512)
    for step in progress:
        index = next(source)
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * cosine(step, settings.perceptual_steps)
        with half_precision(device):
            noisy = pixels(pool.images[index])
            noisy = noisy + 0.1 * torch.randn_like(noisy) * torch.rand(len(index), 1, 1, 1, device=device)
            loss = nn.functional.cross_entropy(net(noisy), _labels(pool, index))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        progress.step(step, loss.detach())
    return net.eval().requires_grad_(False)


def edges(x: Tensor) -> Tensor:
    """Horizontal and vertical pixel differences, [n, …] flattened: their loss makes reconstructions sharp."""
    return torch.cat([(x[..., 1:] - x[..., :-1]).flatten(1), (x[..., 1:, :] - x[..., :-1, :]).flatten(1)], dim=1)


def share_autoencoder(out: Path) -> None:
    """Copy the shipped autoencoder to `out/vae`, for another model of the same world.

    Its decoder computes in the sampler's arithmetic, as it does in the shipped model: SDXL's pipelines would compute
    it in float32 with `force_upcast`.
    """
    shipped, folder = weights.directory() / "vae", out / "vae"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped / "diffusion_pytorch_model.safetensors", folder / "diffusion_pytorch_model.safetensors")
    settings = json.loads((shipped / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, "force_upcast": False}, indent=2) + "\n", "utf-8")


def train_autoencoder(out: Path, settings: Settings, device: torch.device) -> None:
    """Train the autoencoder, print its statistics, and save it as `out/vae`."""
    if (out / "vae" / "diffusion_pytorch_model.safetensors").exists():
        print("autoencoder: present already", flush=True)
        return
    pool = render_pool(settings.pool, seed=1, device=device)
    print(f"rendered {len(pool):,} pictures", flush=True)
    torch.manual_seed(11)
    vae = new_autoencoder(settings).to(device)
    ema = {name: tensor.detach().clone() for name, tensor in vae.state_dict().items()}
    cuda = device.type == "cuda"
    rate: Any = torch.tensor(settings.autoencoder_rate / 100, device=device) if cuda else settings.autoencoder_rate
    optimiser = torch.optim.AdamW(
        vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=cuda, capturable=cuda
    )
    perceptual = train_perceptual(pool, settings, device)
    snapshots, first = Snapshots(out / "autoencoder.part.pt", settings.snapshot_seconds), 0
    if state := snapshots.load(device):
        vae.load_state_dict(state["vae"])  # type: ignore[arg-type]
        optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        ema, first = state["ema"], int(state["step"]) + 1  # type: ignore[assignment, call-overload]

    spread, seen = torch.ones((), device=device), torch.zeros((), device=device)

    def loss_of(x: Tensor) -> Tensor:
        posterior = vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        z = z + settings.latent_noise * spread * torch.rand(len(x), 1, 1, 1, device=device) * torch.randn_like(z)
        y = vae.decode(z).sample
        pixel, edge = (y - x).abs().mean(), (edges(y) - edges(x)).abs().mean()
        likeness = torch.zeros((), device=x.device)
        for a, b in zip(perceptual.features(y), perceptual.features(x), strict=True):
            likeness = likeness + (a - b).abs().mean() / (b.abs().mean() + 1e-3)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        seen.copy_(pixel.detach())
        return pixel + edge + 0.06 * likeness + settings.kl_weight * kl

    def optimise() -> Tensor:
        x = pixels(pool.images[torch.randint(len(pool), (settings.autoencoder_batch,), device=device)])
        with half_precision(device):
            loss = loss_of(x)
        return descend(vae, optimiser, loss)

    run = GraphedStep(optimise, device) if settings.graphs else optimise
    progress = Progress("autoencoder", settings.autoencoder_steps, settings.autoencoder_batch, first, settings.seconds)
    current = vae.state_dict()
    for step in progress:
        set_rate(optimiser, settings.autoencoder_rate * cosine(step, progress.steps))
        loss = run()
        if step % 10 == 0:
            decay = min(0.995, (1 + step / 10) / (10 + step / 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(ema.values()), [current[k] for k in ema], 1 - decay)
                if step % 100 == 0:
                    spread.copy_(vae.encode(pixels(pool.images[:64])).latent_dist.mean.std())
        progress.step(step, loss, f"L1 {float(seen):.4f}" if step % 50 == 0 else "")
        snapshots.maybe(
            lambda step=step: {  # type: ignore[misc]
                "vae": vae.state_dict(),
                "optimiser": optimiser.state_dict(),
                "ema": ema,
                "step": step,
            }
        )
    vae.load_state_dict(ema)
    vae.eval()
    with torch.inference_mode():
        latents = torch.cat(
            [
                vae.encode(pixels(pool.images[i : i + 512])).latent_dist.mean
                for i in range(0, min(len(pool), 4_096), 512)
            ]
        )
        std = torch.cat(
            [vae.encode(pixels(pool.images[i : i + 512])).latent_dist.std for i in range(0, min(len(pool), 1_024), 512)]
        )
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    print(
        json.dumps(
            {
                "latent_mean": float(latents.mean()),
                "latent_std": float(latents.std()),
                "posterior_std": float(std.mean()),
                "L1": float(seen),
            }
        ),
        flush=True,
    )
    vae.half().save_pretrained(out / "vae")
    snapshots.done()
