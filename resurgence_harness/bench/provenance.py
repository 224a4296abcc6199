"""Provenance of artifacts: device, hardware and library versions."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import resurgence_harness
from resurgence_harness.planning import Work
from resurgence_harness.specs import Sampler
from resurgence_harness.storing import Artifact

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
"""Their versions are recorded, since other versions may give other bytes."""
BY = "computed by"
"""The fact of images in float16, and of their judgments, that says what computed them."""
DRAWING = ("torch", "diffusers", "transformers")
"""The libraries that compute images; images are only compared if their versions agree."""


def provenance(device: str, work: Work | None) -> dict[str, Any]:
    """Device, hardware, threads and versions of a build, and the work for time estimates, as JSON."""
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


def arithmetic_of(model: StableDiffusion, sampler: Sampler) -> dict[str, str]:
    """The arithmetic of images and, in float16, what computed them: "triton 3.6.0" or "plain modules"."""
    if sampler.arithmetic == "float32":
        return {"arithmetic": sampler.arithmetic}
    from resurgence_harness.diffusion.half.drawing import way_of

    by = f"triton {_version('triton')}" if way_of(model) == "triton" else "plain modules"
    return {"arithmetic": sampler.arithmetic, BY: by}


def render_environment(drawn: Artifact) -> str:
    """The environment on which the pixels of an image can depend: the hardware and the library versions, as text.

    Of images in float16 also what computed them, whose rounding differs.
    """
    facts = drawn.facts
    device = "cpu" if facts["device"] == "cpu" else facts["hardware"]
    by = [f"{facts['arithmetic']} by {facts[BY]}"] if BY in facts else []
    return ", ".join(
        [device, *(f"{name} {facts['versions'][name]}" for name in DRAWING if name in facts["versions"]), *by]
    )


@lru_cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
