"""Float16 beside float32 and diffusers' pipeline, on one GPU: `python -m benchmarks.half --out DIR --commit HASH`.

Stable Diffusion's real configurations with random weights (benchmarks/random_bases.py), which are enough for time,
memory and rounding: 512 px (v2.1: 768), 50 DDIM steps, guidance 7.5, decoding included. Every part is a process of its
own, so that one that fails or runs out of memory leaves the others alone; each row is written when it is measured.

    --parts kernels,forward,first,speed,pipeline,float32,v21,profile      in this order; all by default
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion

PARTS: dict[str, Callable[[Report], None]] = {}
SECONDS = {"speed": 180, "first": 150}
"""Most seconds of a part; 100 where nothing is said."""
COLUMNS = ("part", "what", "median", "lowest", "highest", "repeats", "unit", "device", "versions", "commit", "at")


class Report:
    """Appends rows to a CSV, each flushed."""

    def __init__(self, out: Path, part: str, commit: str) -> None:
        self.out, self._part, self._commit = out, part, commit

    def row(self, what: str, values: list[float] | float | str, unit: str) -> None:
        """One measurement."""
        path, many = self.out / "half.csv", values if isinstance(values, list) else [values]
        fresh = not path.exists()
        three = (
            [f"{one:.5g}" for one in (median(many), min(many), max(many))]  # type: ignore[type-var]
            if all(isinstance(one, int | float) for one in many)
            else [str(many[0]), "", ""]
        )
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(COLUMNS)
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            writer.writerow([self._part, what, *three, len(many), unit, device(), versions(), self._commit, at])
        print(f"{self._part:9} {what:60} {' '.join(three)} {unit}", flush=True)


def part(function: Callable[[Report], None]) -> Callable[[Report], None]:
    """Register a part by its function's name."""
    PARTS[function.__name__.removeprefix("part_")] = function
    return function


def device() -> str:
    """The GPU's name."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def versions() -> str:
    """Of the libraries that compute."""
    import torch

    names = ("torch", "triton", "diffusers", "transformers")
    return " ".join([*(f"{name} {version(name)}" for name in names), f"CUDA {torch.version.cuda}"])


@contextmanager
def ieee() -> Iterator[None]:
    """Float32 without TF32."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def timed(act: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each of several calls, after the GPU has finished."""
    import torch

    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        act()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return found


def distance(ours: Any, theirs: Any) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def shaken(model: StableDiffusion, seed: int) -> StableDiffusion:
    """Biases and norms that are not 0 and 1, and other weights for every seed."""
    import torch

    generator = torch.Generator(model.device).manual_seed(seed)
    with torch.no_grad():
        for module in (model.unet, model.vae.decoder):
            for value in module.parameters():
                noise = torch.randn(value.shape, generator=generator, device=value.device)
                scale = 0.05 if value.ndim == 1 else 0.1 * float(value.std())
                value.add_(scale * noise)
    return model


def probe(count: int, batch: int, side: int = 512, arithmetic: Any = "float16", steps: int = 50) -> Any:
    """`count` images of one prompt."""
    from resurgence_harness.specs import Probe, Prompt, Sampler

    return Probe(
        prompts=(Prompt(text="a photo of a lighthouse at dawn", concept="a lighthouse"),),
        seeds=tuple(range(count)),
        sampler=Sampler(steps=steps, guidance=7.5, height=side, width=side, batch=batch, arithmetic=arithmetic),
    )


