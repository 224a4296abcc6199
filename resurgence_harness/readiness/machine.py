"""Device, memory, disk and versions of this machine."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import resurgence_harness
from resurgence_harness.judging.weights import directory
from resurgence_harness.storing import default_root

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "open_clip_torch", "huggingface_hub", "pytest")
ENOUGH_ON_DISK = 20_000_000_000
"""Bytes that a published base, a judge and the store of a quick run take together, rounded up."""


def machine() -> tuple[tuple[str, str], ...]:
    """Names and values, for a table."""
    return (
        ("package", f"resurgence-harness {resurgence_harness.__version__}, Python {platform.python_version()}"),
        ("libraries", ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name)))),
        ("device", _device()),
        ("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)),
        ("memory", _memory()),
        ("disk of the store", _disk(Path(str(default_root())))),
        ("disk of the weights", _disk(directory())),
        ("hub's cache", _disk(_cache())),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _device() -> str:
    from resurgence_harness.diffusion.devices import resolved_device

    if resolved_device("auto") != "cuda":
        return "cpu: published bases need a GPU, the microworld does not"
    import torch

    names = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    return ", ".join(f"{one.name}, {one.total_memory / 1e9:.0f} GB" for one in names)


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        whole, free = (page * os.sysconf(name) / 1e9 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
        return f"{whole:.0f} GB, {free:.0f} free"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _disk(place: Path) -> str:
    there = next((path for path in (place, *place.absolute().parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    few = ", little for a published base" if free < ENOUGH_ON_DISK else ""
    return f"{free / 1e9:.0f} GB free at {place}{few}"


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
