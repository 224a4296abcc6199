"""EraseDiff: keep what is to be retained, under the constraint that the concept goes on being forgotten.

Wu, Le, Hayat, Harandi. Erasing Undesirable Influence in Diffusion Models. CVPR 2025.
https://arxiv.org/abs/2401.05779

    min_θ L_r(θ)   subject to   L_f(θ) − min_φ L_f(φ) ≤ 0

    L_r = E  w_t ‖ f_θ(x_t, t, c) − y_t ‖²                        on retain images, y_t = ε or v
    L_f = E  w_t ‖ f_θ(x_t, t, c) − sg( f_θ(x_t, t, c') ) ‖²      on forget images

    δ = ∇L_r + λ ∇L_f,     λ = max( 0, η − ⟨∇L_f, ∇L_r⟩ / ‖∇L_f‖² ),     θ ← Adam(θ, δ)

λ is the smallest weight at which ⟨δ, ∇L_f⟩ ≥ η ‖∇L_f‖²: each step descends L_f at least η times as fast as its own
gradient would. min_φ L_f is a constant to θ; it has no gradient, and needs no inner loop.

Notation     f_θ the model being trained     c text states of the image's own prompt     c' of its pseudo prompt ("a
             sketch of a celebrity")     η rate     sg no gradient     x_t, t as in fine-tuning
             w_t = 1 for ε-models, a_t² for v-models, which makes both losses those of ε
Iterations   max(iterations, iterations_per_concept × n) optimiser steps for n concepts, each on `batch` forget images
             and as many retain images. The forget set is the union over the concepts; both sets are gone through in
             seeded random orders of their own, each image once before any comes again. λ is that of a step's batches.
Departures   from EraseDiff 14f4e98 (2024): λ adapts, as in the paper; their scripts for Stable Diffusion take a fixed
             one (`FixedWeight`), and for an adaptive one read an option that they lack. No inner loop: theirs adds a
             constant to the loss, shares Adam's moments with the outer one and throws away all but the last outer
             pass. Every forget image is used (theirs: the first batch, again and again); no mask (theirs never
             applies). c' replaces the name in the prompt (theirs: the next class; since May 2024 "a photo of a
             pokemon", which `TextReplaced` gives). Images are drawn by the base (theirs: Imagenette for classes);
             float32; everything seeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

from resurgence_harness.diffusion import moves
from resurgence_harness.diffusion.examples import Examples, Noised, drawn_examples, noised
from resurgence_harness.diffusion.parameters import Everything, Parameters, selected
from resurgence_harness.diffusion.ranges import at_least, positive, whole
from resurgence_harness.diffusion.training import batches, descend, passes
from resurgence_harness.specs import Concept, Probe
from resurgence_harness.unlearning.contract import Unlearning, check_concepts, check_pictures
from resurgence_harness.unlearning.redirection import NameReplaced, TextReplaced, pseudo_texts, redirected

if TYPE_CHECKING:
    from torch import Tensor

    from resurgence_harness.diffusion.model import StableDiffusion
    from resurgence_harness.diffusion.run import Run

Gradient = Sequence[Any]
"""One tensor for each parameter that moves."""


@final
@dataclass(frozen=True, kw_only=True)
class AdaptiveWeight:
    """λ by the constraint: as much of ∇L_f as forgetting needs beside ∇L_r, and no more."""

    name: ClassVar[str] = "adaptive"

    rate: float = 1.0
    """η, ≥ 0. 1 is the authors' fixed λ where the two gradients are orthogonal; their code for DDPM has .1."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("AdaptiveWeight", 0, rate=self.rate)

    def of(self, *, retain: Gradient, forget: Gradient) -> float:
        """λ = max( 0, η − ⟨∇L_f, ∇L_r⟩ / ‖∇L_f‖² )."""
        return constrained_weight(inner(forget, retain), inner(forget, forget), rate=self.rate)


