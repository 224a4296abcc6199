"""The effect of a fine-tuning on benign images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resurgence_harness.bench.files import read_images
from resurgence_harness.bench.making import Workshop
from resurgence_harness.diffusion import moves
from resurgence_harness.planning import held_out_probe
from resurgence_harness.specs import Recipe

if TYPE_CHECKING:
    from resurgence_harness.diffusion.model import StableDiffusion


class Effect:
    """The effect of a fine-tuning: the denoising loss of held-out benign images, drawn or given, before and after."""

    def __init__(self, bench: Workshop, recipe: Recipe, before: StableDiffusion, used: dict[str, str]) -> None:
        """Measure `before`, if the recipe's last step is a fine-tuning; adds the images' key and digest to `used`."""
        from resurgence_harness.finetuning import FineTuning, GivenSet, held_out
        from resurgence_harness.finetuning.given import draws_for, given_held_out

        self._before: list[float] | None = None
        self._encoders: tuple[object, ...] | None = None
        step = recipe.steps[-1]
        if not isinstance(step, FineTuning):
            return
        if isinstance(step.data, GivenSet):
            texts = [row.caption for row in step.data.folder.held_out]
            self._latents, self._states = given_held_out(before, step.data)
            self._seed, self._draws = 0, draws_for(len(self._latents))
            self._texts, self._cut = texts, frozenset(texts)
            self._encoders, self._before = before.encoders, self._measure(before)
            return
        probe = held_out_probe(step.data.probe)
        drawn = bench.drawn(Recipe(recipe.base), probe)
        used[drawn.key] = drawn.digest
        texts = [prompt.text for prompt, _ in probe.rows()]
        self._latents, self._states = held_out(before, read_images(drawn, probe), texts)
        self._seed, self._draws = probe.seeds[0], 4
        self._texts, self._cut = texts, frozenset[str]()
        self._encoders, self._before = before.encoders, self._measure(before)

    def losses(self, changed: StableDiffusion) -> dict[str, list[float]] | None:
        """Losses per image, paired by image, noise and timestep; None for a step other than a fine-tuning."""
        if self._before is None:
            return None
        return {"before": self._before, "after": self._measure(changed)}

    def _measure(self, model: StableDiffusion) -> list[float]:
        from resurgence_harness.finetuning import benign_losses

        states = self._states
        if self._encoders is not None and _others(model.encoders, self._encoders):  # the step trained them as well
            states = moves.conditions(model, self._texts, may_be_cut=self._cut)
        return benign_losses(model, self._latents, states, seed=self._seed, draws=self._draws)


def _others(mine: tuple[object, ...], known: tuple[object, ...]) -> bool:
    return any(one is not twin for one, twin in zip(mine, known, strict=True))
