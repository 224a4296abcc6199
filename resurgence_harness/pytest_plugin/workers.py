"""How workers share one machine: cores, GPUs, and a folder in which they tell the controller what they do."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

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


def visible_gpus(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> tuple[str, ...]:
    """CUDA devices by the names that CUDA_VISIBLE_DEVICES takes, found without importing torch.

    An existing CUDA_VISIBLE_DEVICES is kept to: its entries may be indices, GPU-… or MIG-… names.
    """
    if "CUDA_VISIBLE_DEVICES" in environ:
        names = [name.strip() for name in environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return tuple(name for name in names if name and name != "-1")
    try:
        numbers = sorted(int(path.name[6:]) for path in devices.glob("nvidia[0-9]*") if path.name[6:].isdecimal())
    except OSError:
        return ()
    return tuple(str(index) for index in range(len(numbers)))


def gpu_for(worker: int, gpus: tuple[str, ...]) -> str | None:
    """The GPU of the k-th worker, in turn."""
    return gpus[worker % len(gpus)] if gpus else None


def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA; read from its files, not by importing it."""
    from importlib.util import find_spec

    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    line = next((line for line in text.splitlines() if line.startswith("cuda")), "")
    return bool(line) and not line.rstrip().endswith("None")


def resolved_device(asked: str) -> str:
    """ "auto" as "cuda" where a GPU and a torch for it are there, else "cpu"; other words as they are."""
    if asked != "auto":
        return asked
    return "cuda" if visible_gpus() and torch_has_cuda() else "cpu"


def choose_gpu(name: str) -> None:
    """Let this process see one GPU; before torch is imported."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def number(worker: str) -> int:
    """3 for the worker "gw3"."""
    digits = "".join(letter for letter in worker if letter.isdecimal())
    return int(digits) if digits else 0
