"""EraseDiff: minimise a retain loss under the constraint that the forget loss keeps falling.

Wu, Le, Hayat, Harandi. Erasing Undesirable Influence in Diffusion Models. CVPR 2025.
https://arxiv.org/abs/2401.05779

    min_θ L_r(θ)   subject to   L_f(θ) − min_φ L_f(φ) ≤ 0

    L_r = E  w_t ‖ f_θ(x_t, t, c) − y_t ‖²                        on retain images, y_t = ε or v
    L_f = E  w_t ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²      on forget images

    δ = ∇L_r + λ ∇L_f,     λ = max( 0, η − ⟨∇L_f, ∇L_r⟩ / ‖∇L_f‖² ),     θ ← Adam(θ, δ)

λ is the smallest weight at which ⟨δ, ∇L_f⟩ ≥ η ‖∇L_f‖²: each step decreases L_f at least η times as fast as its own
gradient would. min_φ L_f is constant in θ; it has no gradient, and needs no inner loop.

Notation     f_θ the model being trained     c text states of the image's own prompt     c' of its pseudo prompt ("a
             sketch of a celebrity")     η rate     sg no gradient     x_t, t as in fine-tuning
             w_t = 1 for ε-models, a_t² for v-models, which makes both losses those of ε
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` forget images
             and as many retain images. The forget set is the union over the concepts; both sets are traversed in
             separate seeded random orders, each image once before any repeats. λ is computed from a step's batches.
Departures   from EraseDiff 14f4e98 (2024): λ adapts, as in the paper; their scripts for Stable Diffusion use a fixed
             one (`FixedWeight`), and read an undefined option for an adaptive one. No inner loop: theirs adds a
             constant to the loss, shares Adam's moments with the outer one and discards all but the last outer pass.
             Every forget image is used (theirs: always the first batch); no mask (theirs is never applied). c' replaces
             the name in the prompt (theirs: the next class; since May 2024 "a photo of a pokemon", which `TextReplaced`
             gives). Images are drawn by the base (theirs: Imagenette for classes); float32; everything seeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, Noised, drawn_examples, noised
from resurgence_harness.diffusion.parameters import Everything, Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import batches, descend, gradients, passes
from resurgence_harness.specs import ADDED, Arithmetic, Concept, Probe, check_arithmetic
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_pictures
from resurgence_harness.unlearning.redirection import NameReplaced, TextReplaced, pseudo_texts, redirected

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

Gradient = Sequence[Any]
"""One tensor for each trained parameter."""


@final
@dataclass(frozen=True, kw_only=True)
class AdaptiveWeight:
    """λ by the constraint: the smallest weight of ∇L_f that satisfies it."""

    name: ClassVar[str] = "adaptive"

    rate: float = 1.0
    """η, ≥ 0. 1 equals the authors' fixed λ if the two gradients are orthogonal; their code for DDPM has .1."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("AdaptiveWeight", 0, rate=self.rate)

    def of(self, *, retain: Gradient, forget: Gradient) -> float:
        """λ = max( 0, η − ⟨∇L_f, ∇L_r⟩ / ‖∇L_f‖² )."""
        return constrained_weight(inner(forget, retain), inner(forget, forget), rate=self.rate)


