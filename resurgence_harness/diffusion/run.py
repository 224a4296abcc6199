"""What a step receives besides the model: everything that cannot change the result, and access to cached results.

Nothing in a Run may enter a step's key: device, progress and logging have no effect on the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resurgence_harness.errors import HarnessError, sentence
from resurgence_harness.specs import Probe

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


def _no_images(probe: Probe) -> tuple[np.ndarray, list[str]]:
    """The default of `images`: HarnessError."""
    raise HarnessError(sentence("This run has no images.", prompts=len(probe.prompts), do="Give Run(images=…)."))


def _compute(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The default of `cached`: computes without caching."""
    return build()


def _ignore(*_: object) -> None:
    """The default callback: does nothing."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The surroundings of one step: base model, caches and callbacks."""

    base: StableDiffusion
    """The unmodified base model of the recipe. Never changed by a step."""
    base_digest: str
    """Digest of the base's weights; part of the cache key of everything that only the base determines."""
    parent_digest: str
    """Digest of the model that `apply` is given; part of the cache key of everything that this model determines."""
    device: str = "cpu"
    """Where tensors are computed."""
    images: Callable[[Probe], tuple[np.ndarray, list[str]]] = _no_images
    """The base's images of a probe: uint8 [n, h, w, 3], and the n texts they were drawn from."""
    parent_images: Callable[[Probe], tuple[np.ndarray, list[str]]] = _no_images
    """The same, drawn by the model that `apply` is given."""
    cached: Callable[[str, object, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = _compute
    """cached(kind, spec, build): tensors kept in the store under key(kind, spec). Every spec that the steps pass holds
    the digest of the model it was computed with, so nothing needs to be added to it."""
    folder: Path | None = None
    """A folder for a step's temporary files; None: the system's."""
    keep: Callable[[str, Path], None] = _ignore
    """keep(name, path): moves a file beside the result's weights, under this name."""
    progress: Callable[[int, int, float | None], None] = _ignore
    """progress(done, total, loss): called after each training step; loss is None if there is none."""
    record: Callable[[str, object], None] = _ignore
    """record(name, value): adds a JSON-able value to the result's manifest."""
    save: Callable[[int, StableDiffusion], None] = _ignore
    """save(step, model): called with an intermediate model at each step in a fine-tuning's `save_at`."""
