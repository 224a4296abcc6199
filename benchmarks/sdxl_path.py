"""Stable Diffusion XL at its size, with random weights, on one GPU of 141 GB. Needs no network.

    python -m benchmarks.sdxl_path speed --out sdxl_speed.csv                             images per second
    python -m benchmarks.sdxl_path paths --out sdxl_paths.csv --work DIR --minutes 6      the celebrity path

**speed**: 1024 × 1024 pixels with guidance, the same prompts, noise and steps: this package's float16
(`sampling.sample`, from prompts to uint8 pixels) and diffusers' own StableDiffusionXLPipeline in float16, with its VAE
in float32 as it does by itself (force_upcast) and with the fixed VAE (force_upcast = false). Each measurement is a row;
rows that are there are skipped, so a run that was stopped goes on. The last lines are the ratios.

**paths**: `benchmarks.sd_paths` with `--base sdxl`: ESD and UCE, LoRA and full, through the real command line, 30
sampler steps, few images (`sd_path_judge.FEW`), 20 updates of each training. Memory and seconds of each stage are in
the csv. `--work` keeps the base and what was made between commands; repeat the command until it does not end with 11.

Random weights show that the paths run, what they cost, and how fast images are drawn; nothing about models.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import sd_paths
from benchmarks.random_bases import random_xl
from benchmarks.sd_path import device, versions
from benchmarks.sd_path_judge import FEW

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion

COLUMNS = ("way", "vae", "pixels", "steps", "batch", "images", "seconds", "images/s", "peak GiB", "device", "versions")
OURS, THEIRS = "this package, float16", "diffusers' pipeline, float16"
VAES = {"float32 (force_upcast)": True, "float16 (fixed VAE)": False}
"""Where the decoder computes, and what vae/config.json says then."""
MLPERF = 2.37
"""Images per second of MLPerf Inference's SDXL on this card at 20 steps in 8 bits, which this does not compute in."""


class Case(NamedTuple):
    """One measurement."""

    way: str
    vae: str
    steps: int
    batch: int


def cases(steps: Sequence[int], batches: Sequence[int]) -> Iterator[Case]:
    """Every measurement, diffusers' beside ours."""
    for batch in batches:
        for count in steps:
            for vae in VAES:
                for way in (THEIRS, OURS):
                    yield Case(way, vae, count, batch)


def timed(draw: Callable[[], Any], *, images: int, wanted: float, on: str) -> tuple[int, float, float]:
    """(images, seconds, GiB at most) of calls that each draw `images`, after one that is not timed."""
    import torch

    cuda = on.startswith("cuda")
    draw()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began, made = time.perf_counter(), 0
    while made == 0 or time.perf_counter() - began < wanted:
        draw()
        made += images
        if cuda:
            torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return made, seconds, torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0


def ours(model: StableDiffusion, case: Case, side: int) -> Callable[[], Any]:
    """A batch by `sampling.sample`, whose float16 weights are kept between calls as the bench keeps them."""
    from resurgence_harness.diffusion.half.drawing import Halves
    from resurgence_harness.sampling import sample
    from resurgence_harness.specs import Probe, Prompt, Sampler

    sampler = Sampler(steps=case.steps, guidance=5.0, height=side, width=side, batch=case.batch, arithmetic="float16")
    texts = [f"a photo of a house, view {place}" for place in range(case.batch)]
    probe = Probe(prompts=tuple(Prompt(text=text, concept="house") for text in texts), seeds=(1,), sampler=sampler)
    halves = Halves()
    return lambda: sample(model, probe, halves=halves)


def theirs(model: StableDiffusion, case: Case, side: int) -> Callable[[], Any]:
    """A batch by diffusers' pipeline, from prompts to uint8 pixels, its parts in float16."""
    import torch

    pipeline = model.pipeline().to(torch.float16)
    pipeline.set_progress_bar_config(disable=True)
    texts = [f"a photo of a house, view {place}" for place in range(case.batch)]

    def draw() -> Any:
        return pipeline(
            texts, num_inference_steps=case.steps, guidance_scale=5.0, height=side, width=side, output_type="pil"
        ).images

    return draw


