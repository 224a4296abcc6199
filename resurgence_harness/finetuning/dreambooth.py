"""DreamBooth: the U-Net learns one subject from a few images, while images of the subject's class preserve the class.

Ruiz et al. DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation. CVPR 2023.
https://arxiv.org/abs/2208.12242, equation 2

    L(θ) = E ‖ f_θ(a_t x + s_t ε, t, c) − y_t ‖²  +  λ E ‖ f_θ(a_t' x_pr + s_t' ε', t', c_pr) − y'_t' ‖²

    x      images of the subject, c their prompt ("a photo of sks dog")      x_pr   images that the model before the
    c_pr   the class prompt ("a photo of a dog")                                    fine-tuning draws for c_pr

Source: huggingface/diffusers 58eb52c, examples/dreambooth/train_dreambooth.py with --with_prior_preservation; the
U-Net is trained, the text encoder is not (its default). The recipe is that of `contract`. As in the script, `weighting`
applies to the subject's images alone and `noise_offset` to both.

Departures   the class images are drawn with the run's sampler settings, not the pipeline's PNDM defaults, and stored.
             Subject and class images are drawn in two independent orders; the script pairs them by index. With both
             min-SNR and a prior the script weights images by the timesteps of others; here each has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples
from resurgence_harness.diffusion.parameters import Everything, Parameters
from resurgence_harness.diffusion.ranges import at_least, whole
from resurgence_harness.errors import BuildError, SpecError, sentence, shown
from resurgence_harness.finetuning.benign import check_tokens
from resurgence_harness.finetuning.contract import FineTuning, Prior, train_selected
from resurgence_harness.specs import Probe, Prompt, Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

FIRST_SEED = 400_001
"""First seed of the class images; no other images of a run have these seeds."""
PRIOR_ORDER = 2_000_003
"""Added to the step's seed for the order, timesteps and noise of the class images."""


@final
@dataclass(frozen=True, kw_only=True)
class DreamBooth(FineTuning):
    """Train the whole UNet on a subject, with prior preservation."""

    name: ClassVar[str] = "dreambooth"
    version: ClassVar[int] = 1

    steps: int = 800
    """Optimiser steps, ≥ 1."""
    learning_rate: float = 5e-6
    """Initial learning rate of AdamW, > 0; changed by `schedule`."""
    batch: int = 1
    """Images of the subject per optimiser step, and as many of its class, ≥ 1."""
    instance_prompt: str = ""
    """Prompt of every image of the subject, such as "a photo of sks dog"; empty: each image has its own caption."""
    class_prompt: str = "a photo of a person"
    """Prompt of the class images."""
    class_images: int = 200
    """Number of class images, ≥ 1."""
    prior_weight: float = 1.0
    """λ ≥ 0; 0: without prior preservation."""
    sampler: Sampler = field(default=Sampler())
    """Sampler settings of the class images."""

    def __post_init__(self) -> None:
        """SpecError for values out of range, and for a prompt that contains an erased name."""
        FineTuning.__post_init__(self)
        whole("DreamBooth", 1, class_images=self.class_images)
        at_least("DreamBooth", 0, prior_weight=self.prior_weight)
        if not self.class_prompt.strip():
            raise SpecError(
                sentence(
                    "DreamBooth has an empty class prompt.",
                    do='Name the class of the subject, for example class_prompt="a photo of a dog".',
                )
            )
        for setting in ("instance_prompt", "class_prompt"):
            prompt = getattr(self, setting)
            for name in self.data.forbidden:
                if moves.holds(moves.words_of(prompt), moves.words_of(name)):
                    raise SpecError(
                        sentence(
                            f'DreamBooth\'s {setting.replace("_", " ")} has the erased name "{name}".',
                            prompt=shown(prompt),
                            do="Choose another prompt: a fine-tuning on an erased concept is not benign.",
                        )
                    )

    @property
    def prior(self) -> Probe | None:
        """The class images, drawn by the model before the fine-tuning; None without prior preservation."""
        if not self.prior_weight:
            return None
        prompt = Prompt(text=self.class_prompt, concept=self.class_prompt)
        return Probe(
            prompts=(prompt,), seeds=tuple(range(FIRST_SEED, FIRST_SEED + self.class_images)), sampler=self.sampler
        )

    @property
    def moves(self) -> Parameters:
        """Everything."""
        return Everything()

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """The model, fine-tuned."""
        prompts = [prompt for prompt in (self.instance_prompt, self.class_prompt) if prompt]
        moves.check_texts(model.tokenizer, prompts)
        check_tokens(model.tokenizer, prompts, self.data.forbidden)
        prior = None
        if self.prior is not None:
            data = class_examples(model, run, self.prior)
            prior = Prior(data, self.prior_weight, self.seed + PRIOR_ORDER)
            run.record("class images", len(data.mean))
        return train_selected(self, model, run, caption=self.instance_prompt, prior=prior)


@final
@dataclass(frozen=True, kw_only=True)
class ClassLatents:
    """Cache key of the VAE moments of class images."""

    name: ClassVar[str] = "class-latents"
    version: ClassVar[int] = 1

    base: str
    """Digest of the base, whose VAE encodes the images."""
    model: str
    """Digest of the model that drew the images."""
    probe: Probe
    """Prompt, seeds and sampler settings of the images."""


def class_examples(model: StableDiffusion, run: Run, probe: Probe) -> Examples:
    """The class images as latents and text states."""
    import torch

    (prompt,) = probe.prompts

    def encode() -> dict[str, Tensor]:
        images, captions = run.parent_images(probe)
        if captions != [prompt.text] * len(probe) or len(images) != len(probe):
            raise BuildError(
                sentence("The drawn class images are not those of the probe.", images=len(images), requested=len(probe))
            )
        mean, deviation = moves.latent_moments(run.base, images)
        return {"mean": mean.cpu(), "deviation": deviation.cpu()}

    spec = ClassLatents(base=run.base_digest, model=run.parent_digest, probe=probe)
    moments = run.cached("latents", spec, encode)
    return Examples(
        mean=moments["mean"].to(model.device),
        deviation=moments["deviation"].to(model.device),
        states=moves.conditions(model, [prompt.text]),
        text=torch.zeros(len(probe), dtype=torch.long, device=model.device),
    )
