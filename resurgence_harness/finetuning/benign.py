"""The benign training images of a fine-tuning: drawn by the unmodified base, never of an erased name.

Checked twice: on words when the set is created, and on tokens when the tokenizer is known. A name is found as
case-folded whole words, or as a contiguous sequence of tokens; sharing only a first or last name does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.conditions import Conditions
from resurgence_harness.diffusion.examples import Examples, drawn_examples
from resurgence_harness.diffusion.precision import exact_products
from resurgence_harness.errors import SpecError, sentence, shown
from resurgence_harness.specs import Probe, not_in_key
from resurgence_harness.statistics.formatting import counted

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class BenignSet:
    """Training images: the base's images for a probe, each with its prompt."""

    name: ClassVar[str] = "benign"
    version: ClassVar[int] = 1

    probe: Probe
    """Prompts of retained concepts × seeds; its length is the size of the set."""
    forbidden: tuple[str, ...] = not_in_key(())
    """Erased names and their synonyms. Not in the key: they only reject a set, never change it."""

    def __post_init__(self) -> None:
        """SpecError for a prompt that contains a forbidden name."""
        names = [(name, moves.words_of(name)) for name in self.forbidden]
        for prompt in self.probe.prompts:
            words = moves.words_of(prompt.text)
            for name, sought in names:
                if moves.holds(words, sought):
                    raise _found(name, prompt.text)

    def __len__(self) -> int:
        return len(self.probe)

    @property
    def captions(self) -> tuple[str, ...]:
        """The texts of its prompts, in the order of the rows of `Examples.states`."""
        return tuple(prompt.text for prompt in self.probe.prompts)

    @property
    def label(self) -> str:
        """The set in one line, for reports."""
        return f"{counted(len(self), 'image')} drawn by the base, for {counted(len(self.probe.prompts), 'prompt')}"


def examples(model: StableDiffusion, run: Run, data: BenignSet, *, mirrored: bool = False) -> Examples:
    """The set as latents and text states, after the token check; `mirrored` appends the mirrored images."""
    texts = [prompt.text for prompt in data.probe.prompts]
    moves.check_texts(model.tokenizer, texts)
    check_tokens(model.tokenizer, texts, data.forbidden)
    return drawn_examples(model, run, data.probe, mirrored=mirrored)


def check_tokens(tokenizer: Any, texts: Sequence[str], forbidden: Sequence[str]) -> None:
    """Raise a SpecError if a forbidden name's tokens appear in a text one after the other."""
    if not forbidden:
        return
    names = tokenizer(list(forbidden), add_special_tokens=False, verbose=False).input_ids
    for text, ids in zip(texts, tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids, strict=True):
        for name, sought in zip(forbidden, names, strict=True):
            if moves.holds(ids, sought):
                raise _found(name, text)


@exact_products()
def benign_losses(
    model: StableDiffusion, latents: Tensor, states: Conditions, *, seed: int, draws: int = 4
) -> list[float]:
    """Denoising loss of each held-out image, in float64: evidence that a fine-tuning had an effect.

    latents [n, 4, h, w] are x_0 (posterior means), states c of the images' own texts. Noise and timesteps
    depend only on the seed and the image's index, so two models can be compared image by image. Each image is evaluated
    at `draws` timesteps, one from each of `draws` equal parts of 0 … 999. For a v-model the loss is in v.
    """
    import torch

    steps = int(model.scheduler.config.num_train_timesteps)
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.inference_mode():
        totals = torch.zeros(len(latents), dtype=torch.float64)
        for draw in range(draws):
            low, high = steps * draw // draws, steps * (draw + 1) // draws
            times = torch.randint(low, high, (len(latents),), generator=generator)
            noise = torch.randn(latents.shape, generator=generator)
            for start in range(0, len(latents), moves.BATCH):
                part = slice(start, start + moves.BATCH)
                x_0, t, e = latents[part], times[part].to(latents.device), noise[part].to(latents.device)
                predicted = moves.predict(model, moves.add_noise(model, x_0, e, t), t, states[part])
                error = (predicted - moves.target(model, x_0, e, t)).double() ** 2
                totals[part] += error.mean(dim=(1, 2, 3)).cpu() / draws
    losses: list[float] = totals.tolist()
    return losses


def held_out(model: StableDiffusion, images: np.ndarray, texts: Sequence[str]) -> tuple[Tensor, Conditions]:
    """(latents, states) of held-out images uint8 [n, h, w, 3] and their texts, as `benign_losses` takes them."""
    return moves.latent_moments(model, images)[0], moves.conditions(model, texts)


def _found(name: str, prompt: str) -> SpecError:
    """The error for an erased name in a benign set."""
    return SpecError(
        sentence(
            f'The benign set has a prompt with the erased name "{name}".',
            prompt=shown(prompt),
            do="Remove this prompt: a fine-tuning that shows the erased concept again is not benign.",
        )
    )
