"""SalUn, Saliency Unlearning: relabel the forget images, and train only the weights that are salient for them.

Fan, Liu, Zhang, Wong, Wei, Liu. SalUn: Empowering Machine Unlearning via Gradient-Based Weight Saliency in Both Image
Classification and Generation. ICLR 2024. https://arxiv.org/abs/2310.12508

    G = Σ ∇_θ ‖ (1 + g) f(x_t, t, c) − g f(x_t, t, c_0) − y_t ‖²    over the forget images, at the given model
    m = 1 on the half of the UNet's entries with the largest |G|, else 0
    L(θ) = ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²  +  α ‖ f_θ(x_t', t', c_r) − y_t' ‖²,    ∇L ← m ∇L

The first term is on forget images, the second on retain images (x_t', t', c_r); both are in redirection.py.

Notation     f_θ the model being trained, f the given one     c text states of an image's own text, c' of its pseudo
             prompt, c_0 of the empty text     y_t = ε, or v of a v-model (errors weighted by a_t², so in ε)
             g MostSalient.loss.guidance     m mask     α retain_weight
Several      The forget set is the union of the concepts' images, each with its own c and c'; one mask from all of them.
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` forget and
             `batch` retain images, in seeded random orders that use every image once before any repeats. 600 × 8 is the
             authors' 5 epochs of one Imagenette class (their nudity recipe: 100 × 8, α = .1).
Masks        `MostSalient(loss=Guided())` is the formula above, and the authors' code. The sum is taken before the
             absolute value; the loss's sign and scale do not matter. `Denoising()` is the unguided loss, as for
             training. `Unmasked()` is what their code did until 2024-05-15: it computed the mask but did not apply it
             in Stable Diffusion (their issue 15); results published from it have changed every weight.
Departures   from Unlearn-Saliency a6e89fd (2026-02-28): c' replaces the name in the image's own text (theirs: the next
             class), `TextReplaced` gives their single text; x_t is the same for c and c' (theirs draws x_0 twice from
             the VAE's posterior); images drawn by the base; every forget image is used (until 2026-02-27: always the
             first batch), partial batches too; threshold by radix selection and bits instead of two sorts and int64;
             noise of the mask's pass seeded. Adam without weight decay, so that masked-out entries do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion.examples import Examples, drawn_examples
from resurgence_harness.diffusion.parameters import Everything, Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import descend, gradients
from resurgence_harness.errors import BuildError, SpecError, sentence
from resurgence_harness.specs import ADDED, Arithmetic, Concept, Probe, check_arithmetic
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_pictures
from resurgence_harness.unlearning.redirection import (
    NameReplaced,
    TextReplaced,
    Weights,
    pseudo_texts,
    redirected,
    redirection_losses,
)
from resurgence_harness.unlearning.saliency import Denoising, Guided, add_gradients, largest, ones, unpacked

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run


@final
@dataclass(frozen=True, kw_only=True)
class MostSalient:
    """Train the entries with the largest gradients of a loss on the forget images."""

    name: ClassVar[str] = "most-salient"

    fraction: float = 0.5
    """Share of the whole UNet's entries in the mask, 0 < fraction ≤ 1, whatever the subset."""
    loss: Guided | Denoising = field(default=Guided())
    """The loss whose gradient is used."""

    def __post_init__(self) -> None:
        """SpecError for a fraction out of range."""
        if not 0 < self.fraction <= 1:
            raise SpecError(sentence(f"MostSalient.fraction must be above 0 and at most 1, got {self.fraction}."))


@final
@dataclass(frozen=True)
class Unmasked:
    """Train every entry, as the authors' code before 2024-05-15."""

    name: ClassVar[str] = "unmasked"


@final
@dataclass(frozen=True, kw_only=True)
class SaliencyMask:
    """The mask of one model for some images. Only a cache key."""

    name: ClassVar[str] = "saliency-mask"
    version: ClassVar[int] = 1

    model: str
    """Digest of the given model."""
    base: str
    """Digest of the base, which drew the images."""
    forget: Probe
    """The images."""
    mask: MostSalient
    """Share of entries, and the loss."""
    batch: int
    """Images per forward pass; noise is drawn batch by batch."""
    seed: int
    """Seed of timesteps and noise."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes."""