@final
@dataclass(frozen=True, kw_only=True)
class FixedWeight:
    """The same λ in every step, L_r + λ L_f: what the authors' code for Stable Diffusion does."""

    name: ClassVar[str] = "fixed"

    value: float = 1.0
    """λ, ≥ 0; 1 in the authors' instructions, .1 if nothing is said. 0 is plain fine-tuning on the retain images."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        at_least("FixedWeight", 0, value=self.value)

    def of(self, *, retain: Gradient, forget: Gradient) -> float:
        """λ."""
        return self.value


@final
@dataclass(frozen=True, kw_only=True)
class EraseDiff(Unlearning):
    """Erase concepts by descent on a retain loss under a forgetting constraint."""

    name: ClassVar[str] = "erasediff"
    version: ClassVar[int] = 1

    concepts: tuple[Concept, ...]
    """The erase set, trained together."""
    forget: Probe
    """What the base is asked to draw the images to be forgotten: prompts with the concepts' names, all of them."""
    retain: Probe
    """What the base is asked to draw the images to be retained: prompts with none of these names."""
    anchor: str = ""
    """What a concept shall be taken for; "" means each concept's own kind ("a celebrity")."""
    pseudo: NameReplaced | TextReplaced = field(default=NameReplaced())
    """How c' is made of the anchor."""
    subset: Parameters = field(default=Everything())
    """Which of the UNet's parameters may move; the authors take `NonCrossAttention` for unsafe content."""
    weight: AdaptiveWeight | FixedWeight = AdaptiveWeight()
    """How λ is chosen."""
    iterations: int = 160
    """Optimiser steps at least, ≥ 1; the authors find 160 enough for unsafe content and 60 for a class."""
    iterations_per_concept: int = 0
    """Optimiser steps for each concept at least, ≥ 0; 0: the total does not grow with the erase set, as theirs."""
    batch: int = 16
    """Forget images per optimiser step, and as many retain images, ≥ 1."""
    learning_rate: float = 1e-5
    """Adam's, without weight decay, schedule or clipping; > 0."""
    seed: int = 0
    """Of the orders of the images, the timesteps and the noise."""

    def __post_init__(self) -> None:
        """Refuse sets that contradict each other, anchors that say nothing, and values out of range."""
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

        with torch.inference_mode(False), torch.enable_grad():
            # 1. What is forgotten, and what it shall be taken for; what is retained.
            pseudo = redirected(model, self.forget, self._pseudo_texts())
            forget, retain = drawn_examples(model, run, self.forget), drawn_examples(model, run, self.retain)
            # 2. What may move.
            changed = model.copy()
            named = {f"unet.{name}": parameter for name, parameter in changed.unet.named_parameters()}
            trained = [named[name].requires_grad_(True) for name in selected(self.subset, named)]
            adam = torch.optim.Adam(trained, lr=self.learning_rate, fused=True)
            told: list[dict[str, float]] = []

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
                    told.append({"retain": l_r.item(), "forget": l_f.item(), "weight": weight})
                    yield with_gradient(l_r + weight * l_f, trained, direction(g_r, g_f, weight=weight))

            loss = descend("EraseDiff", adam, losses(), steps=self.updates, progress=run.progress)
            changed.unet.requires_grad_(False)
        run.record("samples seen", 2 * self.updates * self.batch)
        run.record("loss", loss._asdict())
        run.record("first step", told[0])
        run.record("last step", told[-1])
        run.record("steps without forgetting", sum(step["weight"] == 0 for step in told))
        return changed


def constrained_weight(aligned: float, squared: float, *, rate: float) -> float:
    """λ from ⟨∇L_f, ∇L_r⟩ and ‖∇L_f‖². Where L_f is flat there is nothing left to forget: 0."""
    return max(rate - aligned / squared, 0.0) if squared else 0.0  # in this order a NaN stays one, and stops descent


def direction(retain: Gradient, forget: Gradient, *, weight: float) -> Gradient:
    """δ = ∇L_r + λ ∇L_f, written over ∇L_r, for each may be as large as the UNet; at λ = 0 its bits are kept."""
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
    """A scalar that is `value` and whose gradient is the given one, bit for bit: descent follows it as any loss."""
    import torch

    linear = torch.stack([(ours * slope).sum() for ours, slope in zip(parameters, gradient, strict=True)]).sum()
    return value + (linear - linear.detach())


def slope(model: StableDiffusion, x: Noised, parameters: Gradient) -> tuple[Tensor, Gradient]:
    """L = E w_t ‖ f_θ(x_t, t, c) − aim ‖² of a batch, and ∇L; the graph is freed, after each pass of many rows."""
    import torch

    losses: list[Tensor] = []
    for parameter in parameters:
        parameter.grad = None  # the last step's is still there, and passes add up
    # Beside these activations another gradient may be held: passes three quarters as large.
    for rows in passes(len(x.t), 4 * x.x_t[0, 0].numel() // 3):
        part = Noised(*(value[rows] for value in x))
        said = moves.predict(model, part.x_t, part.t, part.states)
        loss = moves.noise_errors(model, said, part.aim, part.t).mean() * (len(part.t) / len(x.t))
        torch.autograd.backward(loss, inputs=list(parameters))
        losses.append(loss.detach())
    gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.stack(losses).sum(), gradient


def noised_batches(model: StableDiffusion, data: Examples, batch: int, *, seed: int) -> Iterator[tuple[Tensor, Noised]]:
    """(rows, these with noise) of one batch after another, without end, from a generator of its own."""
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    for rows in batches(len(data.mean), batch, generator=generator):
        yield rows.to(model.device), noised(model, data, rows, generator=generator)
