"""How workers share the cores and GPUs of one machine."""

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
"""Environment variables that torch's libraries read when they are loaded."""
NICE = 10
"""Niceness: such a worker gets about a tenth of another one's share of a contended core."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def share_cores(workers: int) -> int:
    """Set this worker's number of threads, before or after torch is imported; the user's own setting has precedence."""
    threads = max(1, cores() // max(1, workers))
    if "OMP_NUM_THREADS" in os.environ:
        return int(os.environ["OMP_NUM_THREADS"]) if os.environ["OMP_NUM_THREADS"].isdecimal() else threads
    for name in THREADS:
        os.environ.setdefault(name, str(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return threads


def give_way(worker: int, workers: int) -> None:
    """If there are more workers than cores, lower the priority of all but the last, whose first cell is the shortest.

    With equal priorities all first cells would end together; this way the first verdict comes early.
    """
    if workers > cores() and worker < workers - 1 and hasattr(os, "nice"):
        os.nice(NICE)


def gpu_for(worker: int, gpus: tuple[str, ...]) -> str | None:
    """The GPU of worker number `worker`, round robin; None without GPUs."""
    return gpus[worker % len(gpus)] if gpus else None


def choose_gpu(name: str) -> None:
    """Make one GPU visible to this process; call it before torch is imported."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def number(worker: str) -> int:
    """3 for the worker "gw3"."""
    digits = "".join(letter for letter in worker if letter.isdecimal())
    return int(digits) if digits else 0
