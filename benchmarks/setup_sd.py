"""`resurgence setup` at the size of Stable Diffusion v1.4, as far as random weights go: the minutes of each stage.

    python -m benchmarks.setup_sd --device cuda --minutes 9

    base and CLIP (random weights, real configurations) ─▶ setup: fetch, draw, stop before the labels
    ─▶ labels ─▶ setup again: count, check, one cell ─▶ UNDECIDED

Everything goes through the real command line, twice, as a person without a terminal would run it. No network is used.

*What it shows:* that the path runs end to end at this size, and what each stage costs. *What it cannot show:* anything
about models or people. The labels are the judge's own answers, which no person would give, and the base draws noise: so
the positive control fails, and any exit code of the second run but 10 ends this script with an error.
*CLIP's text projection* is fitted to a few images of the base, so that a judge of random weights has different answers
for different pictures; else it could not have canaries.
*Reduced:* pictures, sampler steps, benign images and optimiser steps; the options set them, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.random_bases import write_base
from resurgence_harness.judging import Clip, ClipAccuracy, Weights
from resurgence_harness.judging.clip_accuracy import VIT_B_32
from resurgence_harness.tasks import PUBLISHED
from resurgence_harness.tasks.microworld import OBJECTS

TEMPLATE = "a photo of the {}"


def main() -> None:
    """Run the stages and print their minutes as a table and as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="a stage that is not done by then is killed")
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--steps", type=int, default=10, help="sampler steps; the preset has 50")
    parser.add_argument("--updates", type=int, default=50, help="optimiser steps of the LoRA; the preset has 1,000")
    parser.add_argument("--tiny", action="store_true", help="very small layers, for a CPU")
    asked = parser.parse_args()
    begun = time.monotonic()
    rows: list[tuple[str, float, str]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        step(rows, "write a random base", lambda: write_base(folder / "base", device=asked.device, tiny=asked.tiny))
        step(rows, "fit a random CLIP", lambda: fitted_clip(folder, device=asked.device, tiny=asked.tiny))
        command = [
            *(sys.executable, "-m", "resurgence_harness.cli", "setup", "--base", str(folder / "base")),
            *("--task", "object", "--pictures", str(asked.pictures), "--calibrate", "--by", "labeller"),
            *("--no-browser", "--device", asked.device, "--store", str(folder / "store"), "--out", str(folder / "out")),
        ]
        changes = [f"sampler.steps={asked.steps}", f"lora.steps={asked.updates}", "benign.names=4", "benign.seeds=5"]
        if asked.tiny:
            changes += ["sampler.height=192", "sampler.width=192"]
        command += [word for change in changes for word in ("--set", change)]

        def setup(name: str, expected: int) -> None:
            left = 60 * asked.minutes - (time.monotonic() - begun)
            env = {**os.environ, "RESURGENCE_WEIGHTS": str(folder / "weights"), "HF_HUB_OFFLINE": "1"}
            start = time.monotonic()
            try:
                ran = subprocess.run(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=max(left, 1)
                )
            except subprocess.TimeoutExpired as late:
                output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
                rows.append((name, time.monotonic() - start, f"not done in {asked.minutes:g} minutes"))
                show(rows, asked)
                raise SystemExit(f"{output}\nThe time was up.") from None
            print(ran.stdout)
            last = next((line for line in ran.stdout.splitlines() if line.startswith("Time: ")), "")
            rows.append((name, time.monotonic() - start, f"exit code {ran.returncode}. {last}"))
            if ran.returncode != expected:
                show(rows, asked)
                raise SystemExit(f"{name} ended with {ran.returncode}, expected {expected}.")

        setup("setup, until labels are needed", 4)
        step(rows, "label every picture by the judge's own answer", lambda: label(folder, asked.device))
        setup("setup again: count, check, judge one cell", 10)
    show(rows, asked)


def step(rows: list[tuple[str, float, str]], name: str, run: Any) -> None:
    """Run a part and add its seconds."""
    start = time.monotonic()
    found = run()
    rows.append((name, time.monotonic() - start, "" if found is None else str(found)))
    print(f"{name}: {rows[-1][1]:.1f} s", flush=True)


def show(rows: list[tuple[str, float, str]], asked: argparse.Namespace) -> None:
    """The minutes of each stage, as lines and as one line of JSON."""
    import torch

    on = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "CPU"
    print(f"\n{on}, torch {torch.__version__}; {asked.pictures} pictures, {asked.steps} sampler steps")
    for name, seconds, about in rows:
        print(f"{seconds / 60:6.2f} min  {name}  {about}")
    print(
        json.dumps({"device": on, "options": vars(asked), "minutes": {one[0]: round(one[1] / 60, 3) for one in rows}})
    )


def fitted_clip(folder: Path, *, device: str, tiny: bool) -> str:
    """Write CLIP ViT-B/32 of random weights whose answers differ between images of the base; returns what they are."""
    import numpy as np
    import open_clip
    import torch
    from safetensors.torch import save_file

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.sampling import sample
    from resurgence_harness.specs import Probe, Prompt, Sampler

    side = 192 if tiny else 512
    model = StableDiffusion.load(str(folder / "base"), device=device)
    probe = Probe(
        prompts=(Prompt(text="a photo", concept="a photo"),),
        seeds=tuple(range(9_000_001, 9_000_021)),
        sampler=Sampler(steps=2, guidance=7.5, height=side, width=side, batch=5),
    )
    images = sample(model, probe)
    del model
    torch.manual_seed(0)
    clip = open_clip.create_model(VIT_B_32.architecture, pretrained=None).eval()
    (folder / "weights").mkdir()
    file = folder / "weights" / VIT_B_32.weights.file

    def save() -> None:
        save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, file)

    save()
    own = Clip(architecture=VIT_B_32.architecture, weights=Weights(file=file.name, path=str(file)))
    features = own.image_features(images, device).float().cpu()
    answered = choices()
    away = -features.mean(0)  # never the nearest: a name outside the choices would be a false alarm
    directions = torch.stack([features[answered.index(name)] + away if name in answered else away for name in OBJECTS])
    tokens = open_clip.get_tokenizer(VIT_B_32.architecture)([TEMPLATE.format(name) for name in OBJECTS])
    with torch.no_grad():
        clip.text_projection.copy_(torch.eye(clip.text_projection.shape[0]))
        hidden = clip.encode_text(tokens)
        clip.text_projection.copy_(torch.linalg.lstsq(hidden, directions, driver="gelsd").solution)
    save()
    judge = ClipAccuracy(labels=tuple(OBJECTS), clip=own)
    found = set(judge.answer(images, device)[0])
    if len(found) < 2 or found - set(answered):
        raise SystemExit(f"The fitted CLIP answers {sorted(found)}; two or more of {answered} are needed.")
    return f"{np.unique(images.reshape(len(images), -1).mean(1)).size} different images, {len(found)} answers"


def choices() -> list[str]:
    """The names that the labeller chooses among; as `calibration.choices_of` takes them."""
    task = PUBLISHED["object"]
    return [one.name for one in (*task.erasable[:3], *task.held_out[:3])]


def label(folder: Path, device: str) -> str:
    """Give every drawn picture the judge's own answer as its label; returns how many labels are different."""
    from resurgence_harness.labelling import NONE, LabelFile, PictureSet

    os.environ["RESURGENCE_WEIGHTS"] = str(folder / "weights")
    from resurgence_harness.judging import judge_by_name

    pictures = PictureSet.read(folder / "out" / "calibration-clip-accuracy")
    answers, _ = judge_by_name("clip-accuracy").answer(pictures.images(), device)
    file = LabelFile.open(pictures, "labeller")
    for one, answer in zip(pictures.pictures, answers, strict=True):
        file.add(one.sha256, answer if answer in pictures.choices else NONE)
    return f"{len(set(answers))} different answers"


if __name__ == "__main__":
    main()