@part
def part_kernels(report: Report) -> None:
    """Every kernel against float32 at SD's shapes."""
    import torch
    from torch.nn import functional

    from resurgence_harness.diffusion.half import kernels, layers

    torch.manual_seed(0)

    def made(*shape: int) -> Any:
        return torch.randn(shape, device="cuda")

    for places, channels in ((4096, 320), (1024, 640), (64, 1280), (65536, 256)):
        x, y, bias = made(4, places, channels).half(), made(4, places, channels).half(), made(channels)
        whole = x.float() + y.float() + bias
        sums = kernels.channel_sums(x, y, bias).sum(1)
        report.row(f"x + y + bias, {channels} channels", distance(x, whole), "relative")
        report.row(f"channel sums, {channels} channels", distance(sums[:, 1], x.float().square().sum(1)), "relative")
        norm = kernels.Normed(made(channels), made(channels), 1e-5, 32)
        got = kernels.group_norm([(x, kernels.channel_sums(x))], norm, silu=True, bias=bias)
        aim = (x.float() + bias).transpose(1, 2)
        aim = functional.silu(functional.group_norm(aim, 32, norm.weight, norm.bias, 1e-5)).transpose(1, 2)
        report.row(f"group norm, {channels} channels", distance(got, aim), "relative")
        rows = x.reshape(-1, channels)
        got = kernels.layer_norm(rows, norm, bias)
        aim = functional.layer_norm(rows.float() + bias, (channels,), norm.weight, norm.bias, 1e-5)
        report.row(f"layer norm, {channels} channels", distance(got, aim), "relative")
    x = made(4096, 2560).half()
    h, gate = x.float().chunk(2, 1)
    report.row("GEGLU", distance(kernels.geglu(x), h * functional.gelu(gate)), "relative")
    weight, image = made(640, 640, 3, 3) / 75, made(2, 640, 32, 32)
    aim = functional.conv2d(functional.interpolate(image, scale_factor=2), weight, padding=1)
    slots = layers.Slots()
    slots.put_upsampling("up", _Conv(weight, torch.zeros(640, device="cuda")))
    grown = slots.upsampling("up", layers.Activation.of(image.half()))
    report.row("upsampling convolution", distance(grown.image, aim), "relative")
    for width, places in ((40, 4096), (64, 9216), (80, 1024), (160, 256)):
        q, k, v = (made(2, places, 8 * width).half() for _ in range(3))
        wide = [one.float().view(2, places, 8, width).transpose(1, 2) for one in (q, k, v)]
        with ieee():
            aim = functional.scaled_dot_product_attention(*wide).transpose(1, 2).reshape(-1, 8 * width)
        report.row(f"attention, head width {width}", distance(layers.attend(q, k, v, 8), aim), "relative")
        finite = bool(torch.isfinite(layers.attend(64.0 * q, 64.0 * k, v, 8)).all())
        report.row(f"attention with scores beyond 65,504 is finite, head width {width}", str(finite), "")


class _Conv:
    def __init__(self, weight: Any, bias: Any) -> None:
        self.weight, self.bias = weight, bias


@part
def part_forward(report: Report) -> None:
    """The whole forward and the decoder against IEEE float32; weights swapped and swapped back."""
    for name, side in (("sd14", 64), ("sd21", 96)):
        _forward(report, name, side)


def _forward(report: Report, name: str, side: int) -> None:
    import torch

    from benchmarks.random_bases import random_base
    from resurgence_harness.diffusion import moves
    from resurgence_harness.diffusion.conditions import Conditions, joined
    from resurgence_harness.diffusion.half.drawing import Halves, way_of

    model = shaken(random_base(name, "cuda"), 1)
    report.row(f"{name}: way", way_of(model), "")
    torch.manual_seed(0)
    x, c = torch.randn(2, 4, side, side, device="cuda"), torch.randn(2, 77, _text_width(model), device="cuda")
    states, empty = Conditions(c), Conditions(torch.randn(1, *c.shape[1:], device="cuda"))
    z = torch.randn(2, 4, side, side, device="cuda")
    both, halves, x_0 = joined([empty.expand(2), states]), Halves(), z * model.vae.config.scaling_factor
    with torch.inference_mode():
        with ieee():
            aim = moves.predict(model, torch.cat([x, x]), 501, both)
            pixels = model.vae.decode(z, return_dict=False)[0]
        half = halves.of(model)
        first = torch.cat(half.predictions(model, states, empty, [501])(x, 501))
        report.row(f"{name}: forward against IEEE float32", distance(first, aim), "relative")
        report.row(
            f"{name}: decoder against IEEE float32",
            distance(half.decode(model, x_0), pixels),
            "relative",
        )
        tf32 = moves.predict(model, torch.cat([x, x]), 501, both)
        report.row(f"{name}: today's float32 against IEEE float32", distance(tf32, aim), "relative")
        plain = Halves("plain").of(model)
        second = torch.cat(plain.predictions(model, states, empty, [501])(x, 501))
        report.row(f"{name}: plain float16 against IEEE float32", distance(second, aim), "relative")
        report.row(
            f"{name}: plain decoder against IEEE float32",
            distance(plain.decode(model, x_0), pixels),
            "relative",
        )
        del plain, second
        if name != "sd14":
            return
        other = shaken(random_base(name, "cuda", seed=5), 2)
        swaps = timed(lambda: halves.of(other), 5)
        report.row("weights swapped", [1e3 * one for one in swaps], "ms")
        second = torch.cat(halves.of(other).predictions(other, states, empty, [501])(x, 501))
        fresh = torch.cat(Halves().of(other).predictions(other, states, empty, [501])(x, 501))
        again = torch.cat(halves.of(model).predictions(model, states, empty, [501])(x, 501))
        report.row("B in A's slots equals a fresh B, bitwise", str(bool(torch.equal(second, fresh))), "")
        report.row("A → B → A, bitwise", str(bool(torch.equal(first, again))), "")
        report.row("B differs from A", str(not bool(torch.equal(first, second))), "")


