"""Training in float16 beside float32 and diffusers' way, on one GPU: `python -m benchmarks.half_training --out DIR`.

Stable Diffusion v1.4's real configuration with random weights (benchmarks/random_bases.py), which are enough for time,
memory and rounding. Every part is a process of its own, so that one that fails or runs out of memory leaves the others
alone; each row is written to half_training.csv when it is measured.

    numbers     one gradient, of float16, TF32 and bfloat16, against IEEE float32; the losses of a few steps
    lora        steps a second of LoRA with batch 4          full       samples a second of full fine-tuning, batch 32
    esd         the whole of ESD with ten concepts           methods    seconds an update of every other method
    attention   kernels of attention and their gradients     profile    kernels of one step, by their time

`--parts numbers,lora,full` takes about two and a half minutes on an H200, the others about four.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_bases import random_base
from benchmarks.sd_path import device, versions
from benchmarks.sd_size import CONCEPTS, PRESERVED, noise, pictures, step

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion

COLUMNS = (
    "part",
    "what",
    "arithmetic",
    "value",
    "unit",
    "peak GiB",
    "of the allocator",
    "device",
    "versions",
    "commit",
)
SECONDS = {"numbers": 120, "lora": 120, "full": 120, "esd": 150, "methods": 240, "attention": 60, "profile": 90}
"""Most seconds of a part."""
METHODS = ("salun", "erasediff", "shs", "sdd", "mace")
UPDATES, SKIPPED = 10, 4
"""Updates made of a method, and how many of them, the first, are left out of the pace."""
GIB = 2**30


class Report:
    """Appends rows to the csv, each flushed."""

    def __init__(self, out: Path, part: str, commit: str) -> None:
        """`part` is the first column."""
        self.path, self._part, self._commit = out / "half_training.csv", part, commit

    def row(self, what: str, arithmetic: str, value: float | str, unit: str, *, memory: bool = False) -> None:
        """One measurement; `memory`: with the most that was used since `fresh`."""
        import torch

        peak = ["", ""]
        if memory:
            most = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
            peak = [f"{bytes_ / GIB:.2f}" for bytes_ in most]
        text = f"{value:.5g}" if isinstance(value, float) else value
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            if new:
                rows.writerow(COLUMNS)
            rows.writerow([self._part, what, arithmetic, text, unit, *peak, device("cuda"), versions(), self._commit])
        print(f"{self._part:9} {what:44} {arithmetic:24} {text} {unit}  {' / '.join(peak)}", flush=True)

    @contextlib.contextmanager
    def caught(self, what: str) -> Iterator[None]:
        """An error becomes a row, and the part goes on."""
        try:
            yield
        except Exception as problem:
            traceback.print_exc()
            self.row(what, "", f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}", "error")


def fresh() -> None:
    """Forget what earlier measurements used."""
    import gc

    import torch

    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def base(*, shaken: bool = False) -> StableDiffusion:
    """The random base; `shaken`: with biases and norms that are not 0 and 1."""
    import torch

    model = random_base("sd14", "cuda")
    if shaken:
        generator = torch.Generator("cuda").manual_seed(0)
        with torch.no_grad():
            for value in model.unet.parameters():
                if value.ndim == 1:
                    value.add_(0.05 * torch.randn(value.shape, generator=generator, device="cuda"))
    return model


@contextlib.contextmanager
def float32(model: StableDiffusion) -> Iterator[None]:
    """Training in float32 as the bench does it."""
    from resurgence_harness.diffusion.training import fast_products

    with fast_products(model):
        yield


@contextlib.contextmanager
def ieee() -> Iterator[None]:
    """Float32 without TF32, convolutions included."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Float32 with TF32 in every product, as `torch.backends.cuda.matmul.allow_tf32 = True` of people's scripts."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Inputs:
    """A batch of noise, timesteps and text states, always the same."""

    def __init__(self, batch: int) -> None:
        """`batch` images of 512 pixels."""
        import torch

        generator = torch.Generator("cpu").manual_seed(1)
        self.x = torch.randn(batch, 4, 64, 64, generator=generator).cuda()
        self.t = torch.randint(1000, (batch,), generator=generator).cuda()
        self.c = torch.randn(batch, 77, 768, generator=generator).cuda()
        self.aim = torch.randn(batch, 4, 64, 64, generator=generator).cuda()

    def loss(self, model: StableDiffusion) -> Tensor:
        """The denoising loss."""
        from resurgence_harness.diffusion import moves

        loss: Tensor = ((moves.predict(model, self.x, self.t, self.c) - self.aim) ** 2).mean()
        return loss


