"""The number that `sampler.batch=auto` stands for: the most images at once that fit a GPU's memory.

    16 GB: 8      24 GB: 32      80 GB: 32      at 512 px in float16; 8 GB: 1, which is unlikely to fit (`needed`)

It is resolved once, before anything is planned, and enters the keys as any other number would: two machines that
resolve it differently draw different images, which are never compared. More than 32 images gain nothing.

The constants follow from the peaks of benchmarks/half.py (reports/performance.md): 8.5, 11.2, 11.3 and 13.9 GiB for 8,
16, 32 and 64 images in float16, 12.0 for 8 in float32. They end with decoding up to 16 images, which are decoded at
once, and with the U-Net beyond; the benchmark holds one model in float32, a run two.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from math import inf

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.specs import Arithmetic

AUTO = "sampler.batch=auto"
SIZES = (1, 2, 4, 8, 16, 32)
ON_CPU = 4
"""On a CPU memory is not what limits."""
CONTEXT = 0.6
"""GiB of CUDA itself and its libraries, which no peak of torch's allocator includes."""
SWAPPED = 3.2
"""GiB of the second U-Net in float32, into which unlearned and fine-tuned weights are swapped."""
MODEL: dict[Arithmetic, float] = {"float16": 5.75, "float32": 4.0}
"""GiB of the base in float32, and in float16 of its U-Net and decoder, too."""
DECODED: dict[Arithmetic, float] = {"float16": 0.34, "float32": 1.0}
"""GiB that decoding an image of 512 × 512 pixels adds."""
AT_ONCE: dict[Arithmetic, float] = {"float16": 16, "float32": inf}
"""Images of 512 × 512 pixels that are decoded at once (diffusion/half/decoder.py)."""
PREDICTED = 0.13
"""GiB that an image of 512 × 512 pixels adds to the U-Net's pass."""
USABLE = 0.92
"""Of a GPU's memory."""


def needed(batch: int, *, height: int, width: int, arithmetic: Arithmetic) -> float:
    """GiB of a GPU that drawing so many images at once takes."""
    images = batch * height * width / 512**2
    drawn = max(DECODED[arithmetic] * min(images, AT_ONCE[arithmetic]), PREDICTED * images)
    return CONTEXT + SWAPPED + MODEL[arithmetic] + drawn


def batch_for(memory: float | None, *, height: int, width: int, arithmetic: Arithmetic) -> int:
    """Images at once for a GPU of so many GiB, or for a CPU (None); 1 if not even one should fit."""
    if memory is None:
        return ON_CPU
    fits = [one for one in SIZES if needed(one, height=height, width=width, arithmetic=arithmetic) <= USABLE * memory]
    return max(fits, default=SIZES[0])


def resolution_note(batch: int, memory: float | None, *, height: int, width: int, arithmetic: Arithmetic) -> str:
    """One line on what `auto` became, and a warning if even one image should not fit."""
    note = f"{AUTO} is {batch} on this machine, as part of every key"
    needs = needed(batch, height=height, width=width, arithmetic=arithmetic)
    if memory is not None and needs > USABLE * memory:
        note += f"; it needs about {needs:.1f} GiB and a process has {memory:.1f}, so memory may run out"
    return f"{note}."


def gpu_memory(gpus: Sequence[str], *, workers: int = 1) -> float:
    """GiB that each worker has on the smallest of these GPUs (names of CUDA_VISIBLE_DEVICES), shared round robin."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "-i", ",".join(gpus)]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        smallest = min(float(line) for line in said.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError) as problem:
        raise UserError(
            sentence(
                "The memory of the GPU is unknown, so sampler.batch=auto cannot become a number.",
                problem=str(problem)[:200],
                do="Give the number: --resurgence-set sampler.batch=8.",
            )
        ) from None
    return smallest / 1024 / -(-max(1, workers) // len(gpus))
