"""With what and on what something was made."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import resurgence_harness
from resurgence_harness.planning import Work
from resurgence_harness.storing import Artifact

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
"""Their versions are recorded: other versions may give other bytes."""
DRAWING = ("torch", "diffusers", "transformers")
"""Those that compute an image: models are compared on images that were drawn with the same ones."""


def provenance(device: str, work: Work | None) -> dict[str, Any]:
    """With what and on what something was made."""
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "hardware": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "resurgence-harness": resurgence_harness.__version__,
            **{name: found for name in LIBRARIES if (found := _version(name))},
        },
    }
    return {**facts, "work": work._asdict()} if work is not None else facts


def render_environment(drawn: Artifact) -> str:
    """What could make two drawings by one model differ: the kind of device, and the libraries that compute."""
    versions = drawn.facts["versions"]
    device = "cpu" if drawn.facts["device"] == "cpu" else drawn.facts["hardware"]
    return ", ".join([device, *(f"{name} {versions[name]}" for name in DRAWING if name in versions)])


@lru_cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
