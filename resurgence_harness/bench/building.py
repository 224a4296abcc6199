"""Building a checkpoint: apply a step and write the changed tensors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resurgence_harness.bench.effect import Effect
from resurgence_harness.bench.files import DELTA, TENSORS, read_images, read_tensors, write_difference, write_tensors
from resurgence_harness.bench.making import Progress, Workshop
from resurgence_harness.bench.model_cache import chain_digest
from resurgence_harness.bench.provenance import provenance
from resurgence_harness.diffusion.training import fast_products
from resurgence_harness.planning import Work, checkpoint_key, describe_recipe, training
from resurgence_harness.specs import Probe, Recipe, Step
from resurgence_harness.storing import Artifact, key

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion


def apply(
    bench: Workshop, recipe: Recipe, chain: list[Artifact], inputs: dict[str, str], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Apply the recipe's last step to its parent and write the changed tensors; returns the facts of the build."""
    from resurgence_harness.diffusion.run import Run

    step, before, label = recipe.steps[-1], bench.model_cache.load(recipe.before, chain), describe_recipe(recipe)
    recorded: dict[str, Any] = {}
    used: dict[str, str] = {}
    effect = Effect(bench, recipe, before, used)

    def drawn(by: Recipe, probe: Probe) -> tuple[np.ndarray, list[str]]:
        artifact = bench.drawn(by, probe)
        used[artifact.key] = artifact.digest
        return read_images(artifact, probe), [prompt.text for prompt, _ in probe.rows()]

    def cached(kind: str, spec: object, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        artifact = _tensors(bench, kind, spec, build, label=f"{kind} for {label}")
        used[artifact.key] = artifact.digest
        return read_tensors(artifact, TENSORS)

    def facts(changed: StableDiffusion, folder: Path, work: Work | None) -> dict[str, Any]:
        delta = write_difference(changed, before, folder / DELTA, label=label)
        return {
            **provenance(bench.device, work),
            "tensors moved": len(delta),
            "numbers moved": sum(delta.values()),
            "benign losses": effect.losses(changed),
            "recorded": dict(recorded),
            "made with": dict(used),
        }

    def save(done: int, changed: StableDiffusion) -> None:
        part = stopped(step, done)
        if part is None:
            return  # the last step: stored as the training's own checkpoint
        bench.making.make(
            checkpoint_key(recipe.before.then(part)),
            "checkpoint",
            f"{label}, stopped at {done}",
            inputs,
            lambda folder: facts(changed, folder, None),  # the training's time is recorded with the final checkpoint
        )

    def keep(name: str, path: Path) -> None:
        shutil.move(path, folder / name)

    run = Run(
        base=bench.model_cache.base(recipe),
        base_digest=recipe.base.digest,
        parent_digest=chain_digest(recipe.base, chain),
        device=bench.device,
        images=partial(drawn, Recipe(recipe.base)),
        parent_images=partial(drawn, recipe.before),
        cached=cached,
        folder=folder,
        keep=keep,
        progress=lambda done, total, loss: progress(f"building {label}", done, total, loss),
        record=recorded.__setitem__,
        save=save,
    )
    progress(f"building {label}", 0, training(step).units, None)
    with fast_products(before):
        changed = step.apply(before, run)  # type: ignore[attr-defined]
    return facts(changed, folder, training(step))


def _tensors(
    bench: Workshop, kind: str, spec: object, build: Callable[[], dict[str, Tensor]], *, label: str
) -> Artifact:
    def write(folder: Path) -> dict[str, Any]:
        write_tensors(build(), folder)
        return provenance(bench.device, None)

    place = key(kind, spec)
    return bench.store.current(place) or bench.store.make(place, kind=kind, label=label, inputs={}, build=write)


def intermediate(step: Step) -> Iterator[Step]:
    """The step, stopped at each of its intermediate checkpoints."""
    for done in getattr(step, "save_at", ()):
        part = stopped(step, done)
        if part is not None:
            yield part


def stopped(step: Step, done: int) -> Step | None:
    """The step that ends after `done` optimiser steps; None if that is its last."""
    return step.at(done) if done < getattr(step, "steps", 0) else None  # type: ignore[attr-defined]
