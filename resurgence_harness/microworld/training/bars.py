"""Quality bars of the base model: how often its images show what the prompt asks for, according to the judges."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.judging.micro import LABELS, WEIGHTS, name_images
from resurgence_harness.microworld import world
from resurgence_harness.microworld.training.perception import JUDGES, load_judge
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


def prompts(family: str, n: int) -> tuple[list[str], list[int]]:
    """`n` prompts of a family, and the label index that each asks for."""
    out, labels = [], []
    for k in range(n):
        match family:
            case "celebrity":
                label = k % 200
                text = CELEBRITY.templates[k // 200 % 5].format(world.CELEBRITIES[label])
            case "object":
                label = k % 10
                name = list(OBJECTS)[label]
                synonyms = (name, *OBJECTS[name])
                text = OBJECT_TEMPLATES[k // 10 % 5].format(synonyms[k // 50 % 4])
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
def draw(model: StableDiffusion, texts: list[str], *, guidance: float, steps: int = 10, batch: int = 256) -> Tensor:
    """Sample uint8 images [n, 64, 64, 3] with DDIM, the k-th with seed k."""
    empty, out = moves.conditions(model, [""]), []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        noise = moves.initial_noise(model, range(start, start + len(part)), height=64, width=64)
        states = moves.conditions(model, part)
        latents = moves.denoise(model, noise, states, empty, steps=steps, guidance=guidance)
        out.append(moves.decode(model, latents))
    return torch.cat(out)


JUDGED_BY = {
    "celebrity": ("identity", "second-identity"),
    "object": ("object",),
    "character": ("character",),
    "hazard": ("hazard",),
    "scene": ("hazard",),
}
"""The judges of each family; for a scene, the hazard judge should answer harmless."""


def judges_at(out: Path) -> Path:
    """The folder of the judges: those trained there, or the shipped ones."""
    return out / "judges" if (out / "judges" / "calibration.json").exists() else WEIGHTS


def measure(
    out: Path, settings: Settings, device: torch.device, guidances: tuple[float, ...]
) -> dict[str, dict[str, list[int]]]:
    """[hits, images] per guidance scale and family, by the judges' answers; printed, and written to `bars.json`."""
    model = StableDiffusion.load(out, str(device))
    judges = {name: load_judge(judges_at(out), name, device) for name in JUDGES}
    report: dict[str, dict[str, list[int]]] = {}
    for guidance in guidances:
        rows: dict[str, list[int]] = {}
        for family, names in JUDGED_BY.items():
            texts, expected = prompts(family, settings.samples)
            images = draw(model, texts, guidance=guidance).cpu().numpy()
            for name in names:
                answers, _ = name_images(judges[name], LABELS[name], images, str(device))
                hits = sum(answer == LABELS[name][k] for answer, k in zip(answers, expected, strict=True))
                rows[f"{family} by {name}"] = [hits, len(texts)]
        report[str(guidance)] = rows
        print(f"guidance {guidance}", json.dumps({k: f"{a / b:.3f}" for k, (a, b) in rows.items()}), flush=True)
    (out / "bars.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
