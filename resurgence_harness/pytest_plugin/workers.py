"""How workers share one machine: cores, GPUs, and a folder in which they tell the controller what they do."""

from __future__ import annotations

import os
import sys

from resurgence_harness.diffusion.devices import resolved_device, torch_has_cuda, visible_gpus

__all__ = [
    "choose_gpu",
    "cores",
    "give_way",
    "gpu_for",
    "number",
    "resolved_device",
    "share_cores",
    "torch_has_cuda",
    "visible_gpus",
]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What torch's libraries read when they are loaded."""
NICE = 10
"""How much a worker gives way: about a tenth of another one's share, where both want the same core."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def share_cores(workers: int) -> int:
    """Give this worker its share of the cores, before or after torch is imported; a user's own setting stays."""
    threads = max(1, cores() // max(1, workers))
    if "OMP_NUM_THREADS" in os.environ:
        return int(os.environ["OMP_NUM_THREADS"]) if os.environ["OMP_NUM_THREADS"].isdecimal() else threads
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return threads


def give_way(worker: int, workers: int) -> None:
    """Where workers outnumber the cores, let the last one go first: its first cell is the shortest of the first ones.

    Cells that share the cores evenly would all end together; so the first verdict comes early, and no core idles.
    """
    if workers > cores() and worker < workers - 1 and hasattr(os, "nice"):
        os.nice(NICE)


def gpu_for(worker: int, gpus: tuple[str, ...]) -> str | None:
    """The GPU of the k-th worker, in turn."""
    return gpus[worker % len(gpus)] if gpus else None


def choose_gpu(name: str) -> None:
    """Let this process see one GPU; before torch is imported."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def number(worker: str) -> int:
    """3 for the worker "gw3"."""
    digits = "".join(letter for letter in worker if letter.isdecimal())
    return int(digits) if digits else 0
