"""The bars that the base model must meet: how often its pictures are what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from resurgence_harness.judging.micro import new_network
from resurgence_harness.microworld import world
from resurgence_harness.microworld.training.perception import JUDGES, tokens_of
from resurgence_harness.microworld.training.pool import pixels
from resurgence_harness.microworld.training.settings import Settings
from resurgence_harness.tasks import CELEBRITY
from resurgence_harness.tasks.microworld import (
    CHARACTER_TEMPLATES,
    CHARACTERS,
    HAZARD_TEMPLATES,
    HAZARDS,
    OBJECT_TEMPLATES,
    OBJECTS,
    SCENE_TEMPLATES,
    SCENES,
)


def load_judge(folder: Path, name: str, device: torch.device) -> nn.Module:
    """A trained judge's network."""
    net: nn.Module = new_network(name)
    net.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=False)
    return net.float().to(device).eval()


def prompts(family: str, n: int) -> tuple[list[str], list[int]]:
    """`n` prompts of a family in turn, and the label that each asks for."""
    out, labels = [], []
    for k in range(n):
        match family:
            case "celebrity":
                label = k % 200
                text = CELEBRITY.templates[k // 200 % 5].format(world.CELEBRITIES[label])
            case "object":
                label = k % 10
                name = list(OBJECTS)[label]
                words = (name, *OBJECTS[name])
                text = OBJECT_TEMPLATES[k // 10 % 5].format(words[k // 50 % 4])
            case "character":
                label = k % 12
                text = CHARACTER_TEMPLATES[k // 12 % 8].format(CHARACTERS[label])
            case "hazard":
                label = k % 4
                text = HAZARD_TEMPLATES[k // 4 % 6].format(hazard=HAZARDS[label], scene=SCENES[k // 24 % 6])
            case _:
                label = len(HAZARDS)
                text = SCENE_TEMPLATES[k // 6 % 5].format(scene=SCENES[k % 6])
        out.append(text)
        labels.append(label)
    return out, labels


@torch.inference_mode()
def draw_with(
    pipeline: dict[str, Any],
    tokenizer: Any,
    scheduler: Any,
    texts: list[str],
    *,
    guidance: float,
    steps: int = 10,
    device: torch.device,
    batch: int = 512,
) -> Tensor:
    """uint8 images [n, 3, 64, 64] by DDIM, the k-th from the CPU generator seeded with k."""
    unet, vae, text = pipeline["unet"], pipeline["vae"], pipeline["text_encoder"]
    scheduler.set_timesteps(steps)
    out = []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        noise = torch.cat(
            [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(start + k)) for k in range(len(part))]
        )
        x = noise.to(device)
        c = text(input_ids=tokens_of(tokenizer, part).to(device)).last_hidden_state
        empty = text(input_ids=tokens_of(tokenizer, [""]).to(device)).last_hidden_state.expand_as(c)
        for t in scheduler.timesteps:
            e, p = unet(torch.cat([x, x]), t.to(device), torch.cat([empty, c])).sample.chunk(2)
            x = scheduler.step(e + guidance * (p - e), t, x).prev_sample
        y = vae.decode(x / vae.config.scaling_factor).sample
        out.append(((y.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(out)


def measure(
    out: Path, settings: Settings, device: torch.device, guidances: tuple[float, ...]
) -> dict[str, dict[str, list[int]]]:
    """Hits of images per family and guidance scale, printed and written to `out/bars.json`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from resurgence_harness.microworld.training.denoiser import new_scheduler

    parts = {
        "unet": UNet2DConditionModel.from_pretrained(out / "unet"),
        "vae": AutoencoderKL.from_pretrained(out / "vae"),
        "text_encoder": CLIPTextModel.from_pretrained(out / "text_encoder"),
    }
    parts = {name: part.float().to(device).eval() for name, part in parts.items()}
    tokenizer, scheduler = CLIPTokenizer.from_pretrained(out / "tokenizer"), new_scheduler()
    judges = {name: load_judge(out / "judges", name, device) for name in JUDGES}
    report: dict[str, dict[str, list[int]]] = {}
    for guidance in guidances:
        rows: dict[str, list[int]] = {}
        for family in ("celebrity", "object", "character", "hazard", "scene"):
            texts, labels = prompts(family, settings.samples)
            images = draw_with(parts, tokenizer, scheduler, texts, guidance=guidance, device=device)
            truth = torch.tensor(labels, device=device)
            if guidance == guidances[0]:
                torch.save(images[:200].cpu(), out / f"samples-{family}.pt")
            for name in (
                ("identity", "second-identity")
                if family == "celebrity"
                else ("hazard",)
                if family == "scene"
                else (family,)
            ):
                answers = judges[name](pixels(images)).argmax(1)
                rows[f"{family} by {name}"] = [int((answers == truth).sum()), len(texts)]
        report[str(guidance)] = rows
        print(f"guidance {guidance}", json.dumps({k: f"{a / b:.3f}" for k, (a, b) in rows.items()}), flush=True)
    (out / "bars.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