@final
@dataclass(frozen=True, kw_only=True)
class FixedWeight:
    """A constant λ, L_r + λ L_f, as in the authors' code for Stable Diffusion."""

    name: ClassVar[str] = "fixed"

    value: float = 1.0
    """λ, ≥ 0; 1 in the authors' instructions, .1 by their default. 0 is plain fine-tuning on the retain images."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("FixedWeight", 0, value=self.value)

    def of(self, *, retain: Gradient, forget: Gradient) -> float:
        """λ."""
        return self.value


@final
@dataclass(frozen=True, kw_only=True)
class EraseDiff(Unlearning):
    """Erase concepts by gradient descent on a retain loss under a forgetting constraint."""

    name: ClassVar[str] = "erasediff"
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
    """How c' is made from the anchor."""
    subset: Parameters = field(default=Everything())
    """The UNet's trained parameters; the authors use `NonCrossAttention` for unsafe content."""
    weight: AdaptiveWeight | FixedWeight = AdaptiveWeight()
    """How λ is chosen."""
    iterations: int = 160
    """Minimum optimiser steps, ≥ 1; the authors find 160 enough for unsafe content and 60 for a class."""
    iterations_per_concept: int = 0
    """Minimum optimiser steps per concept, ≥ 0; 0: the total does not grow with the erase set, as theirs."""
    batch: int = 16
    """Forget images per optimiser step, and as many retain images, ≥ 1."""
    learning_rate: float = 1e-5
    """Adam's, without weight decay, schedule or clipping; > 0."""
    seed: int = 0
    """Seed of the orders of the images, the timesteps and the noise."""
    arithmetic: Arithmetic = field(default="float32", metadata=ADDED)
    """Of the passes whose gradients are taken."""

    def __post_init__(self) -> None:
        """SpecError for contradictory sets, missing anchors, and values out of range."""
        check_arithmetic("EraseDiff", self.arithmetic)
        check_concepts("EraseDiff", self.concepts)
        check_pictures("EraseDiff", self.concepts, forget=self.forget, retain=self.retain)
        whole("EraseDiff", 0, seed=self.seed, iterations_per_concept=self.iterations_per_concept)
        whole("EraseDiff", 1, iterations=self.iterations, batch=self.batch)
        positive("EraseDiff", learning_rate=self.learning_rate)
        self._pseudo_texts()

    @property
    def moves(self) -> Parameters:
        """The subset."""
        return self.subset

    @property
    def updates(self) -> int:
        """Optimiser steps taken."""
        return max(self.iterations, self.iterations_per_concept * len(self.concepts))

    def _pseudo_texts(self) -> tuple[str, ...]:
        """c' of every forget prompt."""
        return pseudo_texts("EraseDiff", self.concepts, self.forget, anchor=self.anchor, pseudo=self.pseudo)

    def apply(self, model: StableDiffusion, run: Run) -> StableDiffusion:
        """Train a copy of the model."""
        import torch

        with gradients(model, self.arithmetic, run):
            # 1. Forget images with their pseudo prompts; retain images.
            pseudo = redirected(model, self.forget, self._pseudo_texts())
            forget, retain = drawn_examples(model, run, self.forget), drawn_examples(model, run, self.retain)
            # 2. Trained parameters.
            changed = model.copy()
            named = {f"unet.{name}": parameter for name, parameter in changed.unet.named_parameters()}
            trained = [named[name].requires_grad_(True) for name in selected(self.subset, named)]
            adam = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
            logged: list[dict[str, float]] = []

            # 3. Three forward passes and two backward passes per step; two gradients are held at once.
            def losses() -> Iterator[Tensor]:
                forgotten = noised_batches(changed, forget, self.batch, seed=2 * self.seed)
                retained = noised_batches(changed, retain, self.batch, seed=2 * self.seed + 1)
                for (rows, f), (_, r) in zip(forgotten, retained, strict=True):
                    with torch.no_grad():
                        aim = moves.predict(changed, f.x_t, f.t, pseudo.states[pseudo.text[rows]])
                    l_f, g_f = slope(changed, f._replace(aim=aim), trained)
                    l_r, g_r = slope(changed, r, trained)
                    weight = self.weight.of(retain=g_r, forget=g_f)
                    logged.append({"retain": l_r.item(), "forget": l_f.item(), "weight": weight})
                    yield with_gradient(l_r + weight * l_f, trained, direction(g_r, g_f, weight=weight))

            loss = descend("EraseDiff", adam, losses(), steps=self.updates, progress=run.progress)
            changed.unet.requires_grad_(False)
        run.record("samples seen", 2 * self.updates * self.batch)
        run.record("loss", loss._asdict())
        run.record("first step", logged[0])
        run.record("last step", logged[-1])
        run.record("steps without forgetting", sum(step["weight"] == 0 for step in logged))
        return changed


def constrained_weight(aligned: float, squared: float, *, rate: float) -> float:
    """λ from ⟨∇L_f, ∇L_r⟩ and ‖∇L_f‖²; 0 if ∇L_f is 0, since nothing is left to forget."""
    return max(rate - aligned / squared, 0.0) if squared else 0.0  # in this order a NaN stays NaN, and `descend` stops


def direction(retain: Gradient, forget: Gradient, *, weight: float) -> Gradient:
    """δ = ∇L_r + λ ∇L_f, in place of ∇L_r, since each may be as large as the UNet; bit-identical to ∇L_r at λ = 0."""
    if weight:
        for ours, theirs in zip(retain, forget, strict=True):
            ours.add_(theirs, alpha=weight)
    return retain


def inner(one: Gradient, other: Gradient) -> float:
    """⟨·, ·⟩, tensor by tensor, summed in float64."""
    import torch

    parts = [torch.sum(ours * theirs, dtype=torch.float64) for ours, theirs in zip(one, other, strict=True)]
    return float(torch.stack(parts).sum())


def with_gradient(value: Tensor, parameters: Gradient, gradient: Gradient) -> Tensor:
    """A scalar equal to `value` whose gradient is exactly the given one, so it can be used as a loss."""
    import torch

    linear = torch.stack([(ours * slope).sum() for ours, slope in zip(parameters, gradient, strict=True)]).sum()
    return value + (linear - linear.detach())


def slope(model: StableDiffusion, x: Noised, parameters: Gradient) -> tuple[Tensor, Gradient]:
    """L = E w_t ‖ f_θ(x_t, t, c) − aim ‖² of a batch, and ∇L; large batches take several passes, freeing the graph."""
    import torch

    losses: list[Tensor] = []
    for parameter in parameters:
        parameter.grad = None  # the last step's gradient is still there, and passes add up
    # A second gradient may be held beside these activations, so passes are three quarters as large.
    for rows in passes(len(x.t), 4 * x.x_t[0, 0].numel() // 3):
        part = x.part(rows)
        predicted = moves.predict(model, part.x_t, part.t, part.states)
        loss = moves.noise_errors(model, predicted, part.aim, part.t).mean() * (len(part.t) / len(x.t))
        torch.autograd.backward(loss, inputs=list(parameters))
        losses.append(loss.detach())
    gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.stack(losses).sum(), gradient


def noised_batches(model: StableDiffusion, data: Examples, batch: int, *, seed: int) -> Iterator[tuple[Tensor, Noised]]:
    """Endless batches of (rows, their noised examples), from a separate generator with this seed."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    for rows in batches(len(data.mean), batch, generator=generator):
        yield rows.to(model.device), noised(model, data, rows, generator=generator)
