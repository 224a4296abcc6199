"""The contract of every fine-tuning: ordinary denoising training on benign images, as a customer would do it.

    L(θ) = E_{x_0, c, t, ε}  ‖ f_θ(a_t x_0 + s_t ε, t, c) − y_t ‖²,     y_t = ε, or v = a_t ε − s_t x_0
    t uniform in 0 … 999     x_0 sampled from the VAE's posterior at each use     c never dropped

Source: huggingface/diffusers 58eb52c, examples/text_to_image/train_text_to_image.py and …_lora.py: AdamW (0.9, 0.999,
ε 1e-8, weight decay 1e-2), gradients clipped to norm 1. `schedule` and `flip` are the script's options --lr_scheduler
(constant by default; the paper's authors use cosine for LoRA) and --random_flip (which they set).

Memory       A batch goes through the U-Net in passes (training.PASS), whose gradients are summed: 32 images of 512
             pixels at once would take more than 44 GiB.
Departures   float32 instead of float16 autocast; no EMA (after 20 steps it would still equal the old weights); no
             random crop: drawn images have the base's size, given ones are cropped at the centre (--center_crop). VAE
             moments of both orientations and text states are computed once.

`weighting` and `noise_offset` are the script's options --snr_gamma (weighting.py) and --noise_offset, off by default:

    ε = noise + offset · o,     o ~ N(0, 1), one for each image and channel

Source of the offset: https://www.crosslabs.org/blog/diffusion-with-offset-noise, as in the script.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.examples import Examples, Noised, noised
from resurgence_harness.diffusion.parameters import Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import batches, descend, gradients, passes
from resurgence_harness.errors import SpecError, sentence
from resurgence_harness.finetuning.augmenting import Flip, NoFlip, RandomFlip
from resurgence_harness.finetuning.benign import BenignSet, examples
from resurgence_harness.finetuning.given import GivenSet, given_examples
from resurgence_harness.finetuning.schedules import Constant, Schedule
from resurgence_harness.finetuning.weighting import MinSNR, Unweighted, Weighting
from resurgence_harness.specs import ADDED, Arithmetic, Step, check_arithmetic, not_in_key

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

TrainingData = BenignSet | GivenSet
"""The images that a fine-tuning trains on."""
CLIP = 1.0
"""Maximum norm of the joint gradient."""
FLIPS = 1_000_003
"""Added to the seed for the generator that selects the mirrored images."""


@dataclass(frozen=True, kw_only=True)
class FineTuning(Step, ABC):
    """One fine-tuning. Subclasses are final and define the trained parameters."""

    data: TrainingData
    """The training images: drawn by the base, or given."""
    steps: int = 200
    """Optimiser steps, ≥ 1."""
    learning_rate: float = 1e-5
    """Initial learning rate of AdamW, > 0; changed by `schedule`."""
    batch: int = 4
    """Images per optimiser step, ≥ 1."""
    seed: int = 0
    """Seed of the order of the images, the timesteps and the noise."""
    schedule: Schedule = field(default=Constant(), metadata=ADDED)
    """Schedule of the learning rate."""
    flip: Flip = field(default=NoFlip(), metadata=ADDED)
    """Whether images are mirrored at random."""
    weighting: Weighting = field(default=Unweighted(), metadata=ADDED)
    """Weights of the timesteps in the loss."""
    noise_offset: float = field(default=0.0, metadata=ADDED)
    """Standard deviation of the noise that all positions of a channel share, ≥ 0; 0: none."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken; the trained weights and AdamW's moments are float32 with both."""
    save_at: tuple[int, ...] = not_in_key(())
    """Steps after which an intermediate model is passed to `run.save`, increasing, within 1 … steps. Not in the key,
    since it changes nothing: the model at step k is identical to the result of `at(k)`."""

    def __post_init__(self) -> None:
        """SpecError for values out of range."""
        check_arithmetic(type(self).__name__, self.arithmetic)
        whole(type(self).__name__, 1, steps=self.steps, batch=self.batch)
        whole(type(self).__name__, 0, seed=self.seed)
        positive(type(self).__name__, learning_rate=self.learning_rate)
        at_least(type(self).__name__, 0, noise_offset=self.noise_offset)
        if list(self.save_at) != sorted(set(self.save_at)) or any(not 1 <= k <= self.steps for k in self.save_at):
            raise SpecError(
                sentence(
                    f"{type(self).__name__}.save_at must be increasing, from 1 to {self.steps}, got {self.save_at}."
                )
            )

    def at(self, steps: int) -> Self:
        """The same fine-tuning, stopped after `steps` steps, with the learning rates of the full schedule."""
        schedule = self.schedule if steps == self.steps else self.schedule.stopped(self.steps)
        return replace(self, steps=steps, schedule=schedule, save_at=())

    @property
    @abstractmethod
    def moves(self) -> Parameters:
        """Which tensors of the UNet and the text encoder may differ afterwards. The VAE never does."""

    @abstractmethod
    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """A changed copy. The input, the global random state and the grad mode are left as they were."""