@final
@dataclass(frozen=True, kw_only=True)
class SalUn(Unlearning):
    """Erase concepts by relabelling their images, training the salient weights only."""

    name: ClassVar[str] = "salun"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, trained together."""
    forget: Probe
    """Prompts and seeds of the forget images, drawn by the base: every erased concept, and no other."""
    retain: Probe
    """Prompts and seeds of the retain images, drawn by the base: no erased concept."""
    anchor: str = ""
    """The text that replaces an erased name; "" means each concept's own kind ("a celebrity")."""
    pseudo: NameReplaced | TextReplaced = field(default=NameReplaced())
    """How the anchor becomes a pseudo prompt."""
    mask: MostSalient | Unmasked = field(default=MostSalient())
    """Which entries are trained."""
    subset: Parameters = field(default=Everything())
    """The UNet's trained parameters; the mask is computed over the whole UNet, then restricted to these."""
    retain_weight: float = 0.5
    """α ≥ 0."""
    iterations: int = 600
    """Minimum optimiser steps, ≥ 1."""
    iterations_per_concept: int = 0
    """Minimum optimiser steps per concept, ≥ 0; 0: the total does not grow with the erase set."""
    batch: int = 8
    """Images of each set per optimiser step, and per forward pass for the mask, ≥ 1."""
    learning_rate: float = 1e-5
    """Adam's, without weight decay, schedule or clipping; > 0."""
    seed: int = 0
    """Seed of the order of the images, the timesteps and the noise."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for contradictory sets, missing anchors, and values out of range."""
        check_arithmetic("SalUn", self.arithmetic)
        check_concepts("SalUn", self.concepts)
        check_pictures("SalUn", self.concepts, forget=self.forget, retain=self.retain)
        self._pseudo_texts()
        at_least("SalUn", 0, retain_weight=self.retain_weight)
        whole("SalUn", 0, seed=self.seed, iterations_per_concept=self.iterations_per_concept)
        whole("SalUn", 1, iterations=self.iterations, batch=self.batch)
        positive("SalUn", learning_rate=self.learning_rate)

    @property
    def moves(self) -> Parameters:
        """The subset, of which only the entries in the mask change."""
        return self.subset

    @property
    def updates(self) -> int:
        """Optimiser steps taken."""
        return max(self.iterations, self.iterations_per_concept * len(self.concepts))

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Compute the mask, then train the entries in it."""
        import torch

        with gradients(model, self.arithmetic, run):
            forget, retain = drawn_examples(model, run, self.forget), drawn_examples(model, run, self.retain)
            pseudo = redirected(model, self.forget, self._pseudo_texts())
            changed = model.copy()
            named: dict[str, Any] = {f"unet.{name}": value for name, value in changed.unet.named_parameters()}
            names = selected(self.subset, named)
            # 1. m, over the whole UNet; then the trained parameters, and their part of m.
            bits = self._mask(changed, named, forget, run)
            trained = [named[name].requires_grad_(True) for name in names]
            adam = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
            if bits is not None:
                mask = [bits[name].to(model.device) for name in names]
                run.record("entries in mask", ones(mask))
                adam.register_step_pre_hook(lambda *_: keep_masked(trained, mask))

            # 2. One forward and one backward pass per step, and a forward pass for the target.
            generator = torch.Generator("cpu").manual_seed(self.seed)
            losses = redirection_losses(
                changed,
                forget,
                retain,
                pseudo,
                weights=Weights(forget=1.0, retain=self.retain_weight),
                batch=self.batch,
                generator=generator,
            )
            loss = descend("SalUn", adam, losses, steps=self.updates, progress=run.progress)
            changed.unet.requires_grad_(False)
        run.record("forget images", len(forget.mean))
        run.record("retain images", len(retain.mean))
        run.record("samples seen", 2 * self.updates * self.batch)
        run.record("loss", loss._asdict())
        return changed

    def _pseudo_texts(self) -> tuple[str, ...]:
        """c' of each forget prompt."""
        return pseudo_texts("SalUn", self.concepts, self.forget, anchor=self.anchor, pseudo=self.pseudo)

    def _mask(
        self, model: StableDiffusion, named: dict[str, Any], forget: Examples, run: Run
    ) -> dict[str, Tensor] | None:
        """m as bits, for every tensor of the UNet; None for Unmasked. Cached independently of training settings."""
        import torch

        if isinstance(self.mask, Unmasked):
            return None
        spec = SaliencyMask(
            model=run.parent_digest,
            base=run.base_digest,
            forget=self.forget,
            mask=self.mask,
            batch=self.batch,
            seed=self.seed,
            arithmetic=self.arithmetic,
        )

        def build() -> dict[str, Tensor]:
            model.unet.requires_grad_(True)
            add_gradients(
                "SalUn",
                model,
                forget,
                torch.arange(len(forget.mean)),
                loss=spec.mask.loss,
                batch=spec.batch,
                generator=torch.Generator("cpu").manual_seed(spec.seed),
            )
            bits = largest({name: value.grad for name, value in named.items()}, spec.mask.fraction)
            model.unet.zero_grad(set_to_none=True)
            model.unet.requires_grad_(False)
            return {name: part.cpu() for name, part in bits.items()}

        bits = run.cached("saliency", spec, build)
        if not any(bool(bits[name].any()) for name in selected(self.subset, named)):
            raise BuildError(
                sentence(
                    f'SalUn\'s mask leaves nothing to train in "{self.subset.name}".',
                    fraction=self.mask.fraction,
                    do="Raise the mask's fraction, or let more parameters move.",
                )
            )
        return bits


def keep_masked(parameters: Sequence[Any], bits: Sequence[Tensor]) -> None:
    """∇L ← m ∇L, in place."""
    for parameter, part in zip(parameters, bits, strict=True):
        parameter.grad.mul_(unpacked(part, parameter.shape))