def _text_width(model: StableDiffusion) -> int:
    return int(model.unet.config.cross_attention_dim)


@part
def part_first(report: Report) -> None:
    """The first image of a process, with an empty and with a filled cache of kernels."""
    with tempfile.TemporaryDirectory() as cache:
        for what in ("cold", "with a kernel cache"):
            command = [sys.executable, "-m", "benchmarks.half", "--out", str(report.out), "--first-image"]
            environment = {**os.environ, "TRITON_CACHE_DIR": cache}
            run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds = float(run.stdout.strip().splitlines()[-1])
            report.row(f"first image, {what}", seconds, "s")


def first_image() -> float:
    """Seconds from a loaded model to one image in its own process."""
    import torch

    from benchmarks.random_bases import random_base
    from resurgence_harness.sampling import sample

    model = random_base("sd14", "cuda")
    torch.cuda.synchronize()
    began = time.perf_counter()
    sample(model, probe(1, 1))
    return time.perf_counter() - began


@part
def part_speed(report: Report) -> None:
    """This project's float16, by batch."""
    from benchmarks.random_bases import random_base

    _speeds(report, random_base("sd14", "cuda"), "this project, float16", ((32, 4), (8, 3), (16, 2), (64, 2)), 512)


def _speeds(
    report: Report, model: StableDiffusion, what: str, sizes: tuple[tuple[int, int], ...], side: int, **own: Any
) -> None:
    import torch

    from resurgence_harness.diffusion.half.drawing import Halves
    from resurgence_harness.sampling import sample

    halves = Halves()
    for batch, repeats in sizes:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        sample(model, probe(batch, batch, side, steps=3, **own), halves=halves)
        found = timed(lambda b=batch: sample(model, probe(b, b, side, **own), halves=halves), repeats)  # type: ignore[misc]
        report.row(f"{what}, batch {batch}", [batch / one for one in found], "images/s")
        report.row(f"{what}, batch {batch}, peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


@part
def part_pipeline(report: Report) -> None:
    """Diffusers' pipeline in float16, as people run it."""
    _pipeline(report, "sd14", 512, ((8, 3), (1, 2)))


def _pipeline(report: Report, name: str, side: int, sizes: tuple[tuple[int, int], ...]) -> None:
    import torch

    from benchmarks.random_bases import random_base

    pipeline = random_base(name, "cuda").pipeline().to(torch.float16)
    pipeline.set_progress_bar_config(disable=True)
    for batch, repeats in sizes:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

        def draw(steps: int = 50, batch: int = batch) -> None:
            pipeline(
                ["a photo of a lighthouse at dawn"] * batch,
                height=side,
                width=side,
                num_inference_steps=steps,
                guidance_scale=7.5,
                output_type="np",
            )

        draw(3)
        found = timed(draw, repeats)
        report.row(f"diffusers, float16, {side} px, batch {batch}", [batch / one for one in found], "images/s")
        memory = torch.cuda.max_memory_allocated() / 2**30
        report.row(f"diffusers, float16, {side} px, batch {batch}, peak memory", memory, "GiB")


@part
def part_float32(report: Report) -> None:
    """This project's float32."""
    from benchmarks.random_bases import random_base

    _speeds(report, random_base("sd14", "cuda"), "this project, float32", ((8, 2),), 512, arithmetic="float32")


@part
def part_v21(report: Report) -> None:
    """Stable Diffusion v2.1 at 768 px, beside diffusers' pipeline."""
    import torch

    from benchmarks.random_bases import random_base

    _speeds(report, random_base("sd21", "cuda"), "this project, v2.1, 768 px, float16", ((8, 2), (16, 2)), 768)
    torch.cuda.empty_cache()
    _pipeline(report, "sd21", 768, ((8, 1),))


@part
def part_profile(report: Report) -> None:
    """Where the time of a step goes, batch 32; every kernel in half_kernels.csv."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.random_bases import random_base
    from resurgence_harness.diffusion.conditions import Conditions
    from resurgence_harness.diffusion.half.drawing import Halves

    model = random_base("sd14", "cuda")
    x = torch.randn(32, 4, 64, 64, device="cuda")
    states = Conditions(torch.randn(32, 77, 768, device="cuda"))
    with torch.inference_mode():
        half = Halves().of(model)
        predict = half.predictions(model, states, states[:1], [501])
        predict(x, 501)
        report.row("step, batch 32", [1e3 * one for one in timed(lambda: predict(x, 501), 10)], "ms")
        decode = timed(lambda: half.decode(model, x), 4)
        report.row("decoding, batch 32", [1e3 * one / 32 for one in decode[1:]], "ms an image")
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            predict(x, 501)
            torch.cuda.synchronize()
    events = sorted(found.key_averages(), key=lambda one: -one.self_device_time_total)
    kinds: dict[str, float] = {}
    with (report.out / "half_kernels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ms", "calls", "kind", "kernel"])
        for event in events:
            kind, spent = _kind(event.key), event.self_device_time_total / 1e3
            kinds[kind] = kinds.get(kind, 0.0) + spent
            writer.writerow([f"{spent:.3f}", event.count, kind, event.key[:160]])
    for kind, spent in sorted(kinds.items(), key=lambda one: -one[1]):
        report.row(f"of a step: {kind}", spent, "ms")


def _kind(kernel: str) -> str:
    name = kernel.lower()
    for kind, marks in {
        "attention": ("fmha", "flash", "sdpa", "attention"),
        "own kernels": ("_channel_sums", "_affine", "_apply", "_layer_norm", "_geglu", "_interleave"),
        "convolutions": ("conv", "fprop", "implicit", "nhwc"),
        "products": ("gemm", "nvjet", "cutlass", "cublas"),
    }.items():
        if any(mark in name for mark in marks):
            return kind
    return "other"


def main() -> None:
    """Run the parts, each in its own process."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder for half.csv and half_kernels.csv")
    options.add_argument("--commit", default="", help="recorded in every row")
    options.add_argument("--parts", default=",".join(PARTS))
    options.add_argument("--one", default="", help=argparse.SUPPRESS)
    options.add_argument("--first-image", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.first_image:
        print(first_image())
        return
    if chosen.one:
        report = Report(chosen.out, chosen.one, chosen.commit)
        try:
            PARTS[chosen.one](report)
        except Exception as problem:
            traceback.print_exc()
            report.row("failed", f"{type(problem).__name__}: {str(problem)[:300]}", "")
            raise SystemExit(1) from None
        return
    began = time.perf_counter()
    for name in chosen.parts.split(","):
        command = [sys.executable, "-m", "benchmarks.half", "--out", str(chosen.out), "--commit", chosen.commit]
        try:
            subprocess.run([*command, "--one", name], timeout=SECONDS.get(name, 100), check=False)
        except subprocess.TimeoutExpired:
            Report(chosen.out, name, chosen.commit).row("failed", "out of time", "")
        print(f"{name}: {time.perf_counter() - began:.0f} s since the start", flush=True)


if __name__ == "__main__":
    main()