def speed(args: argparse.Namespace) -> int:
    """Measure what has no row yet; 11 if the time was up before, else 0."""
    import torch

    until, to = time.monotonic() + 60 * args.minutes, args.out
    rows: list[dict[str, str]] = []
    if to.is_file() and to.stat().st_size:
        with to.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    known = {(one["way"], one["vae"], one["steps"], one["batch"]) for one in rows}
    owed = [one for one in cases(args.steps, args.batch) if (*one[:2], str(one.steps), str(one.batch)) not in known]
    new = not rows
    with to.open("a", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            out.writeheader()
        for number, case in enumerate(owed):
            if time.monotonic() >= until:
                print(f"The time is up: {len(owed) - number} measurements are left.", flush=True)
                return 11
            model = random_xl(args.device, tiny=args.tiny)
            model.vae.register_to_config(force_upcast=VAES[case.vae])
            side = 64 if args.tiny else model.sample_size
            with torch.inference_mode():
                draw = (ours if case.way == OURS else theirs)(model, case, side)
                made, seconds, peak = timed(draw, images=case.batch, wanted=args.seconds, on=args.device)
            row = {**case._asdict(), "pixels": side, "images": made, "seconds": f"{seconds:.2f}"}
            row |= {"images/s": f"{made / seconds:.3f}", "peak GiB": f"{peak:.1f}"}
            row |= {"device": device(args.device), "versions": versions()}
            out.writerow(row)
            file.flush()
            rows.append({name: str(value) for name, value in row.items()})
            print(*(f"{name} {row[name]}" for name in COLUMNS[:9]), sep="  ", flush=True)
            del draw, model
            if args.device.startswith("cuda"):
                torch.cuda.empty_cache()
    for line in ratios(rows):
        print(line)
    return 0


def ratios(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """How much faster this package is than diffusers, and how near to MLPerf's figure."""
    rates = {(one["way"], one["vae"], one["steps"], one["batch"]): float(one["images/s"]) for one in rows}
    for (way, vae, steps, batch), rate in rates.items():
        other = rates.get((THEIRS, vae, steps, batch))
        if way == OURS and other:
            near = f"; {rate / MLPERF:.0%} of MLPerf's {MLPERF} in 8 bits" if steps == "20" else ""
            yield f"batch {batch}, {steps} steps, VAE {vae}: {rate / other:.2f} times diffusers' {other}{near}"


def paths(args: argparse.Namespace) -> int:
    """The celebrity path; exit codes of `benchmarks.sd_paths`."""
    os.environ[FEW] = "1"
    options = ["--out", str(args.out), "--base", "sdxl", "--task", "celebrity", "--method", args.method]
    options += ["--finetuning", args.finetuning, "--minutes", str(args.minutes), "--updates", str(args.updates)]
    options += ["--sampler-steps", str(args.sampler_steps), "--most-memory", str(args.most_memory)]
    options += ["--device", args.device, "--half", *(["--tiny"] if args.tiny else [])]
    options += ["--work", str(args.work)] if args.work else []
    own = ["benign.names=4", "benign.seeds=2", *args.set]
    return sd_paths.main([*options, *(word for change in own for word in ("--set", change))])


def main(argv: Sequence[str] | None = None) -> int:
    """One of the two; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    fast, whole = kinds.add_parser("speed"), kinds.add_parser("paths")
    for one in (fast, whole):
        one.add_argument("--out", type=Path, required=True, help="the csv; rows that are there are skipped")
        one.add_argument("--device", default="cuda")
        one.add_argument("--tiny", action="store_true", help="very small models: the same code on a CPU")
        one.add_argument("--minutes", type=float, default=6.0, help="begin nothing after so many (default 6)")
    fast.add_argument("--steps", type=int, nargs="+", default=[20, 30])
    fast.add_argument("--batch", type=int, nargs="+", default=[8])
    fast.add_argument("--seconds", type=float, default=15.0, help="of each measurement, at least one batch")
    whole.add_argument("--work", type=Path, help="folder for base and store, kept (default: a temporary one)")
    whole.add_argument("--method", default="uce,esd")
    whole.add_argument("--finetuning", default="lora,full")
    whole.add_argument("--updates", type=int, default=20, help="optimiser steps of each training (default 20)")
    whole.add_argument("--sampler-steps", type=int, default=30, help="of every image (default 30)")
    whole.add_argument("--most-memory", type=float, default=80.0, metavar="GB", help="of the GPU (default 80)")
    whole.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="as the suites take it")
    args = parser.parse_args(argv)
    return speed(args) if args.kind == "speed" else paths(args)


if __name__ == "__main__":
    sys.exit(main())