def gradient(model: StableDiffusion, inputs: Inputs) -> list[Tensor]:
    """Of the parameters that need one."""
    import torch

    trained = [p for p in model.unet.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = None
    inputs.loss(model).backward()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in trained]


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all tensors."""
    apart = sum(float(((a - b).double() ** 2).sum()) for a, b in zip(ours, theirs, strict=True))
    return (apart / sum(float((b.double() ** 2).sum()) for b in theirs)) ** 0.5


def part_numbers(report: Report) -> None:
    """Gradients and losses."""
    import torch

    from resurgence_harness.diffusion.half.training import half_training
    from resurgence_harness.diffusion.training import fast_products

    given, inputs = base(shaken=True), Inputs(2)
    model = given.copy()
    model.unet.requires_grad_(True)
    with ieee():
        exact = gradient(model, inputs)
    with report.caught("gradient, float16"), half_training("cuda") as training:
        report.row("gradient against IEEE", "float16, eager", distance(gradient(model, inputs), exact), "relative")
        found = gradient(model, inputs)
        report.row("gradient against IEEE", "float16, captured", distance(found, exact), "relative")
        report.row("gradient against IEEE", "float16, replayed", distance(gradient(model, inputs), exact), "relative")
        worst = max((distance([a], [b]), n) for a, b, n in zip(found, exact, names(model), strict=True))
        report.row("tensor furthest away", worst[1], worst[0], "relative")
        report.row(
            "computed by", "float16", ", ".join(training.ways), f"gradients beyond float16: {training.found.item():.0f}"
        )
    with report.caught("gradient, TF32"), tf32():
        report.row("gradient against IEEE", "TF32", distance(gradient(model, inputs), exact), "relative")
    with report.caught("gradient, the project's"), fast_products(model):
        report.row(
            "gradient against IEEE", "this project's float32", distance(gradient(model, inputs), exact), "relative"
        )
    with report.caught("gradient, bfloat16"), torch.autocast("cuda", torch.bfloat16):
        report.row("gradient against IEEE", "bfloat16 autocast", distance(gradient(model, inputs), exact), "relative")
    with report.caught("gradient, plain"), plain(), half_training("cuda") as training:
        found = gradient(model, inputs)
        report.row("gradient against IEEE", "float16, " + ", ".join(training.ways), distance(found, exact), "relative")
    del exact, found, model
    losses = {}
    for arithmetic in ("float32", "float16"):
        with report.caught(f"losses, {arithmetic}"):
            _, told = finetuned(given, "lora", arithmetic, batch=4, steps=20)
            losses[arithmetic] = told
    if len(losses) == 2:
        apart = [abs(a - b) / a for a, b in zip(losses["float32"], losses["float16"], strict=True)]
        report.row("losses of 20 steps of LoRA, largest difference", "float16", max(apart), "relative")


def names(model: StableDiffusion) -> list[str]:
    """Of the parameters that need a gradient."""
    return [name for name, p in model.unet.named_parameters() if p.requires_grad]


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """As where Triton is missing."""
    from resurgence_harness.diffusion.half import training

    before = training._kernels_run
    training._kernels_run = lambda _: False
    try:
        yield
    finally:
        training._kernels_run = before


class Ticks:
    """When each step was reported."""

    def __init__(self) -> None:
        """None so far."""
        self.at: list[float] = []
        self.losses: list[float] = []

    def __call__(self, done: int, total: int, loss: float | None) -> None:
        """Now."""
        self.at.append(time.perf_counter())
        self.losses.append(loss or 0.0)

    def pace(self, skipped: int) -> float:
        """Seconds of a step after the first ones."""
        return (self.at[-1] - self.at[skipped - 1]) / (len(self.at) - skipped)


def run(model: StableDiffusion, ticks: Ticks) -> Any:
    """A run with images of noise."""
    from resurgence_harness.diffusion.run import Run

    return Run(
        base=model, base_digest="sd14", parent_digest="sd14", device="cuda", images=noise, parent_images=noise,
        progress=ticks,
    )  # fmt: skip


def finetuned(
    model: StableDiffusion, word: str, arithmetic: Any, *, batch: int, steps: int
) -> tuple[Ticks, list[float]]:
    """A fine-tuning by the project's own code."""
    from resurgence_harness.finetuning import BenignSet, Full, LoRA

    kind: Any = {"lora": LoRA, "full": Full}[word]
    ticks = Ticks()
    tuning = kind(data=BenignSet(probe=pictures(CONCEPTS, 2)), batch=batch, steps=steps, arithmetic=arithmetic)
    with float32(model):
        tuning.apply(model, run(model, ticks))
    return ticks, ticks.losses


