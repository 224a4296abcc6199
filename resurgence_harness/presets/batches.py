"""The number that `sampler.batch=auto` stands for: the most images at once that surely fit a GPU's memory.

    8 GB: 1      16 GB: 8      24 GB: 32      80 GB: 32      at 512 px in float16 (docs/performance.md)

It is resolved once, before anything is planned, and enters the keys as any other number would: two machines that
resolve it differently draw different images, which are never compared. More than 32 images gain nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from resurgence_harness.errors import UserError, sentence
from resurgence_harness.specs import Arithmetic

AUTO = "sampler.batch=auto"
SIZES = (1, 2, 4, 8, 16, 32)
ON_CPU = 4
"""On a CPU memory is not what limits."""
FIXED = 10.5
"""GiB without any image: the base and the model whose weights are swapped in float32, one of them in float16."""
EACH: dict[Arithmetic, float] = {"float16": 0.15, "float32": 1.0}
"""GiB that an image of 512 × 512 pixels adds; measured by benchmarks/half.py."""
USABLE = 0.92
"""Of a GPU's memory."""


def batch_for(memory: float | None, *, height: int, width: int, arithmetic: Arithmetic) -> int:
    """Images at once for a GPU of so many GiB, or for a CPU (None)."""
    if memory is None:
        return ON_CPU
    each = EACH[arithmetic] * height * width / 512**2
    fits = [size for size in SIZES if FIXED + size * each <= USABLE * memory]
    return max(fits, default=SIZES[0])


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