class Prior(NamedTuple):
    """Further images whose loss is added to that of the training images."""

    data: Examples
    weight: float
    """Factor of their loss."""
    seed: int
    """Seed of their order, timesteps and noise."""


def train(
    step: FineTuning,
    changed: StableDiffusion,
    parameters: Sequence[Any],
    run: Run,
    *,
    result: Callable[[], StableDiffusion],
    caption: str = "",
    encode: Callable[[Sequence[str]], Callable[[Tensor], Conditions]] | None = None,
    prior: Prior | None = None,
) -> None:
    """Train `parameters` of `changed`; `result()` returns the current model, in plain weights, for `run.save`.

    `caption` replaces the images' own captions. `encode`, for a step that trains the text encoder, gets the distinct
    captions and returns the function from some of their indices to their text states with gradients.
    """
    import torch

    mirrored = isinstance(step.flip, RandomFlip)
    if isinstance(step.data, GivenSet):
        data = given_examples(changed, run, step.data, mirrored=mirrored)
        run.record("given data", {"digest": step.data.folder.digest, "images": len(step.data.folder)})
    else:
        data = examples(changed, run, step.data, mirrored=mirrored)
    texts: Sequence[str] = step.data.captions
    if caption:
        data, texts = recaptioned(changed, data, caption), [caption]
    generator = torch.Generator("cpu").manual_seed(step.seed)
    sides = torch.Generator("cpu").manual_seed(step.seed + FLIPS) if mirrored else None
    adam = torch.optim.AdamW(
        parameters, lr=step.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, fused=True
    )

    def after(done: int) -> None:
        for group in adam.param_groups:
            group["lr"] = step.learning_rate * step.schedule.factor(done, step.steps)
        if done in step.save_at:
            run.save(done, result())

    losses = descend(
        type(step).__name__,
        adam,
        denoising_losses(
            changed,
            data,
            batch=step.batch,
            generator=generator,
            sides=sides,
            weighting=step.weighting,
            offset=step.noise_offset,
            encode=encode(texts) if encode is not None else None,
            prior=prior,
        ),
        steps=step.steps,
        clip=CLIP,
        progress=run.progress,
        after=after,
        kept=step.save_at,
    )
    run.record("images", len(data.mean) // (1 + mirrored))
    run.record("samples seen", step.steps * step.batch)
    run.record("loss", losses._asdict())


def recaptioned(model: StableDiffusion, data: Examples, caption: str) -> Examples:
    """The same images, all with one caption."""
    return data._replace(states=moves.conditions(model, [caption]), text=data.text * 0)


def denoising_losses(
    model: StableDiffusion,
    data: Examples,
    *,
    batch: int,
    generator: Generator,
    sides: Generator | None = None,
    weighting: Weighting = Unweighted(),  # noqa: B008  a frozen value
    offset: float = 0.0,
    encode: Callable[[Tensor], Conditions] | None = None,
    prior: Prior | None = None,
) -> Iterator[Tensor | Iterable[Tensor]]:
    """The loss above on endless batches; as the terms of its sum if a batch takes several passes.

    With `sides`, the second half of the rows are the first half's images mirrored, and each image is replaced by its
    mirrored one with probability ½. The choice uses this generator only, so order, timesteps and noise equal those
    without a flip. With `encode`, text states are computed by it (from indices of texts), anew for each pass. With
    `prior`, prior.weight times the unweighted loss of as many of its images is added.
    """
    import torch

    further = (
        None
        if prior is None
        else _noised_batches(model, prior.data, batch, torch.Generator("cpu").manual_seed(prior.seed), offset=offset)
    )
    for seen, texts in _noised_batches(model, data, batch, generator, sides=sides, offset=offset):
        each = passes(len(texts), seen.x_t[0, 0].numel())
        if len(each) == 1 and prior is None:
            states = seen.states if encode is None else encode(texts)
            yield _error(model, seen._replace(states=states), weighting)
            continue
        terms = _terms(model, seen, texts, each, weighting=weighting, encode=encode)
        if prior is not None and further is not None:
            kept, names = next(further)
            terms = chain(terms, _terms(model, kept, names, each, weighting=Unweighted(), share=prior.weight))
        yield terms


def _noised_batches(
    model: StableDiffusion,
    data: Examples,
    batch: int,
    generator: Generator,
    *,
    sides: Generator | None = None,
    offset: float = 0.0,
) -> Iterator[tuple[Noised, Tensor]]:
    """Endless noised batches, each with the row of `data.states` of every image."""
    import torch

    images = len(data.mean) // (1 if sides is None else 2)
    for rows in batches(images, batch, generator=generator):
        if sides is not None:
            rows = rows + images * torch.randint(2, (len(rows),), generator=sides)
        seen = noised(model, data, rows, generator=generator, offset=offset)
        yield seen, data.text[moves.on_device(rows, data.text.device)]


def _terms(
    model: StableDiffusion,
    seen: Noised,
    texts: Tensor,
    each: Sequence[slice],
    *,
    weighting: Weighting,
    encode: Callable[[Tensor], Conditions] | None = None,
    share: float = 1.0,
) -> Iterator[Tensor]:
    """`share` times the mean error of a batch as one term per pass; the terms add up to it."""
    for rows in each:
        part = seen.part(rows)
        if encode is not None:
            part = part._replace(states=encode(texts[rows]))
        yield _error(model, part, weighting) * (share * len(part.t) / len(seen.t))


def _error(model: StableDiffusion, seen: Noised, weighting: Weighting) -> Tensor:
    """The mean squared error of the prediction, weighted by timestep."""
    squares = (moves.predict(model, seen.x_t, seen.t, seen.states) - seen.aim) ** 2
    if isinstance(weighting, MinSNR):
        return (squares.mean(dim=(1, 2, 3)) * weighting.at(model, seen.t)).mean()
    return squares.mean()


def train_selected(
    step: FineTuning, model: StableDiffusion, run: Run, *, caption: str = "", prior: Prior | None = None
) -> StableDiffusion:
    """Train the tensors of the UNet that `step.moves` selects, in a copy of the model. Options as for `train`."""

    with gradients(model, step.arithmetic, run):
        changed = model.copy()
        named = {f"unet.{name}": parameter for name, parameter in changed.unet.named_parameters()}
        trained = [named[name].requires_grad_(True) for name in selected(step.moves, named)]
        train(step, changed, trained, run, result=lambda: _frozen(changed), caption=caption, prior=prior)
        changed.unet.requires_grad_(False)
        return changed


def _frozen(model: StableDiffusion) -> StableDiffusion:
    """A copy without gradients."""
    copied = model.copy()
    copied.unet.requires_grad_(False)
    return copied