def diffusers_style(model: StableDiffusion, word: str, *, batch: int, steps: int, kind: torch.dtype | None) -> float:
    """Seconds of a step as in diffusers' scripts: eager, AdamW, clipped; float32 with TF32, or autocast."""
    import torch

    from resurgence_harness.finetuning.lora import add_adapter

    changed, inputs = model.copy(), Inputs(batch)
    if word == "lora":
        add_adapter(changed, rank=4, seed=0)
    else:
        changed.unet.requires_grad_(True)
    trained = [p for p in changed.unet.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-6)
    scope = contextlib.nullcontext() if kind is None else torch.autocast("cuda", kind)
    began = 0.0
    with tf32():
        for place in range(steps + 2):
            if place == 2:
                torch.cuda.synchronize()
                began = time.perf_counter()
            with scope:
                predicted = changed.unet(inputs.x, inputs.t, encoder_hidden_states=inputs.c, return_dict=False)[0]
                loss = ((predicted.float() - inputs.aim) ** 2).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            adam.step()
            adam.zero_grad(set_to_none=True)
            loss.item()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def tuning(report: Report, word: str, *, batch: int, steps: int, samples: bool) -> None:
    """Every way of one fine-tuning."""
    import torch

    model = base()

    def told(arithmetic: str, seconds: float) -> None:
        unit = "samples/s" if samples else "steps/s"
        report.row(f"{word}, batch {batch}", arithmetic, (batch if samples else 1) / seconds, unit, memory=True)

    for arithmetic in ("float16", "float32"):
        fresh()
        with report.caught(f"{word}, {arithmetic}"):
            many = 3 * steps if arithmetic == "float16" else steps
            ticks, _ = finetuned(model, word, arithmetic, batch=batch, steps=many + 4)
            told("this project's float16" if arithmetic == "float16" else "this project's float32", ticks.pace(4))
    fresh()
    with report.caught(f"{word}, plain"), plain():
        ticks, _ = finetuned(model, word, "float16", batch=batch, steps=steps // 2 + 4)
        told("float16, plain modules", ticks.pace(4))
    for name, kind in (("diffusers' way, TF32", None), ("diffusers' way, bfloat16 autocast", torch.bfloat16)):
        fresh()
        with report.caught(f"{word}, {name}"):
            told(name, diffusers_style(model, word, batch=batch, steps=max(3, steps // 3), kind=kind))


def part_lora(report: Report) -> None:
    """Steps a second of LoRA with batch 4."""
    tuning(report, "lora", batch=4, steps=40, samples=False)


def part_full(report: Report) -> None:
    """Samples a second of full fine-tuning with batch 32."""
    tuning(report, "full", batch=32, steps=9, samples=True)


def part_esd(report: Report) -> None:
    """The whole of ESD."""
    import torch

    model = base()
    whole = step("esd", [])
    for arithmetic in ("float16", "float32"):
        fresh()
        with report.caught(f"ESD, {arithmetic}"):
            ticks = Ticks()
            began = time.perf_counter()
            with float32(model):
                replace(whole, arithmetic=arithmetic).apply(model, run(model, ticks))
            torch.cuda.synchronize()
            took = time.perf_counter() - began
            report.row("ESD, ten concepts, whole", arithmetic, took, "s", memory=True)
            report.row("ESD, before the second update", arithmetic, ticks.at[0] - began, "s")
            report.row("ESD, an update", arithmetic, 1000 * ticks.pace(SKIPPED), "ms")


def part_methods(report: Report) -> None:
    """Seconds an update, from a few of them."""
    model = base()
    for word in METHODS:
        whole = step(word, [])
        few = UPDATES
        shorter: dict[str, Any] = {"iterations": few}
        shorter |= {"iterations_per_concept": 0} if hasattr(whole, "iterations_per_concept") else {}
        if word == "mace":  # each of the concepts that are trained together
            shorter = {"iterations": 3 * few, "concepts": whole.concepts[:2]}
            shorter |= {"forget": pictures(CONCEPTS[:2], 8)}
        elif hasattr(whole, "forget"):  # the pace does not depend on how many pictures there are
            shorter |= {"forget": pictures(CONCEPTS, 2), "retain": pictures(PRESERVED[:10], 2)}
        if word == "shs":
            shorter |= {"trim_batches": 2}
        if word == "sdd":
            shorter |= {"trajectory_steps": 5}
        paces = {}
        for arithmetic in ("float16", "float32"):
            fresh()
            with report.caught(f"{word}, {arithmetic}"):
                ticks = Ticks()
                with float32(model):
                    replace(whole, **shorter, arithmetic=arithmetic).apply(model, run(model, ticks))
                paces[arithmetic] = ticks.pace(SKIPPED)
                report.row(f"{word}, an update", arithmetic, 1000 * paces[arithmetic], "ms", memory=True)
        if len(paces) == 2:
            report.row(f"{word}, float16 / float32", "", paces["float16"] / paces["float32"], "ratio")


def part_attention(report: Report) -> None:
    """Attention with its gradients at the shapes of SD's U-Net, in three kernels."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    kernels = {
        "flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION, "default": None,
    }  # fmt: skip
    for n in (4, 16):
        for places, width, keys in (
            (4096, 40, 4096),
            (4096, 40, 77),
            (1024, 80, 1024),
            (1024, 80, 77),
            (256, 160, 256),
        ):
            for name, kernel in kernels.items():
                with report.caught(f"attention, {name}"):
                    sizes = (places, keys, keys)
                    parts = [
                        torch.randn(n, size, 8, width, device="cuda", dtype=torch.float16, requires_grad=True)
                        for size in sizes
                    ]
                    back = torch.randn(n, 8, places, width, device="cuda", dtype=torch.float16)

                    def once(parts: list[Tensor] = parts, back: Tensor = back) -> None:
                        q, k, v = (part.transpose(1, 2) for part in parts)
                        torch.autograd.grad(scaled_dot_product_attention(q, k, v), parts, back)

                    with sdpa_kernel(kernel) if kernel is not None else contextlib.nullcontext():
                        for _ in range(3):
                            once()
                        torch.cuda.synchronize()
                        began = time.perf_counter()
                        for _ in range(10):
                            once()
                        torch.cuda.synchronize()
                    seconds = (time.perf_counter() - began) / 10
                    report.row(f"attention {n} × 8 × {places} × {keys} × {width}", name, 1e3 * seconds, "ms")


def part_profile(report: Report) -> None:
    """Kernels by their time: a step of LoRA with batch 4, and a pass of full fine-tuning with 16 rows."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from resurgence_harness.diffusion.half.training import half_training
    from resurgence_harness.finetuning.lora import add_adapter

    for word, batch in (("lora", 4), ("full", 16)):
        fresh()
        with report.caught(f"profile, {word}"):
            model, inputs = base().copy(), Inputs(batch)
            if word == "lora":
                add_adapter(model, rank=4, seed=0)
            else:
                model.unet.requires_grad_(True)
            trained = [p for p in model.unet.parameters() if p.requires_grad]
            adam = torch.optim.AdamW(trained, lr=1e-6, fused=True)

            def once(trained: list[Any] = trained, adam: Any = adam, inputs: Any = inputs, model: Any = model) -> None:
                adam.zero_grad(set_to_none=True)
                inputs.loss(model).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                adam.step()

            with half_training("cuda"):
                for _ in range(4):
                    once()
                torch.cuda.synchronize()
                began = time.perf_counter()
                for _ in range(5):
                    once()
                ahead = time.perf_counter() - began
                torch.cuda.synchronize()
                report.row(
                    f"{word}, batch {batch}: a step", "float16", 200 * (time.perf_counter() - began), "ms", memory=True
                )
                report.row(f"{word}, batch {batch}: Python's part of it", "float16", 200 * ahead, "ms")
                with profile(activities=[ProfilerActivity.CUDA]) as seen:
                    for _ in range(3):
                        once()
                    torch.cuda.synchronize()
            rows = sorted(seen.key_averages(), key=lambda one: -one.self_device_time_total)
            total = sum(one.self_device_time_total for one in rows)
            report.row(f"{word}, batch {batch}: all kernels", "float16", total / 3e3, "ms")
            for one in rows[:28]:
                share = one.self_device_time_total
                report.row(f"{word}: {one.key[:110]}", f"{one.count / 3:.0f} calls", share / 3e3, "ms")


PARTS: dict[str, Callable[[Report], None]] = {
    name.removeprefix("part_"): value for name, value in list(globals().items()) if name.startswith("part_")
}


def main() -> None:
    """Every part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of half_training.csv")
    parser.add_argument("--commit", default="", help="for the table")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"among {', '.join(PARTS)}; all by default")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only:
        report = Report(args.out, args.only, args.commit)
        with report.caught(args.only):
            PARTS[args.only](report)
        return
    for name in args.parts.split(","):
        command = [sys.executable, "-m", "benchmarks.half_training", "--out", str(args.out), "--commit", args.commit]
        began = time.perf_counter()
        try:
            subprocess.run([*command, "--only", name], check=False, timeout=SECONDS[name])
        except subprocess.TimeoutExpired:
            print(f"{name} was stopped after {SECONDS[name]} s", flush=True)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
