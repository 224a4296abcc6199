"""What every fine-tuning is: ordinary denoising training on innocent images, as a customer would do it.

    L(θ) = E_{x_0, c, t, ε}  ‖ f_θ(a_t x_0 + s_t ε, t, c) − y_t ‖²,     y_t = ε, or v = a_t ε − s_t x_0
    t uniform in 0 … 999     x_0 drawn anew from the VAE's posterior each time     c never dropped

Source: huggingface/diffusers 58eb52c, examples/text_to_image/train_text_to_image.py and …_lora.py: AdamW (0.9, 0.999,
ε 1e-8, weight decay 1e-2), gradients clipped to norm 1, constant learning rate.

Departures   float32 instead of float16 autocast; no EMA (at 20 steps it would still hold the old weights); no crop and
             flip, so that VAE moments and text states are computed once; the loss is not reweighted (snr_gamma none).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, noised
from resurgence_harness.diffusion.parameters import Parameters, selected
from resurgence_harness.diffusion.ranges import positive, whole
from resurgence_harness.diffusion.training import batches, descend
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.finetuning.benign import BenignSet, examples
from resurgence_harness.specs import Step, not_in_key

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

CLIP = 1.0
"""Bound on the norm of all gradients together."""


@dataclass(frozen=True, kw_only=True)
class FineTuning(Step, ABC):
    """One fine-tuning. Subclasses are final and say which parameters move."""

    data: BenignSet
    """The images it is trained on."""
    steps: int = 200
    """Optimiser steps, ≥ 1."""
    learning_rate: float = 1e-5
    """AdamW's, constant, > 0."""
    batch: int = 4
    """Images per optimiser step, ≥ 1."""
    seed: int = 0
    """Of the order of the images, the timesteps and the noise."""
    save_at: tuple[int, ...] = not_in_key(())
    """Steps after which an intermediate model is handed to `run.save`, rising, within 1 … steps. Not in the key, for
    it changes nothing: the model handed over at step k is, bit for bit, what `at(k)` makes."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        whole(type(self).__name__, 1, steps=self.steps, batch=self.batch)
        whole(type(self).__name__, 0, seed=self.seed)
        positive(type(self).__name__, learning_rate=self.learning_rate)
        if list(self.save_at) != sorted(set(self.save_at)) or any(not 1 <= k <= self.steps for k in self.save_at):
            raise SpecError(
                sentence(
                    f"{type(self).__name__}.save_at must be rising steps within 1 to {self.steps}, got {self.save_at}."
                )
            )

    def at(self, steps: int) -> Self:
        """The same fine-tuning, stopped after so many steps."""
        return replace(self, steps=steps, save_at=())

    @property
    @abstractmethod
    def moves(self) -> Parameters:
        """Which tensors of the UNet may differ afterwards. The text encoder and the VAE never do."""

    @abstractmethod
    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy. The input, the global random state and the grad mode are left as they were."""


def train(
    step: FineTuning,
    changed: StableDiffusion,
    parameters: Sequence[Any],
    run: Run,
    *,
    result: Callable[[], StableDiffusion],
) -> None:
    """Train `parameters` of `changed`; `result()` is the model as it then is, in plain weights, for `run.save`."""
    import torch

    data = examples(changed, run, step.data)
    generator = torch.Generator("cpu").manual_seed(step.seed)

    def after(done: int) -> None:
        if done in step.save_at:
            run.save(done, result())

    losses = descend(
        type(step).__name__,
        torch.optim.AdamW(
            parameters, lr=step.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=True
        ),
        denoising_losses(changed, data, batch=step.batch, generator=generator),
        steps=step.steps,
        clip=CLIP,
        progress=run.progress,
        after=after,
    )
    run.record("images", len(data.mean))
    run.record("samples seen", step.steps * step.batch)
    run.record("loss", losses._asdict())


def denoising_losses(model: StableDiffusion, data: Examples, *, batch: int, generator: Generator) -> Iterator[Tensor]:
    """The loss above on one batch after another, without end."""
    for rows in batches(len(data.mean), batch, generator=generator):
        seen = noised(model, data, rows, generator=generator)
        yield ((moves.predict(model, seen.x_t, seen.t, seen.states) - seen.aim) ** 2).mean()


def train_selected(step: FineTuning, model: StableDiffusion, run: Run) -> StableDiffusion:
    """Train the tensors that `step.moves` selects, in a copy of the model."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        changed = model.copy()
        named = {f"unet.{name}": parameter for name, parameter in changed.unet.named_parameters()}
        trained = [named[name].requires_grad_(True) for name in selected(step.moves, named)]
        train(step, changed, trained, run, result=lambda: _frozen(changed))
        changed.unet.requires_grad_(False)
        return changed


def _frozen(model: StableDiffusion) -> StableDiffusion:
    """A copy that is not being trained."""
    copied = model.copy()
    copied.unet.requires_grad_(False)
    return copied
