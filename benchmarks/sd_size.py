"""What the seven methods cost at the size of Stable Diffusion v1.4: `python -m benchmarks.sd_size --to sd_size.csv`.

The real configuration (860 million parameters, 512 px, the CLIP vocabulary that open_clip ships) with random weights,
which is enough for timing. Ten concepts, the values of the preset "sd". Of a long training `--steps` steps are made and
the rest is reckoned from their pace; the table says how many. Images and trajectories that methods share are timed by
themselves: the images are noise here, drawing one is timed once. Forwards are rows of the U-Net's forward passes, a row
whose gradient is taken counting three; those for shared sets, and for the method's own mask or trim, are among them.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.random_bases import random_base
from resurgence_harness.diffusion.model import StableDiffusion
from resurgence_harness.diffusion.run import Run
from resurgence_harness.diffusion.training import fast_products
from resurgence_harness.presets import METHODS, parse_change, settings_for
from resurgence_harness.presets.values import FILLED_IN
from resurgence_harness.sampling import sample
from resurgence_harness.specs import Concept, Probe, Prompt, Sampler
from resurgence_harness.tasks import CELEBRITY

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WORDS = ("uce", "esd", "sdd", "mace", "salun", "shs", "erasediff")
CONCEPTS, PRESERVED = CELEBRITY.erasable[:10], CELEBRITY.preserve
COLUMNS = (
    *("method", "updates", "updates made", "seconds", "of that before the first update", "seconds an update"),
    *("thousand forwards", "shared sets", "peak GB", "device"),
)


class Cost(NamedTuple):
    """What one method took."""

    updates: int
    made: int
    seconds: float
    """Of the whole, reckoned where not all updates were made; shared sets left out."""
    before: float
    update: float
    forwards: float
    """Rows of forward passes in thousands, reckoned likewise."""
    shared: dict[str, float]
    """Seconds by kind of shared set."""
    memory: float
    """Peak of the GPU's memory in GB of 10⁹ bytes."""


def pictures(concepts: tuple[Concept, ...], each: int) -> Probe:
    """`each` images of every concept."""
    prompts = tuple(
        Prompt(text=CELEBRITY.templates[place % 5].format(concept.name), concept=concept.name)
        for place, concept in enumerate(concepts)
    )
    return Probe(prompts=prompts, seeds=tuple(range(each)), sampler=Sampler(height=512, width=512))


def noise(probe: Probe) -> tuple[np.ndarray, list[str]]:
    """Images that cost nothing."""
    import numpy as np

    texts = [prompt.text for prompt, _ in probe.rows()]
    return np.random.default_rng(0).integers(0, 256, (len(texts), 512, 512, 3), dtype=np.uint8), texts


def step(word: str, changed: list[tuple[str, Any]]) -> Any:
    """The method with ten concepts and the values of the preset, with these changes."""
    kind = METHODS[word].step
    has = {field.name for field in fields(kind)}
    offered = {
        "anchor": CELEBRITY.anchor,
        "preserve": PRESERVED,
        "forget": pictures(CONCEPTS, 8),
        "retain": pictures(PRESERVED, 2),
    }
    values = {name: value for name, value in offered.items() if name in has}
    # Of what a cell would fill in, this script's own pictures, names and defaults stand here.
    own = settings_for("sd", changed, method=word, count=len(CONCEPTS))[kind.name]
    values |= {name: value for name, value in own.items() if not isinstance(value, FILLED_IN)}
    return kind(concepts=CONCEPTS, **values)


def cost(word: str, base: StableDiffusion, steps: int, changed: list[tuple[str, Any]]) -> Cost:
    """Time and memory of one method on this model."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from torch.nn.modules.module import register_module_forward_pre_hook

    whole = step(word, changed)
    updates = getattr(whole, "updates", 0)
    made = min(updates, steps)
    short = whole
    if made < updates:
        shorter = {"iterations": max(1, made // (len(CONCEPTS) if word == "mace" else 1))}
        shorter |= {"iterations_per_concept": 0} if hasattr(whole, "iterations_per_concept") else {}
        short = replace(whole, **shorter)
        made = short.updates
    shared: dict[str, float] = {}
    ticks: list[tuple[int, float, int]] = []
    """Updates made, when, and forwards so far."""
    forwards = 0

    def count(module: Any, inputs: tuple[Any, ...]) -> None:
        nonlocal forwards
        if isinstance(module, UNet2DConditionModel):
            forwards += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def cached(kind: str, _: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        began = now()
        built = build()
        shared[kind] = shared.get(kind, 0.0) + now() - began
        return built

    run = Run(
        base=base,
        base_digest="sd14",
        parent_digest="sd14",
        device="cuda",
        images=noise,
        cached=cached,
        progress=lambda done, *_: ticks.append((done, now(), forwards)),
    )
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    began = now()
    hook = register_module_forward_pre_hook(count)
    with fast_products(base):
        short.apply(base, run)
    hook.remove()
    took = now() - began - sum(shared.values())
    pace = rate = 0.0
    if len(ticks) > 1:
        (first, start, few), (last, end, many) = ticks[0], ticks[-1]
        pace, rate = (end - start) / (last - first), (many - few) / (last - first)
    before = ticks[0][1] - began - sum(shared.values()) - pace * ticks[0][0] if ticks else took
    rest = updates - made
    memory = torch.cuda.max_memory_allocated() / 1e9
    return Cost(updates, made, took + pace * rest, before, pace, (forwards + rate * rest) / 1e3, shared, memory)


def rows(words: list[str], steps: int, changed: list[tuple[str, Any]]) -> Iterator[list[Any]]:
    """One row for each method; one more for drawing an image."""
    import torch

    base = random_base("sd14", "cuda")
    device = torch.cuda.get_device_name()
    small = pictures(CONCEPTS[:8], 1)
    for _ in range(2):
        began = time.perf_counter()
        sample(base, replace(small, sampler=Sampler(steps=25, guidance=7.5, height=512, width=512, batch=8)))
        took = time.perf_counter() - began
    yield ["an image of 50 steps", "", "", f"{2 * took / 8:.2f}", "", "", "", "", "", device]
    for word in words:
        c = cost(word, base, steps, changed)
        told = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in c.shared.items())
        numbers = (f"{c.seconds:.1f}", f"{c.before:.1f}", f"{c.update:.3f}", f"{c.forwards:.2f}")
        name = " ".join([word, *(f"{key}={value}" for key, value in changed if key.startswith(word))])
        yield [name, c.updates, c.made, *numbers, told, f"{c.memory:.1f}", device]


def main() -> None:
    """The table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=WORDS, help=f"among {', '.join(WORDS)}; all by default")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=51, help="optimiser steps made of each method (default 51)")
    parser.add_argument("--set", type=parse_change, action="append", default=[], help="esd.batch=4, as the suites take")
    args = parser.parse_args()
    with args.to.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows(list(args.methods), args.steps, args.set):
            table.writerow(row)
            file.flush()
            print(*row, sep="  ", flush=True)


if __name__ == "__main__":
    main()
